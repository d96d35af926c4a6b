"""The codec: JSON from another process or an earlier version to a checked record, and back.

Each field of a :class:`Record` names its decoder, which checks type, range, length and count. Bodies of HTTP requests
are the exception: ``contract.validation`` checks those, with the messages of the hosted tracker.

>>> decode_int(True, "Gpu.index")
Traceback (most recent call last):
ValueError: Gpu.index: an integer was expected, not bool
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:  # part of ``typing`` since Python 3.11

    def dataclass_transform(**_):
        return lambda decorator: decorator


Json = Any
"""A value that ``json.loads`` can give."""

TEXT_LIMIT = 1024  # bytes of UTF-8 in one string
LARGEST_INTEGER = 2**53 - 1  # the largest integer that a JSON reader in JavaScript keeps exact

Decode = Callable[[Json, str], Any]
R = TypeVar("R", bound="Record")


def text_of(limit: int) -> Decode:
    """A decoder of strings of at most ``limit`` bytes of UTF-8."""

    def decode(value: Json, where: str) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{where}: a string was expected, not {type(value).__name__}")
        if (size := len(value.encode("utf-8", "surrogatepass"))) > limit:
            raise ValueError(f"{where}: {size} bytes, at most {limit} are allowed")
        return value

    return decode


decode_text: Callable[[Json, str], str] = text_of(TEXT_LIMIT)


def decode_hash(value: Json, where: str) -> str:
    text = decode_text(value, where)
    if len(text) != 16 or not set(text) <= set("0123456789abcdef"):
        raise ValueError(f"{where}: 16 hexadecimal digits were expected")
    return text


def decode_int(value: Json, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{where}: an integer was expected, not {type(value).__name__}")
    if not 0 <= value <= LARGEST_INTEGER:
        raise ValueError(f"{where}: an integer from 0 to 2**53 - 1 was expected")
    return value


def decode_signed(value: Json, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{where}: an integer was expected, not {type(value).__name__}")
    if not -LARGEST_INTEGER <= value <= LARGEST_INTEGER:
        raise ValueError(f"{where}: an integer of at most 2**53 - 1 was expected")
    return value


def decode_float(value: Json, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{where}: a number was expected, not {type(value).__name__}")
    if not 0 <= value <= LARGEST_INTEGER:  # false for NaN and Infinity too
        raise ValueError(f"{where}: a finite number from 0 to 2**53 - 1 was expected")
    return float(value)


def decode_bool(value: Json, where: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{where}: true or false was expected, not {type(value).__name__}")
    return value


def decode_object(value: Json, where: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: an object was expected, not {type(value).__name__}")
    return value


def one_of(*choices: str) -> Decode:
    def decode(value: Json, where: str) -> str:
        if value not in choices:
            raise ValueError(f"{where}: one of {', '.join(choices)} was expected")
        return str(value)

    return decode


def several(decode_item: Decode, limit: int) -> Decode:
    def decode(value: Json, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{where}: an array was expected, not {type(value).__name__}")
        if len(value) > limit:
            raise ValueError(f"{where}: {len(value)} items, at most {limit} are allowed")
        return tuple(decode_item(item, f"{where}[{n}]") for n, item in enumerate(value))

    return decode


def record(cls: type[Record]) -> Decode:
    return cls.from_json


def pairs(decode_value: Decode, limit: int) -> Decode:
    """An object as pairs, in its order."""

    def decode(value: Json, where: str) -> tuple[tuple[str, Any], ...]:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: an object was expected, not {type(value).__name__}")
        if len(value) > limit:
            raise ValueError(f"{where}: {len(value)} items, at most {limit} are allowed")
        return tuple(
            (decode_text(key, where), decode_value(item, f"{where}.{key[:40]}")) for key, item in value.items()
        )

    return decode


def decode_fields(obj: Json, where: str, decoders: Mapping[str, Decode], needed: Iterable[str]) -> dict[str, Any]:
    """Those fields of the object ``obj`` that ``decoders`` names, decoded.

    Raises:
        ValueError: ``obj`` is not an object, one of ``needed`` is missing, or a field cannot be decoded.
    """
    if not isinstance(obj, dict):
        raise ValueError(f"{where}: an object was expected, not {type(obj).__name__}")
    for name in needed:
        if name not in obj:
            raise ValueError(f"{where}.{name} is missing")
    return {name: decode(obj[name], f"{where}.{name}") for name, decode in decoders.items() if name in obj}


def required(decode: Decode) -> Any:
    """A field that must be there."""
    return dataclasses.field(metadata={"decode": decode})


def optional(decode: Decode, default: Any = None) -> Any:
    """A field that may be absent: ``default`` then."""
    return dataclasses.field(default=default, metadata={"decode": decode})


class Record:
    """Base of the records that :func:`record_class` makes: a JSON object whose fields name their decoders.

    Construction, equality, hash and repr are here once. ``dataclass`` would compile them for each class, which is two
    thirds of the import time of a module with many records.
    """

    __slots__ = ()
    _defaults: ClassVar[Mapping[str, Any]] = {}
    """The default of each field; ``MISSING`` for a required one."""
    _decoders: ClassVar[Mapping[str, Decode]] = {}
    _required: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = {**dict(zip(self._defaults, args, strict=False)), **kwargs}
        values = {**self._defaults, **given}
        if len(given) < len(args) + len(kwargs) or len(values) > len(self._defaults):
            raise TypeError(f"{type(self).__name__}() has too many, repeated or unknown arguments: {args}, {kwargs}")
        for name, value in values.items():
            if value is dataclasses.MISSING:
                raise TypeError(f"{type(self).__name__}() is missing the argument {name!r}")
            object.__setattr__(self, name, value)

    def _values(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self._defaults])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record) or type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in zip(self._defaults, self._values(), strict=True))
        return f"{type(self).__name__}({', '.join(shown)})"

    def to_json(self) -> dict[str, Json]:
        """A JSON object without the fields that hold their default."""
        values = ((name, getattr(self, name), default) for name, default in self._defaults.items())
        return {name: _encode(value) for name, value, default in values if value != default}

    @classmethod
    def from_json(cls: type[R], obj: Json, where: str = "") -> R:
        """The record in ``obj``; unknown fields are dropped. ``where`` names the record in errors.

        Raises:
            ValueError: a field is missing, of another type, too long or out of range; the message names it.
        """
        where = where or cls.__name__
        made = cls(**decode_fields(obj, where, cls._decoders, cls._required))
        if wrong := made.contradiction():
            raise ValueError(f"{where}: {wrong}")
        return made

    def contradiction(self) -> str | None:
        """What makes the fields impossible together, or ``None``."""
        return None


@dataclass_transform(frozen_default=True)
def record_class(cls: type[R]) -> type[R]:
    """``dataclass(frozen=True, slots=True)`` with the methods of :class:`Record`."""
    made = dataclass(frozen=True, slots=True, init=False, repr=False, eq=False)(cls)
    fields = dataclasses.fields(made)  # type: ignore[arg-type]  # mypy knows it as transformed, not as a dataclass
    made._defaults = {field.name: field.default for field in fields}
    made._decoders = {field.name: field.metadata["decode"] for field in fields}
    made._required = tuple(field.name for field in fields if field.default is dataclasses.MISSING)
    return made


def _encode(value: Any) -> Json:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, tuple):
        if value and all(isinstance(item, tuple) for item in value):
            return {str(key): name for key, name in value}
        return [_encode(item) for item in value]
    return value
