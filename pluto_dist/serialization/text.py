"""Texts and keys that the tracker or a record can store.

>>> storable_text("a\\x00b")
('ab', 'NUL characters left out')
>>> Names(reserved=()).unique("__proto__")
('__proto___', 'renamed from "__proto__", which the tracker drops')
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from pluto_dist.serialization.codec import TEXT_LIMIT
from pluto_dist.serialization.types import KEY_LIMIT

_SURROGATE = re.compile("[\ud800-\udfff]")
_DROPPED = "__proto__"
_LINE_LIMIT = 200


def storable_text(text: str) -> tuple[str, str | None]:
    """A config's ``text``, whole but for characters that no text column can hold, and what was changed."""
    losses = []
    if "\x00" in text:
        text = text.replace("\x00", "")
        losses.append("NUL characters left out")
    if _SURROGATE.search(text):
        joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if joined.count("\ufffd") > text.count("\ufffd"):
            losses.append("lone surrogates replaced by U+FFFD")
        text = joined
    return text, ", ".join(losses) or None


def parse_digits(text: str, most: int = 18) -> int | None:
    """The number that ``text`` is, in ASCII digits alone; ``None`` if it is none, or has more than ``most``.

    ``str.isdigit()`` also takes "²", which ``int()`` refuses, and ``int()`` refuses more than 4,300 digits.

    >>> parse_digits("007"), parse_digits("-1"), parse_digits(" 1"), parse_digits(""), parse_digits("1" * 19)
    (7, None, None, None, None)
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= most else None


def path_text(steps: Iterable[str | int]) -> str:
    """The path of a value, fit for a line of a log.

    >>> path_text(["groups", 0, "lr\\n"])
    'groups[0].lr\\\\n'
    """
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step or repr(step)}" for step in steps)
    return printable(text.removeprefix("."))


def printable(text: str) -> str:
    """``text`` fit for a line of a log: escaped if not printable, cut to 200 characters."""
    shown = text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return shown if len(shown) <= _LINE_LIMIT else shown[: _LINE_LIMIT - 3] + "..."


class Names:
    """The keys of one mapping: storable, unique, and none that has a meaning of its own to the tracker."""

    def __init__(self, reserved: Collection[str]) -> None:
        self._reserved = reserved
        self._taken: dict[str, int] = {}

    def unique(self, text: str) -> tuple[str, str | None]:
        """The key to store for ``text``, and what was changed."""
        name, loss = storable_text(text)
        losses = [loss] if loss else []
        if len(name) > KEY_LIMIT:
            name = name[: KEY_LIMIT - 3] + "..."
            losses.append(f"its name has {len(text):,} characters; cut to {KEY_LIMIT}")
        if name == _DROPPED:
            name += "_"
            losses.append(f'renamed from "{_DROPPED}", which the tracker drops')
        elif name in self._reserved:
            losses.append(f'renamed from "{name}", which belongs to this package')
            name += "_"
        free = self._free(name)
        if free != name:
            losses.append("an earlier key has the same name; stored with a number behind it")
        return free, ", ".join(losses) or None

    def _free(self, name: str) -> str:
        free = name
        while free in self._taken:
            self._taken[name] += 1
            suffix = f" ({self._taken[name]})"
            free = name[: KEY_LIMIT - len(suffix)] + suffix
        self._taken[free] = 1
        return free


def record_text(text: str | bytes | None) -> str | None:
    """``text`` for a record, cut to what its decoder accepts: no NUL, no lone surrogate, at most 1 KiB.

    ``None`` if nothing is left, and for bytes that are not UTF-8.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            return None
    if text is None:
        return None
    kept = text.replace("\x00", "").encode("utf-8", "replace").strip()[:TEXT_LIMIT]
    return kept.decode("utf-8", "ignore") or None
