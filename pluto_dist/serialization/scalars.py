"""Values of the standard library that become one JSON scalar; containers and other libraries are in ``adapters``.

>>> scalar(2**60)
Leaf(value='1152921504606846976', loss='beyond 2**53, where numbers are not exact; stored as text')
>>> scalar(datetime.timedelta(minutes=2)).value, scalar(decimal.Decimal("0.10")).value
(120.0, 0.1)
"""

from __future__ import annotations

import base64
import datetime
import decimal
import enum
import fractions
import functools
import math
import os
import re
import types
import uuid
from collections.abc import Callable
from typing import Any

from pluto_dist.serialization.safe_access import attempt, described, is_a, qualified
from pluto_dist.serialization.types import BINARY_LIMIT, EXACT_INTEGER, Leaf

_INTEGER_BITS = 14_000
_NAMED = (
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
)


def scalar(value: object) -> Leaf | None:
    """``value`` as one JSON scalar; None if it holds other values or is of another library."""
    for base, convert in _CONVERSIONS:
        if is_a(value, base):
            return convert(value)
    if callable(value) and isinstance(getattr(value, "__dict__", {}).get("__qualname__"), str):
        return Leaf(qualified(value))  # functools.wraps and the like set __qualname__
    return None


def integer(value: int) -> Leaf:
    """An integer, as text if a double cannot hold it."""
    value = int.__pos__(value)
    if -EXACT_INTEGER <= value <= EXACT_INTEGER:
        return Leaf(value)
    # Python does not convert integers of more than sys.get_int_max_str_digits() digits, by default 4,300.
    text = attempt(lambda: str(value), None) if value.bit_length() <= _INTEGER_BITS else None
    if text is None:
        return Leaf(f"integer of {value.bit_length():,} bits", "too long to write down; described")
    return Leaf(text, "beyond 2**53, where numbers are not exact; stored as text")


def floating(value: float) -> Leaf:
    """A float, as text if JSON has no such number."""
    value = float.__pos__(value)
    if math.isfinite(value):
        return Leaf(value)
    text = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return Leaf(text, f'no JSON number; stored as the text "{text}"')


def _decimal(value: decimal.Decimal) -> Leaf:
    if not value.is_finite():
        return floating(math.nan if value.is_nan() else math.copysign(math.inf, value))
    if value.copy_abs() <= EXACT_INTEGER and value == value.to_integral_value():
        return Leaf(int(value))
    number = float(value)
    exact = math.isfinite(number) and decimal.Decimal(repr(number)) == value
    return Leaf(number if exact else str(value))


def _fraction(value: fractions.Fraction) -> Leaf:
    if value.denominator == 1:
        return integer(value.numerator)
    number = attempt(lambda: float(value), math.nan)
    return Leaf(number if math.isfinite(number) and fractions.Fraction(number) == value else str(value))


def _enum(value: enum.Enum) -> Leaf:
    inner = value.value
    found = scalar(inner) if inner is None or is_a(inner, bool, int, float, str) else None
    return found or Leaf(str(value.name))


def _binary(value: bytes | bytearray | memoryview) -> Leaf:
    data = bytes(value)
    size = len(data)
    text = None if b"\x00" in data else attempt(lambda: data.decode("utf-8"), None)
    if text is not None:
        return Leaf(text)
    if size > BINARY_LIMIT:
        return Leaf(f"{size:,} bytes", "too many bytes that are not text; described")
    return Leaf("base64:" + base64.b64encode(data).decode("ascii"))


def _partial(value: functools.partial[object]) -> Leaf:
    inner = scalar(value.func) or described(value.func)
    is_bound = value.args or value.keywords
    return Leaf(inner.value, "the arguments that functools.partial binds are left out" if is_bound else inner.loss)


_CONVERSIONS: tuple[tuple[type, Callable[[Any], Leaf]], ...] = (
    (enum.Enum, _enum),  # before int and str: IntEnum
    (type(None), lambda _: Leaf(None)),
    (bool, Leaf),  # before int
    (int, integer),
    (float, floating),
    (str, lambda value: Leaf(str.__str__(value))),
    (complex, lambda value: Leaf(str(complex(value)))),
    (bytes, _binary),
    (bytearray, _binary),
    (memoryview, _binary),
    (os.PathLike, lambda value: Leaf(str.__str__(os.fsdecode(value)))),
    (datetime.date, lambda value: Leaf(str(value.isoformat()))),  # datetime is one
    (datetime.time, lambda value: Leaf(str(value.isoformat()))),
    (datetime.timedelta, lambda value: floating(value.total_seconds())),
    (uuid.UUID, lambda value: Leaf(str(value))),
    (decimal.Decimal, _decimal),
    (fractions.Fraction, _fraction),
    (re.Pattern, lambda value: Leaf(value.pattern) if isinstance(value.pattern, str) else _binary(value.pattern)),
    (types.GenericAlias, lambda value: Leaf(str(value))),
    (types.ModuleType, lambda value: Leaf(str(value.__name__))),
    (functools.partial, _partial),
    *((named, lambda value: Leaf(qualified(value))) for named in _NAMED),
)
