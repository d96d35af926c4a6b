"""Secrets in a config: which texts look like one, and which are hidden by the library that holds them.

What a library masks stays masked. Three ways are known: a type of secrets (pydantic's SecretStr), an object that shows
another text than it holds (``to_dict()`` of Transformers' TrainingArguments, a pydantic serializer, a ``str`` with a
repr of its own), and an OmegaConf interpolation (``${oc.env:HF_TOKEN}``), whose text then stands for its value.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

from pluto_dist.serialization.safe_access import attempt, described, is_a
from pluto_dist.serialization.types import Leaf

MASK = "**********"  # pydantic's
# Neither "tokenizer" nor "author", nor what counts tokens ("num_tokens_seen"); special tokens ("<pad>", "[CLS]") are
# recognised by their value.
_SECRET = re.compile(
    r"token(?!i|s[-_. ]?[a-z])|secret|passw(?:or)?d|api[-_. ]?key|auth(?!or(?!i))|credential", re.IGNORECASE
)
_CONVERSIONS = ("to_dict", "model_dump", "dict")  # the second is pydantic's, the third that of its version 1


def is_suspect(key: str, text: str) -> bool:
    """Whether ``text`` under ``key`` looks like a secret.

    >>> is_suspect("HF_TOKEN", "hf_x"), is_suspect("tokenizer", "gpt2"), is_suspect("pad_token", "<pad>")
    (True, False, False)
    >>> is_suspect("auth_tokens", "a b"), is_suspect("include_num_input_tokens_seen", "no")
    (True, False)
    """
    return bool(text) and not text.startswith(("<", "[")) and _SECRET.search(key) is not None


def shown_by_owner(owner: object, key: str, text: str) -> str:
    """``text`` of the attribute ``key`` as the conversion of its own object shows it; unchanged if it has none."""
    if is_a(owner, Mapping):
        return text
    for name in _CONVERSIONS:
        convert = attempt(lambda name=name: getattr(type(owner), name, None), None)  # type: ignore[misc]
        shown: Any = attempt(lambda convert=convert: convert(owner)[key], None) if callable(convert) else None  # type: ignore[misc]
        if is_a(shown, str):
            return str.__str__(shown)
        if _secret_type(shown):
            return MASK
    return text


def hidden(value: object) -> Leaf | None:
    """What stands for a value that its own type hides; ``None`` for any other value."""
    if _secret_type(value):
        return Leaf(MASK)
    if is_a(value, str) and type(value).__repr__ is not str.__repr__:
        text = str.__str__(value)
        written = attempt(lambda: repr(value), "")
        return None if text in written or str.__repr__(text)[1:-1] in written else described(value)
    return None


def _secret_type(value: object) -> bool:
    types = ((sys.modules.get(module), name) for module in ("pydantic.types", "pydantic.v1.types") for name in _SECRETS)
    found = (getattr(module, name, None) for module, name in types)
    return is_a(value, *(cls for cls in found if isinstance(cls, type)))


_SECRETS = ("SecretStr", "SecretBytes", "Secret")


def is_secret_interpolation(key: str, expression: str, resolved: object) -> bool:
    """Whether an interpolation under ``key`` stands for a secret: by its own name, or by the name of what it reads.

    >>> is_secret_interpolation("login", "${oc.env:HF_TOKEN}", "hf_x"), is_secret_interpolation("n", "${tokens}", 7)
    (True, False)
    """
    return is_a(resolved, str, bytes) and (is_suspect(key, "?") or is_suspect(expression, "?"))
