"""The query string of a GET: texts and whole numbers, each with what it may be.

What is wrong is answered like the hosted server's validator answers it (shape C of ``answers``).
"""

from __future__ import annotations

import re

from starlette.requests import Request

from pluto_dist.contract.validation import Issue
from pluto_dist.server.transport.responses import AnswerError, invalid

LARGEST = 2**53
_WHOLE = re.compile(r"(-?[0-9]{1,16})(?:\.0+)?")  # JSON makes no difference between 2 and 2.0


def text(request: Request, name: str) -> str:
    """A value that must be there.

    Raises:
        AnswerError: 400 when it is missing.
    """
    value = request.query_params.get(name)
    if value is None:
        detail = {"code": "invalid_type", "expected": "string", "received": "undefined"}
        raise AnswerError(invalid((Issue((name,), "Required", detail),)))
    return value


def whole(request: Request, name: str, *, default: int | None = None, least: int = 0, most: int = LARGEST) -> int:
    """A whole number; without a default it must be there.

    Raises:
        AnswerError: 400 when it is missing, no number, or not from ``least`` to ``most``.
    """
    value = request.query_params.get(name)
    if value is None and default is not None:
        return default
    number = parsed(value or "")
    if number is None or not least <= number <= most:
        detail = {"code": "invalid_type", "expected": "number", "received": "string"}
        raise AnswerError(invalid((Issue((name,), f"Expected a number from {least} to {most}", detail),)))
    return number


def one_of(request: Request, name: str, choices: tuple[str, ...]) -> str:
    """One of some words; the first of them is the default.

    Raises:
        AnswerError: 400 for another word.
    """
    value = request.query_params.get(name, choices[0])
    if value not in choices:
        options = " | ".join(f"'{choice}'" for choice in choices)
        detail = {"received": value, "code": "invalid_enum_value", "options": list(choices)}
        message = f"Invalid enum value. Expected {options}, received '{value}'"
        raise AnswerError(invalid((Issue((name,), message, detail),)))
    return value


def numbers(request: Request, name: str) -> list[int] | None:
    """A list of whole numbers between commas; what is none is passed over, as on the hosted server."""
    value = request.query_params.get(name)
    if value is None:
        return None
    return [number for part in value.split(",") if (number := parsed(part.strip())) is not None]


def parsed(value: str) -> int | None:
    """
    >>> parsed("12"), parsed("-1"), parsed("2.0"), parsed("1.5"), parsed("")
    (12, -1, 2, None, None)
    """
    found = _WHOLE.fullmatch(value)
    return int(found[1]) if found else None
