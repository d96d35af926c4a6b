"""The records of an encoded config, and its limits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Json = Any
"""A value that ``json.loads`` can give."""

DEPTH_LIMIT = 100  # containers inside one another; the server answers 500 to a config of 124
VALUE_LIMIT = 100_000
TEXT_LIMIT = 16 * 1024 * 1024  # characters of all strings: one string may be shared by every value
DOCUMENT_LIMIT = 1024 * 1024  # characters of JSON text, which is ASCII
KEY_LIMIT = 500  # the server's column of field names; it indexes no field of a run that has a longer one
ARRAY_LIMIT = 64  # elements of an array, a tensor or a range that are written out
EXACT_INTEGER = 2**53  # the server keeps numbers as doubles
REPR_LIMIT = 200
BINARY_LIMIT = 1024  # bytes that are not text
SECONDS = 10.0  # reading a config runs code of its objects; 100,000 plain values take 0.3 s


@dataclass(frozen=True, slots=True)
class Loss:
    """What one key of the config lost: ``key`` is its path (``optim.betas``, ``groups[0].lr``)."""

    key: str
    what: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """A config as JSON. ``suspects`` are the paths of texts that are sent unchanged but look like secrets."""

    value: dict[str, Json]
    losses: tuple[Loss, ...] = ()
    suspects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value that is one JSON scalar; ``loss`` describes what the scalar does not keep."""

    value: str | int | float | bool | None
    loss: str | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """A value that holds others. ``pairs`` may be endless; its keys matter for a mapping only."""

    shape: Literal["mapping", "list", "set"]
    name: str
    size: int | None
    pairs: Iterable[tuple[object, object]]

    def __str__(self) -> str:
        return f"{self.name} of {'many' if self.size is None else format(self.size, ',')} values"


def summary(losses: Iterable[Loss], limit: int = 10) -> tuple[str, ...]:
    """One line for each key that lost something, at most ``limit`` of them, then how many more there are.

    >>> summary([Loss("a", "cut"), Loss("b", "renamed"), Loss("b", "cut"), Loss("c", "cut")], limit=2)
    ('a: cut', 'b: renamed; cut', '... and 1 more')
    """
    by_key: dict[str, list[str]] = {}
    for loss in losses:
        by_key.setdefault(loss.key, []).append(loss.what)
    lines = [f"{key}: {'; '.join(whats)}" for key, whats in by_key.items()]
    more = [f"... and {len(lines) - limit:,} more"] if len(lines) > limit else []
    return (*lines[:limit], *more)
