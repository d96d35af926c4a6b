"""Converters from the text of one setting to its value. Each raises ValueError with what the text must be.

Pure. The settings, and the sources of their texts, are in ``settings``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pluto_dist.contract.run_ref import impossible, reference
from pluto_dist.contract.secret import Secret

FAMILIES = ("argv", "env", "git", "gpu", "host", "network", "packages", "software")
"""The parts of the system metadata; each can be left out by its name."""


def nonempty_text(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    return value


def run_id(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    if (why := impossible(value)) is None:
        return value
    if reference(value).kind != "external id":
        why += f": for an id of your own, put a word in front of it ({f'run-{value}'[:100]!r})"
    raise ValueError(why)


def url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be a URL such as https://pluto.example.com")
    if parts.username or parts.password:
        raise ValueError("must not carry a user name or password")
    return value.rstrip("/")


def api_key(value: Secret | str) -> Secret:
    key = value if isinstance(value, Secret) else Secret(value)
    if not key.is_header_word():
        raise ValueError("must be one word of printable ASCII, as an HTTP header carries it")
    return key


def folder(value: str) -> Path:
    if "\0" in value:
        raise ValueError("must be the path of a folder")
    return Path(value)


def boolean(value: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    try:
        return words[value.strip().lower()]
    except KeyError:
        raise ValueError("must be 1 or 0") from None


def metadata_families(value: str) -> frozenset[str]:
    """The families that "0", "1", or "git=0,env=0" leaves in."""
    if "=" not in value:
        if (on := _switch(value)) not in (True, False):
            raise ValueError("must be 1, 0, or a list such as git=0,env=0")
        return enabled_families(on is True)
    pairs = [item.partition("=") for item in value.split(",") if item.strip()]
    return enabled_families({name.strip(): _switch(word) for name, _, word in pairs})


def _switch(word: str) -> bool | str:
    try:
        return boolean(word)
    except ValueError:
        return word


def enabled_families(given: bool | Mapping[Any, Any]) -> frozenset[str]:
    """The families that ``given`` leaves in; one that it does not name is in.

    >>> sorted(set(FAMILIES) - enabled_families({"git": False, "env": True}))
    ['git']
    """
    if isinstance(given, bool):
        return frozenset(FAMILIES if given else ())
    unknown = [str(name) for name in given if name not in FAMILIES]
    no_switches = [str(name) for name, on in given.items() if name in FAMILIES and not isinstance(on, bool)]
    wrong = []
    if unknown:
        wrong.append(f"has no {', '.join(unknown)}: its parts are {', '.join(FAMILIES)}")
    if no_switches:
        wrong.append(f"must have True or False (1 or 0 in the environment) for {', '.join(no_switches)}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return frozenset(name for name in FAMILIES if given.get(name, True))


def positive_number(value: str) -> float:
    number = float(value)
    if not 0 < number < float("inf"):
        raise ValueError("must be a number above 0")
    return number


def one_of(*choices: str) -> Callable[[str], str]:
    def convert(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be {' or '.join(choices)}")
        return value

    return convert
