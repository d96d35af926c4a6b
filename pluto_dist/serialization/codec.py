"""How JSON of another node becomes a record: checks of types, ranges, lengths and counts.

Says how a record is read, not which records there are: those are in ``records``.

>>> decode_int(True, "Gpu.index")
Traceback (most recent call last):
ValueError: Gpu.index: an integer was expected, not bool
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pluto_dist.inventory.limits import DEVICE_LIMIT

Json = Any
"""A value that ``json.loads`` can give."""

TEXT_LIMIT = 1024  # bytes of UTF-8 in one string
LARGEST_INTEGER = 2**53 - 1  # the largest integer that a JSON reader in JavaScript keeps exact

Decode = Callable[[Json, str], Any]
R = TypeVar("R", bound="Record")


def decode_text(value: Json, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: a string was expected, not {type(value).__name__}")
    if (size := len(value.encode("utf-8", "surrogatepass"))) > TEXT_LIMIT:
        raise ValueError(f"{where}: {size} bytes, at most {TEXT_LIMIT} are allowed")
    return value


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


def decode_bad(value: Json, where: str) -> tuple[tuple[int, str], ...]:
    """``{"3": "GpuIsLost"}`` as ``((3, "GpuIsLost"),)``, by index."""
    if not isinstance(value, dict):
        raise ValueError(f"{where}: an object was expected, not {type(value).__name__}")
    if len(value) > DEVICE_LIMIT:
        raise ValueError(f"{where}: {len(value)} items, at most {DEVICE_LIMIT} are allowed")
    wrong = [key for key in value if not (key.isascii() and key.isdecimal()) or str(int(key[:9])) != key]
    if wrong:
        raise ValueError(f"{where}: {wrong[0][:40]!r} is not the index of a GPU")
    return tuple(sorted((int(key), decode_text(name, f"{where}.{key}")) for key, name in value.items()))


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


def required(decode: Decode) -> Any:
    """A field that must be there."""
    return dataclasses.field(metadata={"decode": decode})


def optional(decode: Decode, default: Any = None) -> Any:
    """A field that may be absent: ``default`` then."""
    return dataclasses.field(default=default, metadata={"decode": decode})


@dataclass(frozen=True, slots=True)
class Record:
    """A JSON object with known fields; each field's decoder is in its metadata."""

    def to_json(self) -> dict[str, Json]:
        """A JSON object without the fields that hold their default."""
        values = ((field, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {field.name: _encode(value) for field, value in values if value != field.default}

    @classmethod
    def from_json(cls: type[R], obj: Json, where: str = "") -> R:
        """The record in ``obj``; ``where`` names it in errors.

        Raises:
            ValueError: a field is missing, of another type, too long or out of range; the message names it.
        """
        where = where or cls.__name__
        if not isinstance(obj, dict):
            raise ValueError(f"{where}: an object was expected, not {type(obj).__name__}")
        values = {}
        for field in dataclasses.fields(cls):
            if field.name in obj:
                values[field.name] = field.metadata["decode"](obj[field.name], f"{where}.{field.name}")
            elif field.default is dataclasses.MISSING:
                raise ValueError(f"{where}.{field.name} is missing")
        made = cls(**values)
        if wrong := made.contradiction():
            raise ValueError(f"{where}: {wrong}")
        return made

    def contradiction(self) -> str | None:
        """What makes the fields impossible together, or ``None``."""
        return None


def _encode(value: Any) -> Json:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, tuple):
        if value and all(isinstance(item, tuple) for item in value):
            return {str(key): name for key, name in value}
        return [_encode(item) for item in value]
    return value
