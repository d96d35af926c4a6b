"""Any Python value as a leaf or a branch, one level at a time.

Nothing is converted as a whole: a branch yields its children one by one, so that ``encode`` can bound depth, number
and cycles. Scalars of the standard library are in ``scalars``.

Values of torch, numpy, omegaconf, pydantic and attrs are known here, but none of these is imported: an object of a
library that nobody imported cannot exist. A tensor is copied to Python only if that is cheap and no other process
takes part: at most 64 elements in this host's memory, or one element on a device. The repr of a tensor is never
computed, because it copies.

>>> node(range(3))
Branch(shape='list', name='range', size=3, pairs=<enumerate object at 0x...>)
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import math
import sys
import types
from collections.abc import Generator, Iterable, Iterator, Mapping, MappingView, Sequence, Set
from typing import Any

from pluto_dist.serialization.masking import hidden, is_secret_interpolation
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
from pluto_dist.serialization.types import ARRAY_LIMIT, Branch, Leaf

_BUILTINS = (str, int, float, bool, type(None), dict, list, tuple)
_NOT_COPIED = "not copied; described by its type and shape"


def node(value: object) -> Leaf | Branch:
    """``value`` as one JSON scalar, or as a container of further values; raises for no object."""
    if type(value) is Leaf:
        return value
    return attempt(lambda: _node(value), None) or described(value)


def _node(value: object) -> Leaf | Branch | None:
    if type(value) in _BUILTINS:
        return _native(value)
    return (
        hidden(value)
        or _torch(value)
        or _numpy(value)
        or _omegaconf(value)
        or _pydantic(value)
        or _attrs(value)
        or _native(value)
    )


# The standard library.


def _native(value: object) -> Leaf | Branch | None:
    if type(value) is dict:
        return Branch("mapping", "dict", len(value), value.items())
    if type(value) is list or type(value) is tuple:
        return Branch("list", type(value).__name__, len(value), enumerate(value))
    return scalar(value) or _mapping(value) or _list(value) or _unread(value) or _array_like(value)


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
    if all(callable(getattr(type(value), method, None)) for method in ("keys", "__getitem__")):  # as dict() takes it
        return Branch("mapping", name, size_of(value), _items(value))  # ml_collections.ConfigDict
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


def _items(value: Any) -> Iterable[tuple[object, object]]:
    keys = value if is_a(value, Mapping) else value.keys()
    return ((key, child(lambda key=key: value[key])) for key in keys)  # type: ignore[misc]


def _array_like(value: Any) -> Leaf | None:
    """An array of another library (jax, cupy): it may be on a device, so it is described only."""
    if not (hasattr(type(value), "shape") and hasattr(type(value), "dtype")):
        return None
    name = short_name(value)
    return Leaf(attempt(lambda: _type_and_shape(value, name), name), _NOT_COPIED)


# Other libraries.


def _classes(module: str, *names: str) -> tuple[type, ...]:
    loaded = sys.modules.get(module)
    found = (getattr(loaded, name, None) for name in names)  # absent while the module is being imported
    return tuple(cls for cls in found if isinstance(cls, type))


def _torch(value: Any) -> Leaf | Branch | None:
    if is_a(value, *_classes("torch", "dtype", "device", "layout", "memory_format")):
        return Leaf(str(value))
    if is_a(value, *_classes("torch", "Tensor")):
        otherwise = Leaf(attempt(lambda: _type_and_shape(value, "tensor"), "tensor"), _NOT_COPIED)
        return attempt(lambda: _tensor(value), None) or otherwise
    return None


def _tensor(value: Any) -> Leaf | Branch | None:
    # A subclass may be spread over ranks (DTensor: reading one is a collective) or hold no data (FakeTensor).
    is_plain = type(value) in (*_classes("torch", "Tensor"), *_classes("torch.nn", "Parameter"))
    limit = ARRAY_LIMIT if value.device.type == "cpu" else 1
    return _node(value.tolist()) if is_plain and _written_size(value.shape) <= limit else None


def _numpy(value: Any) -> Leaf | Branch | None:
    if is_a(value, *_classes("numpy", "dtype")):
        return Leaf(str(value))
    if is_a(value, *_classes("numpy", "generic")):
        return _numpy_scalar(value)
    return _numpy_array(value) if is_a(value, *_classes("numpy", "ndarray")) else None


def _numpy_array(value: Any) -> Leaf | Branch | None:
    if _written_size(value.shape) > ARRAY_LIMIT:
        return Leaf(_type_and_shape(value, "array"), _NOT_COPIED)
    if is_a(value, *_classes("numpy.ma", "MaskedArray")):
        return _node(None if value.ndim == 0 and value.mask else value.tolist())
    if value.ndim == 0:
        return _node(value.item() if value.dtype.kind == "O" else value[()])
    return Branch("list", "array", len(value), enumerate(value))


def _numpy_scalar(value: Any) -> Leaf | Branch | None:
    kind = value.dtype.kind
    if kind == "m":
        second = type(value)(1, "s")
        return _node(attempt(lambda: float(value / second), str(value)))  # months have no seconds
    if kind == "V" and value.dtype.names:
        return Branch("mapping", "record", len(value), [(name, value[name]) for name in value.dtype.names])
    convert: dict[str, type] = {"M": str, "f": float, "c": complex}  # item() loses nanoseconds, keeps a longdouble
    return _node(convert[kind](value) if kind in convert else value.item())


def _type_and_shape(value: Any, name: str) -> str:
    dtype = str(value.dtype).removeprefix("torch.")
    device = getattr(getattr(value, "device", None), "type", "cpu")
    where = "" if device == "cpu" else f" on {value.device}"
    return f"{dtype[:60]} {name} of shape {tuple(value.shape)}{where}"


def _written_size(shape: tuple[int, ...]) -> int:
    return math.prod(max(1, n) for n in shape)  # a million empty rows are a million lists


def _omegaconf(value: Any) -> Branch | None:
    if is_a(value, *_classes("omegaconf", "DictConfig")):
        return Branch("mapping", "DictConfig", len(value), _omegaconf_items(value, list(value.keys())))
    if is_a(value, *_classes("omegaconf", "ListConfig")):
        return Branch("list", "ListConfig", len(value), _omegaconf_items(value, range(len(value))))
    return None


def _omegaconf_items(config: Any, keys: Any) -> Iterator[tuple[object, object]]:
    conf: Any = sys.modules["omegaconf"].OmegaConf
    as_written = functools.cache(lambda: conf.to_container(config, resolve=False))  # the whole config: made once
    for key in keys:
        if conf.is_missing(config, key):
            yield key, Leaf("???", "mandatory value that is missing; its mark is kept")
            continue
        found = child(lambda key=key: config[key])  # type: ignore[misc]
        if conf.is_interpolation(config, key):
            text = attempt(lambda key=key: str(as_written()[key]), "${...}")  # type: ignore[misc]
            if isinstance(found, Leaf):
                found = Leaf(text, "interpolation that cannot be resolved; its text is kept")
            elif is_secret_interpolation(str(key), text, found):
                found = Leaf(text)
        yield key, found


def _pydantic(value: Any) -> Leaf | Branch | None:
    if not is_a(value, *_classes("pydantic.main", "BaseModel"), *_classes("pydantic.v1.main", "BaseModel")):
        return None
    cls = type(value)
    if getattr(cls, "__pydantic_root_model__", False):
        return _node(value.root)
    if hasattr(cls, "model_fields"):
        excluded = {name for name, field in cls.model_fields.items() if field.exclude}
    else:
        excluded = {name for name, field in cls.__fields__.items() if field.field_info.exclude}
    held = {**vars(value), **(getattr(value, "__pydantic_extra__", None) or {})}
    pairs = [(name, v) for name, v in held.items() if name not in excluded]
    return Branch("mapping", short_name(value), len(pairs), pairs)


def _attrs(value: Any) -> Branch | None:
    fields = getattr(type(value), "__attrs_attrs__", None)
    if not isinstance(fields, tuple):
        return None
    names = [field.name for field in fields]
    return Branch("mapping", short_name(value), len(names), attributes(value, names))
