"""Values of libraries that the script may use: torch, numpy, omegaconf, pydantic, attrs.

None of them is imported here: an object of a library that nobody imported cannot exist. A tensor is
copied to Python only if that is cheap and asks nobody else: at most 64 elements in this host's memory, or
one element on a device. The repr of a tensor is never asked for, because it copies.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any

from pluto_dist.serialization.safe_access import attempt, attributes, child, is_a, short_name
from pluto_dist.serialization.types import ARRAY_LIMIT, Branch, Leaf, Plain

_NOT_COPIED = "not copied; described by its type and shape"

Found = Leaf | Branch | Plain | None


def foreign(value: object) -> Found:
    """What ``value`` is, if it is an object of a library named above."""
    return _torch(value) or _numpy(value) or _omegaconf(value) or _pydantic(value) or _attrs(value)


def array_like(value: Any) -> Leaf | None:
    """An array of another library (jax, cupy): it may live on a device, so it is described only."""
    if not (hasattr(type(value), "shape") and hasattr(type(value), "dtype")):
        return None
    name = short_name(value)
    return Leaf(attempt(lambda: _described(value, name), name), _NOT_COPIED)


def _class(module: str, *names: str) -> tuple[type, ...]:
    loaded = sys.modules.get(module)
    found = (getattr(loaded, name, None) for name in names)  # absent while the module is being imported
    return tuple(cls for cls in found if isinstance(cls, type))


def _torch(value: Any) -> Found:
    if is_a(value, *_class("torch", "dtype", "device", "layout", "memory_format")):
        return Leaf(str(value))
    if is_a(value, *_class("torch", "Tensor")):
        otherwise = Leaf(attempt(lambda: _described(value, "tensor"), "tensor"), _NOT_COPIED)
        return attempt(lambda: _tensor(value), None) or otherwise
    return None


def _tensor(value: Any) -> Plain | None:
    # A subclass may be spread over ranks (DTensor: reading one is a collective) or hold no data (FakeTensor).
    is_plain = type(value) in (*_class("torch", "Tensor"), *_class("torch.nn", "Parameter"))
    limit = ARRAY_LIMIT if value.device.type == "cpu" else 1
    return Plain(value.tolist()) if is_plain and _written_size(value.shape) <= limit else None


def _numpy(value: Any) -> Found:
    if is_a(value, *_class("numpy", "dtype")):
        return Leaf(str(value))
    if is_a(value, *_class("numpy", "generic")):
        return _numpy_scalar(value)
    return _numpy_array(value) if is_a(value, *_class("numpy", "ndarray")) else None


def _numpy_array(value: Any) -> Found:
    if _written_size(value.shape) > ARRAY_LIMIT:
        return Leaf(_described(value, "array"), _NOT_COPIED)
    if is_a(value, *_class("numpy.ma", "MaskedArray")):
        return Plain(None if value.ndim == 0 and value.mask else value.tolist())
    if value.ndim == 0:
        return Plain(value.item() if value.dtype.kind == "O" else value[()])
    return Branch("list", "array", len(value), enumerate(value))


def _numpy_scalar(value: Any) -> Found:
    kind = value.dtype.kind
    if kind == "m":
        second = type(value)(1, "s")
        return Plain(attempt(lambda: float(value / second), str(value)))  # months have no seconds
    if kind == "V" and value.dtype.names:
        return Branch("mapping", "record", len(value), [(name, value[name]) for name in value.dtype.names])
    convert: dict[str, type] = {"M": str, "f": float, "c": complex}  # item() loses nanoseconds, keeps a longdouble
    return Plain(convert[kind](value) if kind in convert else value.item())


def _described(value: Any, name: str) -> str:
    dtype = str(value.dtype).removeprefix("torch.")
    device = getattr(getattr(value, "device", None), "type", "cpu")
    where = "" if device == "cpu" else f" on {value.device}"
    return f"{dtype[:60]} {name} of shape {tuple(value.shape)}{where}"


def _written_size(shape: tuple[int, ...]) -> int:
    return math.prod(max(1, n) for n in shape)  # a million empty rows are a million lists


def _omegaconf(value: Any) -> Branch | None:
    if is_a(value, *_class("omegaconf", "DictConfig")):
        return Branch("mapping", "DictConfig", len(value), _nodes(value, list(value.keys())))
    if is_a(value, *_class("omegaconf", "ListConfig")):
        return Branch("list", "ListConfig", len(value), _nodes(value, range(len(value))))
    return None


def _nodes(config: Any, keys: Any) -> Iterator[tuple[object, object]]:
    conf: Any = sys.modules["omegaconf"].OmegaConf
    for key in keys:
        if conf.is_missing(config, key):
            yield key, Leaf("???", "mandatory value that is missing; its mark is kept")
            continue
        node = child(lambda key=key: config[key])  # type: ignore[misc]
        if isinstance(node, Leaf):
            text = attempt(lambda key=key: conf.to_container(config, resolve=False)[key], node.value)  # type: ignore[misc]
            node = Leaf(str(text), "interpolation that cannot be resolved; its text is kept")
        yield key, node


def _pydantic(value: Any) -> Found:
    if not is_a(value, *_class("pydantic.main", "BaseModel"), *_class("pydantic.v1.main", "BaseModel")):
        return None
    cls = type(value)
    if getattr(cls, "__pydantic_root_model__", False):
        return Plain(value.root)
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
