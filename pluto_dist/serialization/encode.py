"""The walk over a config: level by level, so that no depth is a recursion and limits cut the deepest values first.

What a single value becomes is in ``adapters``; how a config is read from its argument or its file is in ``source``.
"""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from pluto_dist.serialization.adapters import node
from pluto_dist.serialization.masking import is_suspect, shown_by_owner
from pluto_dist.serialization.safe_access import described, is_a, take, type_name
from pluto_dist.serialization.source import read_mapping
from pluto_dist.serialization.text import Names, path_text, printable, storable_text
from pluto_dist.serialization.types import (
    ARRAY_LIMIT,
    DEPTH_LIMIT,
    DOCUMENT_LIMIT,
    SECONDS,
    TEXT_LIMIT,
    VALUE_LIMIT,
    Branch,
    Encoded,
    Json,
    Leaf,
    Loss,
)

RESERVED = ("pluto_dist",)
_PLAIN = (str, int, float, bool, type(None))
_KEY_DEPTH_LIMIT = 5


def encode(config: object, argument: str = "config", seconds: float = SECONDS) -> Encoded:
    """``config`` as JSON that the tracker stores unchanged, and what was lost on the way.

    Args:
        config: a mapping, an argparse or simple namespace, an instance of a dataclass, of an attrs class or of
            a pydantic model, a DictConfig, the path of a .json, .yaml or .yml file, or None.
        argument: its name in messages.
        seconds: after which what has not been read yet is left out; a single value is not interrupted.

    Raises:
        ConfigurationError: it is none of these, or its file cannot be read.
    """
    walk = _Walk(argument, time.monotonic() + seconds)
    source, branch = read_mapping(config, argument)
    whole = walk.run(source, branch)
    value, dropped = _fit(whole, argument)
    losses = sorted({*walk.losses, *dropped}, key=lambda loss: (loss.key, loss.what))
    kept = {key for key in value if value[key] is whole[key]}
    suspects = sorted(path_text(steps) for steps in walk.suspects if steps[0] in kept)
    return Encoded(value, tuple(losses), tuple(suspects))


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """A container in the walk. It keeps ``source`` alive, so that no other object gets its identity."""

    source: object
    parent: _Place | None
    step: str | int | None  # None: the top, or in a set
    depth: int

    def of(self, source: object) -> _Place | None:
        """This place, or the one above it, whose source is ``source``."""
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
    """A container yet to be walked, and the slot of its parent that it fills."""

    place: _Place
    branch: Branch
    out: Json
    slot: str | int


class _Walk:
    def __init__(self, argument: str, until: float) -> None:
        self.losses: set[Loss] = set()
        self.suspects: list[list[str | int]] = []
        self._argument, self._until = argument, until
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
            text, lost = _key_text(key)
            name, changed = names.unique(text)
            self._text_left -= len(name)
            for what in filter(None, (lost, changed)):
                self._lose(place, name, what)
            self._put(place, out, name, name, value)
        return out

    def _children(self, place: _Place, branch: Branch) -> list[tuple[object, object]] | None:
        """All children; None if they exceed the values that are left. The top is cut instead."""
        left, is_top = self._values_left, place.parent is None
        too_many = branch.size is not None and branch.size > left and not is_top
        pairs, why = ([], None) if too_many else take(branch.pairs, left + 1, self._until)
        if why:
            self._lose(place, None, f"{why} after {len(pairs):,} values, which are kept")
        if len(pairs) <= left and not too_many:
            return pairs
        if not is_top:
            self._lose(place, None, f"left out: a {self._argument} holds at most {VALUE_LIMIT:,} values")
            return None
        self._lose(place, None, f"holds more than {VALUE_LIMIT:,} values; those after the first are left out")
        return pairs[:left]

    def _put(self, place: _Place, out: Json, slot: str | int, step: str | int | None, value: object) -> None:
        is_late = time.monotonic() > self._until and type(value) not in _PLAIN
        found = Leaf(f"<{type_name(value)}>", "was not read in time; its type is kept") if is_late else node(value)
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
        text, lost = storable_text(str.__str__(leaf.value))
        self._lose(place, key, lost)
        self._text_left -= len(text)
        if key is None or not is_a(source, str, bytes) or not is_suspect(key, text):
            return text
        shown, _ = storable_text(shown_by_owner(place.source, key, text))
        if shown == text:
            self.suspects.append([*place.steps(), key])
        return shown

    def _lose(self, place: _Place, key: str | None, what: str | None) -> None:
        """Record what a key of a mapping lost, or a container; losses of a list's items are the list's."""
        if what is not None:
            steps = [*place.steps(), *([] if key is None else [key])]
            self.losses.add(Loss(path_text(steps) if steps else self._argument, printable(what)))


def _order(value: Json) -> tuple[int, float, str]:
    """Sorts what a set held: numbers, then texts, then all else by its JSON text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return 0, value, ""
    return (1, 0, value) if isinstance(value, str) else (2, 0, json.dumps(value))


def _key_text(key: Any, depth: int = 0) -> tuple[str, str | None]:
    """The text for ``key``, as ``json.dumps`` if that accepts it, and what was lost.

    >>> [_key_text(key)[0] for key in (1, True, None, 0.5, ("a", 1))]
    ['1', 'true', 'null', '0.5', '(a, 1)']
    """
    if type(key) is str:
        return key, None
    if is_a(key, tuple, frozenset) and depth < _KEY_DEPTH_LIMIT:
        inner, raised = take(key, ARRAY_LIMIT + 1)
        if len(inner) <= ARRAY_LIMIT and not raised:
            parts = [_key_text(part, depth + 1) for part in inner]
            texts = [text for text, _ in parts] if is_a(key, tuple) else sorted(text for text, _ in parts)
            return f"({', '.join(texts)})", next((loss for _, loss in parts if loss), None)
    leaf = node(key)
    if not isinstance(leaf, Leaf):
        leaf = described(key)
    text = leaf.value if isinstance(leaf.value, str) else json.dumps(leaf.value)
    return text, None if is_a(key, int, float) else leaf.loss


def _fit(document: dict[str, Json], argument: str) -> tuple[dict[str, Json], list[Loss]]:
    """``document`` within the limit of JSON text, and what was dropped: its largest top-level values first.

    >>> value, losses = _fit({"lr": 0.1, "vocabulary": "x" * 2_000_000}, "config")
    >>> value, [loss.key for loss in losses]
    ({'lr': 0.1, 'vocabulary': 'dropped: 2.0 MB'}, ['vocabulary'])
    """
    sizes = {key: len(json.dumps(value)) for key, value in document.items()}
    framing = sum(len(json.dumps(key)) + len(": , ") for key in document)
    total = framing + sum(sizes.values())
    if total <= DOCUMENT_LIMIT:
        return document, []
    kept, losses = dict(document), []
    for key in sorted(sizes, key=lambda key: -sizes[key]):
        note = f"dropped: {_amount(sizes[key])}"
        saved = sizes[key] - len(json.dumps(note))
        if total <= DOCUMENT_LIMIT or saved <= 0:
            break
        kept[key], total = note, total - saved
        losses.append(Loss(path_text([key]), f"dropped: a {argument} holds at most {_amount(DOCUMENT_LIMIT)} of JSON"))
    left_out = 0
    while total > DOCUMENT_LIMIT:
        key, value = kept.popitem()
        total -= len(json.dumps(key)) + len(": , ") + len(json.dumps(value))
        left_out += 1
    if left_out:
        losses.append(Loss(argument, f"its last {left_out:,} keys are left out: their names alone are too long"))
    return kept, losses


def _amount(size: int) -> str:
    for unit, name in ((1_000_000, "MB"), (1_000, "KB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"
