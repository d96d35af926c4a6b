"""The walk over a config: level by level, so that depth is no recursion and a limit hits what lies deep.

Not here: what a value is (``standard``), where a config comes from (``opening``).
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass

from pluto_dist.serialization.adapters import node
from pluto_dist.serialization.budget import fit
from pluto_dist.serialization.keys import key_text
from pluto_dist.serialization.safe_access import is_a, take
from pluto_dist.serialization.source import opened
from pluto_dist.serialization.text import Names, clean, is_suspect, path_text, printable
from pluto_dist.serialization.types import DEPTH_LIMIT, TEXT_LIMIT, VALUE_LIMIT, Branch, Encoded, Json, Leaf, Loss

RESERVED = ("pluto_dist",)


def encode(config: object, argument: str = "config") -> Encoded:
    """``config`` as JSON that the tracker stores as it is, and what it could not carry.

    Args:
        config: a mapping, an argparse or simple namespace, an instance of a dataclass, of an attrs class or of
            a pydantic model, a DictConfig, the path of a .json, .yaml or .yml file, or None.
        argument: how messages call it.

    Raises:
        ConfigurationError: it is none of these, or its file cannot be read.
    """
    source, branch = opened(config, argument)
    walk = _Walk(argument)
    whole = walk.run(source, branch)
    value, dropped = fit(whole, argument)
    losses = sorted({*walk.losses, *dropped}, key=lambda loss: (loss.key, loss.what))
    kept = {key for key in value if value[key] is whole[key]}
    suspects = sorted(path_text(steps) for steps in walk.suspects if steps[0] in kept)
    return Encoded(value, tuple(losses), tuple(suspects))


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """A container on the way down. It keeps ``source`` alive, so that no other object takes over its identity."""

    source: object
    parent: _Place | None
    step: str | int | None  # None: the top, or in a set
    depth: int

    def of(self, source: object) -> _Place | None:
        """This place or one above it that is of ``source``."""
        place: _Place | None = self
        while place is not None and place.source is not source:
            place = place.parent
        return place

    def steps(self) -> list[str | int]:
        steps: list[str | int] = []
        place: _Place | None = self
        while place is not None:
            if place.step is not None:
                steps.append(place.step)
            place = place.parent
        return steps[::-1]


@dataclass(frozen=True, slots=True)
class _Task:
    """A container yet to be walked, and the slot of its parent that waits for it."""

    place: _Place
    branch: Branch
    out: Json
    slot: str | int


class _Walk:
    def __init__(self, argument: str) -> None:
        self.losses: set[Loss] = set()
        self.suspects: list[list[str | int]] = []
        self._argument = argument
        self._queue: deque[_Task] = deque()
        self._sets: list[list[Json]] = []
        self._values_left = VALUE_LIMIT
        self._text_left = TEXT_LIMIT

    def run(self, source: object, branch: Branch) -> dict[str, Json]:
        top: list[Json] = [None]
        self._queue.append(_Task(_Place(source, None, None, 1), branch, top, 0))
        while self._queue:
            self._expand(self._queue.popleft())
        for values in reversed(self._sets):  # a set inside a set was found after it
            values.sort(key=_order)
        encoded: dict[str, Json] = top[0]
        return encoded

    def _expand(self, task: _Task) -> None:
        place, branch = task.place, task.branch
        pairs = self._children(place, branch)
        if pairs is None:
            task.out[task.slot] = str(branch)
            self._lose(place, None, f"left out: a {self._argument} holds at most {VALUE_LIMIT:,} values")
            return
        self._values_left -= len(pairs)
        if branch.shape == "mapping":
            task.out[task.slot] = self._mapping(place, pairs)
            return
        task.out[task.slot] = values = [None] * len(pairs)
        if branch.shape == "set":
            self._sets.append(values)
        for n, (_, value) in enumerate(pairs):
            self._put(place, values, n, None if branch.shape == "set" else n, value)

    def _mapping(self, place: _Place, pairs: list[tuple[object, object]]) -> dict[str, Json]:
        names = Names(RESERVED if place.parent is None else ())
        out: dict[str, Json] = {}
        for key, value in pairs:
            text, lost = key_text(key)
            name, changed = names.unique(text)
            self._text_left -= len(name)
            for what in filter(None, (lost, changed)):
                self._lose(place, name, what)
            self._put(place, out, name, name, value)
        return out

    def _children(self, place: _Place, branch: Branch) -> list[tuple[object, object]] | None:
        """All children; None where there are more than may still come. The top keeps those that may."""
        left, is_top = self._values_left, place.parent is None
        if branch.size is not None and branch.size > left and not is_top:
            return None
        pairs, raised = take(branch.pairs, left + 1)
        if raised:
            self._lose(place, None, f"raised an exception after {len(pairs):,} values, which are kept")
        if len(pairs) <= left:
            return pairs
        if not is_top:
            return None
        self._lose(place, None, f"holds more than {VALUE_LIMIT:,} values; those after the first are left out")
        return pairs[:left]

    def _put(self, place: _Place, out: Json, slot: str | int, step: str | int | None, value: object) -> None:
        found = node(value)
        if isinstance(found, Leaf):
            out[slot] = self._leaf(place, slot, found, value)
            return
        out[slot] = None
        inner = _Place(value, place, step, place.depth + 1)
        cycle = place.of(value)
        if cycle is not None:
            out[slot] = f"<cycle to {path_text(cycle.steps()) or self._argument}>"
            self._lose(inner, None, "holds itself; the cycle is cut")
        elif inner.depth > DEPTH_LIMIT:
            out[slot] = str(found)
            self._lose(inner, None, f"nested deeper than {DEPTH_LIMIT} levels; described")
        else:
            self._queue.append(_Task(inner, found, out, slot))

    def _leaf(self, place: _Place, slot: str | int, leaf: Leaf, source: object) -> Json:
        key = slot if isinstance(slot, str) else None
        self._lose(place, key, leaf.loss)
        if not isinstance(leaf.value, str):
            return leaf.value
        if len(leaf.value) > self._text_left:
            self._lose(place, key, f"left out: a {self._argument} holds at most {TEXT_LIMIT:,} characters of text")
            return f"text of {len(leaf.value):,} characters"
        text, lost = clean(str.__str__(leaf.value))
        self._lose(place, key, lost)
        self._text_left -= len(text)
        if key is not None and is_a(source, str, bytes) and is_suspect(key, text):
            self.suspects.append([*place.steps(), key])
        return text

    def _lose(self, place: _Place, key: str | None, what: str | None) -> None:
        """Note what a key of a mapping lost, or a container; what the items of a list lose, the list has lost."""
        if what is not None:
            steps = [*place.steps(), *([] if key is None else [key])]
            self.losses.add(Loss(path_text(steps) if steps else self._argument, printable(what)))


def _order(value: Json) -> tuple[int, float, str]:
    """Sorts what a set held: numbers, then texts, then all else by its JSON text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return 0, value, ""
    return (1, 0, value) if isinstance(value, str) else (2, 0, json.dumps(value))
