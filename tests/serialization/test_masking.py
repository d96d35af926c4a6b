"""Secrets in configs: what the library that holds one masks stays masked; what only looks like one is named."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import pydantic
import pydantic.v1
import pytest
from omegaconf import OmegaConf

from pluto_dist.serialization.encode import encode

SECRET = "hf-the-secret"


@dataclass
class TrainingArguments:
    """Masks tokens in ``to_dict()`` as that of Transformers does (5.24)."""

    lr: float = 0.1
    hub_token: str = SECRET
    include_num_input_tokens_seen: str = "no"
    names: list[str] = field(default_factory=lambda: ["a"])

    def to_dict(self) -> dict[str, Any]:
        return {key: f"<{key.upper()}>" if key.endswith("_token") else value for key, value in asdict(self).items()}


class Settings(pydantic.BaseModel):
    login: pydantic.SecretStr = pydantic.SecretStr(SECRET)
    raw: pydantic.SecretBytes = pydantic.SecretBytes(SECRET.encode())
    api_key: str = SECRET

    @pydantic.field_serializer("api_key")
    def _masked(self, value: str) -> str:
        return value[:2] + "***"


class Old(pydantic.v1.BaseModel):
    login: pydantic.v1.SecretStr = pydantic.v1.SecretStr(SECRET)


class Hidden(str):
    """A text that does not show itself."""

    def __repr__(self) -> str:
        return "Hidden('...')"


MASKED = [
    pytest.param(
        TrainingArguments(),
        {"lr": 0.1, "hub_token": "<HUB_TOKEN>", "include_num_input_tokens_seen": "no", "names": ["a"]},
        id="to_dict",
    ),
    pytest.param({"train": TrainingArguments()}, None, id="to_dict, inside"),
    pytest.param(Settings(), {"login": "**********", "raw": "**********", "api_key": "hf***"}, id="pydantic"),
    pytest.param({"each": [pydantic.SecretStr(SECRET)]}, {"each": ["**********"]}, id="pydantic, in a list"),
    pytest.param(Old(), {"login": "**********"}, id="pydantic 1"),
    pytest.param({"login": Hidden(SECRET)}, {"login": "Hidden('...')"}, id="a text with its own repr"),
]


@pytest.mark.parametrize(("config", "stored"), MASKED)
def test_what_a_library_masks_stays_masked(config: Any, stored: Any) -> None:
    """No secret is sent, nothing is warned of, and every other value is whole."""
    encoded = encode(config)

    assert SECRET not in json.dumps(encoded.value)
    assert encoded.suspects == ()
    assert stored is None or encoded.value == stored


class Fails(TrainingArguments):
    def to_dict(self) -> dict[str, Any]:
        raise RuntimeError("no conversion")


@pytest.mark.parametrize("config", [Fails(), {"hub_token": SECRET}], ids=["a conversion that fails", "no conversion"])
def test_what_nothing_masks_travels_and_is_named(config: Any) -> None:
    """The config is the user's."""
    encoded = encode(config)

    assert encoded.value["hub_token"] == SECRET
    assert encoded.suspects == ("hub_token",)


def test_an_interpolation_that_looks_like_a_secret_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own name or that of what it reads; other interpolations are resolved."""
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("DATA", "/data")
    texts = {
        "login": "${oc.env:HF_TOKEN}",
        "url": "https://me:${oc.env:HF_TOKEN}@host",
        "auth": "${login}",
    }
    config = OmegaConf.create({**texts, "data": "${oc.env:DATA}", "max_tokens": 7, "length": "${max_tokens}"})
    encoded = encode(config)

    assert encoded.value == {**texts, "data": "/data", "max_tokens": 7, "length": 7}
    assert (encoded.suspects, encoded.losses) == ((), ())


@pytest.mark.parametrize(
    ("key", "is_secret"),
    [
        ("include_num_input_tokens_seen", False),
        ("include-tokens-per-second", False),
        ("numTokensSeen", False),
        ("tokens", True),
        ("api_tokens", True),
        ("access_token", True),
        ("tokenizer_name", False),
    ],
)
def test_a_count_of_tokens_is_no_secret(key: str, is_secret: bool) -> None:
    """ "tokens" before another word counts them."""
    assert encode({key: "all"}).suspects == ((key,) if is_secret else ())
