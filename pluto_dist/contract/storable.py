"""Requests that the tracker can store, whatever values they were made of.

Pure. The hosted tracker answers 500 to text that Postgres cannot hold, to documents nested too deep and to numbers
beyond its columns (measured on the open-source server). A 500 looks like an outage, which never ends: the request is
kept, and refused again. So the client sends every request as :func:`body_of` makes it.

>>> from pluto_dist.contract.run_requests import UpdateStatusRequest
>>> storable(UpdateStatusRequest.of(7, "FAILED", {"reason": "bad byte \\x00"})).status_metadata
'{"reason": "bad byte "}'
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from typing import Any, TypeVar

from pluto_dist.contract.run_requests import LATEST_MS, NAME_LIMIT, UpdateConfigRequest
from pluto_dist.contract.validation import LARGEST_WHOLE, Json, Record, Rule, rules
from pluto_dist.serialization.scalars import floating
from pluto_dist.serialization.text import Names, storable_text
from pluto_dist.serialization.types import DEPTH_LIMIT

R = TypeVar("R", bound=Record)

_DIGITS = 400  # of an integer; the largest double has 309
_UNREADABLE_LIMIT = 1000  # characters that are kept of a text that is no JSON


def storable(request: R) -> R:
    """``request`` with values that the tracker can store; one that has only such values is unchanged."""
    values = {attribute: _value(rule, getattr(request, attribute)) for attribute, rule, _ in rules(type(request))}
    if isinstance(request, UpdateConfigRequest):
        values["config"] = values["config"] or "{}"  # null is refused
    return dataclasses.replace(request, **values)


def body_of(request: Record) -> dict[str, Json]:
    """The JSON object that is sent for ``request``: as it can be stored, with null where that clears what is stored."""
    cleared = {rule.json: None for _, rule, _ in rules(type(request)) if rule.is_cleared}
    return {**cleared, **storable(request).to_json()}


def storable_name(name: str) -> str:
    """``name`` as a column of limited length holds it; different names stay different.

    >>> storable_name("job 7"), len(storable_name("x" * 300))
    ('job 7', 255)
    """
    text, _ = storable_text(name)
    if len(text) <= NAME_LIMIT:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{text[: NAME_LIMIT - 17]}-{digest}"


def _value(rule: Rule, value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, tuple):
        return tuple(storable_text(item)[0] for item in value)
    if isinstance(value, (int, float)):
        return _number(rule, value)
    if rule.is_document:
        return _document(value)
    text = storable_name(value) if rule.is_name else storable_text(value)[0]
    return text if text or not rule.min_length else None


def _number(rule: Rule, value: float) -> int:
    """The nearest whole number in the range of the field."""
    largest = LATEST_MS if rule.date_ms else LARGEST_WHOLE
    if math.isnan(value):
        return 0
    return int(max(0 if rule.date_ms else -largest, min(largest, value)))


def _document(text: str) -> str | None:
    """A JSON object; ``None`` for null and for no text, another value is put into an object."""
    try:
        value = json.loads(text, parse_int=_integer) if text.strip() else None
    except (ValueError, RecursionError):
        value = text[:_UNREADABLE_LIMIT]
    if value is None:
        return None
    kept = _storable_json(value if isinstance(value, dict) else {"value": value})
    return text if kept == value else json.dumps(kept)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else math.copysign(math.inf, -1 if digits[0] == "-" else 1)


def _storable_json(value: Json, depth: int = 1) -> Json:
    if isinstance(value, (dict, list)) and depth > DEPTH_LIMIT:
        return f"{'object' if isinstance(value, dict) else 'array'} of {len(value):,} values, nested too deep"
    if isinstance(value, dict):
        names = Names(())
        return {names.unique(key)[0]: _storable_json(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [_storable_json(inner, depth + 1) for inner in value]
    if isinstance(value, str):
        return storable_text(value)[0]
    return floating(value).value if isinstance(value, float) else value
