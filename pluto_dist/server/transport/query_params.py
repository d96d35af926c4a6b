"""Typed access to the query string of a GET request.

Errors have the shape and the words of the hosted tracker's validator (shape C in ``responses``).
"""

from __future__ import annotations

import re

from starlette.requests import Request

from pluto_dist.contract.validation import Issue
from pluto_dist.server.settings import LARGEST_INTEGER
from pluto_dist.server.transport.responses import ResponseError, validation_response

_INTEGER = re.compile(r"(-?[0-9]{1,16})(?:\.0+)?")  # JSON does not distinguish 2 from 2.0


def required_text(request: Request, name: str) -> str:
    """The value of a required parameter.

    Raises:
        ResponseError: 400 if it is missing.
    """
    value = request.query_params.get(name)
    if value is None:
        detail = {"code": "invalid_type", "expected": "string", "received": "undefined"}
        raise ResponseError(validation_response((Issue((name,), "Required", detail),)))
    return value


def integer(
    request: Request, name: str, *, default: int | None = None, minimum: int = 0, maximum: int = LARGEST_INTEGER
) -> int:
    """The value of an integer parameter, which is required if ``default`` is ``None``.

    Raises:
        ResponseError: 400 if it is missing, repeated, not an integer, or outside ``minimum`` to ``maximum``.
    """
    values = request.query_params.getlist(name)
    if not values and default is not None:
        return default
    number = parse_integer(values[0]) if len(values) == 1 else None
    if number is None or not minimum <= number <= maximum:
        detail = {"code": "invalid_type", "expected": "number", "received": "array" if len(values) > 1 else "string"}
        issue = Issue((name,), f"Expected a number from {minimum} to {maximum}", detail)
        raise ResponseError(validation_response((issue,)))
    return number


def choice(request: Request, name: str, choices: tuple[str, ...]) -> str:
    """The value of a parameter with fixed choices; the first is the default.

    Raises:
        ResponseError: 400 for any other value.
    """
    value = request.query_params.get(name, choices[0])
    if value not in choices:
        options = " | ".join(f"'{option}'" for option in choices)
        detail = {"received": value, "code": "invalid_enum_value", "options": list(choices)}
        message = f"Invalid enum value. Expected {options}, received '{value}'"
        raise ResponseError(validation_response((Issue((name,), message, detail),)))
    return value


def integers(request: Request, name: str) -> list[int] | None:
    """A comma-separated list of integers, or ``None`` if absent. Other items are ignored, as on the hosted tracker."""
    value = request.query_params.get(name)
    if value is None:
        return None
    return [number for part in value.split(",") if (number := parse_integer(part.strip())) is not None]


def words(request: Request, name: str) -> tuple[str, ...]:
    """The items of a comma-separated list, without blanks around them; none if absent."""
    return tuple(word for part in request.query_params.get(name, "").split(",") if (word := part.strip()))


def parse_integer(value: str) -> int | None:
    """
    >>> parse_integer("12"), parse_integer("-1"), parse_integer("2.0"), parse_integer("1.5"), parse_integer("")
    (12, -1, 2, None, None)
    """
    found = _INTEGER.fullmatch(value)
    return int(found[1]) if found else None
