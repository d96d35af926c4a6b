"""Any value as a leaf or a branch: the one question that the walk over a config asks.

Nothing is converted as a whole: a branch hands out its children one by one, so that the walk can bound
depth, number and cycles.

>>> node(range(3))
Branch(shape='list', name='range', size=3, pairs=<enumerate object at 0x...>)
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import types
from collections.abc import Generator, Iterable, Iterator, Mapping, MappingView, Sequence, Set
from typing import Any

from pluto_dist.serialization.foreign import array_like, foreign
from pluto_dist.serialization.safe_access import (
    attempt,
    attributes,
    child,
    described,
    is_a,
    short_name,
    size_of,
    type_name,
)
from pluto_dist.serialization.scalars import scalar
from pluto_dist.serialization.types import ARRAY_LIMIT, Branch, Leaf, Plain

_BUILTINS = (str, int, float, bool, type(None), dict, list, tuple)
_STEPS = 8  # a root model may stand for an array, which stands for a scalar; none stands for itself


def node(value: object) -> Leaf | Branch:
    """``value`` as one JSON scalar, or as what holds further values; raises for no object."""
    if type(value) is Leaf:
        return value
    return attempt(lambda: _node(value), None) or described(value)


def _node(value: object) -> Leaf | Branch | None:
    for _ in range(_STEPS):
        found = None if type(value) in _BUILTINS else foreign(value)
        if not isinstance(found, Plain):
            return found or _native(value)
        value = found.value
    return None


def _native(value: object) -> Leaf | Branch | None:
    if type(value) is dict:
        return Branch("mapping", "dict", len(value), value.items())
    if type(value) is list or type(value) is tuple:
        return Branch("list", type(value).__name__, len(value), enumerate(value))
    return scalar(value) or _mapping(value) or _list(value) or _unread(value) or array_like(value)


def _mapping(value: Any) -> Branch | None:
    name = short_name(value)
    if is_a(value, Mapping):
        return Branch("mapping", name, size_of(value), _items(value))
    if is_a(value, tuple) and isinstance(getattr(type(value), "_fields", None), tuple):
        return Branch("mapping", name, size_of(value), zip(value._fields, value, strict=False))
    if is_a(value, argparse.Namespace, types.SimpleNamespace):
        return Branch("mapping", name, len(vars(value)), vars(value).items())
    if dataclasses.is_dataclass(type(value)):
        names = [field.name for field in dataclasses.fields(value)]
        return Branch("mapping", name, len(names), attributes(value, names))
    return None


def _list(value: Any) -> Branch | Leaf | None:
    name, size = short_name(value), size_of(value)
    if is_a(value, range) and (size is None or size > ARRAY_LIMIT):
        return Leaf(str(value))
    if is_a(value, Sequence, MappingView, collections.deque):
        return Branch("list", name, size, enumerate(value))
    return Branch("set", name, size, enumerate(value)) if is_a(value, Set) else None


def _unread(value: Any) -> Leaf | None:
    if is_a(value, Generator):
        return Leaf(f"generator {value.__qualname__}", "a generator is not consumed; described")
    if is_a(value, Iterator):
        return Leaf(type_name(value), "an iterator is not consumed; stored as the name of its type")
    return None


def _items(value: Mapping[object, object]) -> Iterable[tuple[object, object]]:
    return ((key, child(lambda key=key: value[key])) for key in value)  # type: ignore[misc]
