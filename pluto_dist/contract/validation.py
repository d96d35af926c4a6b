"""Checks of JSON bodies against the contract, with the messages of the hosted tracker's validator (zod)."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

Json = Any
"""A value that ``json.loads`` can give. Checked by :func:`issues` before it becomes a record."""


JsonType = Literal["string", "number", "boolean", "array"]


TAG_LIMIT = 50
LARGEST_WHOLE = 2**53 - 1  # the API's numbers are doubles


_LATEST_DATE_MS = 8_640_000_000_000_000  # the last millisecond an ECMAScript Date can hold


@dataclass(frozen=True, slots=True)
class Rule:
    """One field in the contract: its JSON name, type and limits.

    Attributes:
        json: the name in JSON.
        type: of the JSON value.
        nullable: whether null is allowed.
        min_length: of a string.
        date_ms: whether it is a time in whole milliseconds since 1970.
        whole: whether it is a whole number from 0.
        choices: all values that are allowed.
        is_name: whether it is stored in a column of limited length.
        is_document: whether the string is a JSON document.
        is_cleared: whether the request has null for ``None``, which clears what is stored; absent leaves it.
    """

    json: str
    type: JsonType
    nullable: bool = False
    min_length: int | None = None
    max_length: int | None = None
    date_ms: bool = False
    whole: bool = False
    choices: tuple[str, ...] = ()
    is_name: bool = False
    is_document: bool = False
    is_cleared: bool = False


def contract_field(name: str, type: JsonType, *, required: bool = False, **limits: Any) -> Any:
    """A field of a :class:`Record`; ``limits`` are those of its :class:`Rule`."""
    metadata = {"rule": Rule(name, type, **limits)}
    return dataclasses.field(metadata=metadata) if required else dataclasses.field(default=None, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing wrong with a JSON body, in the words and the shape of the server's validator (zod)."""

    path: tuple[str | int, ...]
    message: str
    detail: dict[str, Json] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        return {**self.detail, "path": list(self.path), "message": self.message}


class ContractError(ValueError):
    """A JSON value that is not the expected record; ``issues`` has the reasons."""

    def __init__(self, record: str, found: tuple[Issue, ...]) -> None:
        self.issues = found
        where = "; ".join(f"{'.'.join(map(str, i.path)) or 'body'}: {i.message}" for i in found)
        super().__init__(f"not a {record}: {where}")


R = TypeVar("R", bound="Record")


@dataclass(frozen=True, slots=True)
class Record:
    """A JSON object of the contract. ``None`` means absent."""

    nulls: ClassVar[bool] = False  # answers spell out their nulls, requests leave them out

    def to_json(self) -> dict[str, Json]:
        out: dict[str, Json] = {}
        for attribute, rule, _ in rules(type(self)):
            value = getattr(self, attribute)
            if value is not None or self.nulls:
                out[rule.json] = list(value) if isinstance(value, tuple) else value
        return out

    @classmethod
    def from_json(cls: type[R], body: Json) -> R:
        """The record in ``body``; unknown fields are dropped, as the server does.

        Raises:
            ContractError: a field is missing or has another type than the contract's.
        """
        if found := issues(cls, body):
            raise ContractError(cls.__name__, found)
        values = {}
        for attribute, rule, _ in rules(cls):
            value = body.get(rule.json)
            if isinstance(value, list):
                value = tuple(value)
            is_whole = rule.whole or rule.date_ms
            values[attribute] = int(value) if is_whole and value is not None else value
        return cls(**values)


_RULES: dict[type[Record], tuple[tuple[str, Rule, bool], ...]] = {}


def rules(record: type[Record]) -> tuple[tuple[str, Rule, bool], ...]:
    """Attribute, rule, and whether the field must be there, for each field of ``record``."""
    if record not in _RULES:
        _RULES[record] = tuple(
            (field.name, field.metadata["rule"], field.default is dataclasses.MISSING)
            for field in dataclasses.fields(record)
        )
    return _RULES[record]


def issues(record: type[Record], body: Json) -> tuple[Issue, ...]:
    """Everything in ``body`` that breaks the rules of ``record``; empty if it is one."""
    if not isinstance(body, dict):
        return (_wrong_type((), "object", body),)
    found: list[Issue] = []
    for _, rule, required in rules(record):
        if rule.json not in body:
            if required:
                detail = {"code": "invalid_type", "expected": rule.type, "received": "undefined"}
                found.append(Issue((rule.json,), "Required", detail))
        elif body[rule.json] is not None or not rule.nullable:
            found.extend(_value_issues(rule, body[rule.json]))
    return tuple(found)


def _value_issues(rule: Rule, value: Json) -> list[Issue]:
    path: tuple[str | int, ...] = (rule.json,)
    if rule.choices:
        return _choice_issues(rule, value)
    if _type_of(value) != rule.type:
        return [_wrong_type(path, rule.type, value)]
    if rule.type == "array":
        found = [_wrong_type((*path, n), "string", v) for n, v in enumerate(value) if not isinstance(v, str)]
        if rule.json == "tags" and len(value) > TAG_LIMIT:
            found.append(_beyond(path, "array", "maximum", TAG_LIMIT, f"A run can have at most {TAG_LIMIT} tags"))
        return found
    if rule.min_length and len(value) < rule.min_length:
        return [_beyond(path, "string", "minimum", 1, "String must contain at least 1 character(s)")]
    if rule.max_length and _utf16_length(value) > rule.max_length:
        message = f"String must contain at most {rule.max_length} character(s)"
        return [_beyond(path, "string", "maximum", rule.max_length, message)]
    return _number_issues(path, value, latest=rule.date_ms) if rule.whole or rule.date_ms else []


def _utf16_length(text: str) -> int:
    """The length in UTF-16 code units, as the server's validator, which is JavaScript, counts it."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _number_issues(path: tuple[str | int, ...], value: float, *, latest: bool) -> list[Issue]:
    if isinstance(value, float) and not value.is_integer():  # so are NaN and infinity
        detail = {"code": "invalid_type", "expected": "integer", "received": "float"}
        return [Issue(path, "Expected integer, received float", detail)]
    if value < 0:
        return [_beyond(path, "number", "minimum", 0, "Number must be greater than or equal to 0")]
    if latest and value > _LATEST_DATE_MS:
        message = f"Number must be less than or equal to {_LATEST_DATE_MS}"
        return [_beyond(path, "number", "maximum", _LATEST_DATE_MS, message)]
    return []


def _choice_issues(rule: Rule, value: Json) -> list[Issue]:
    if value in rule.choices:
        return []
    options = " | ".join(f"'{choice}'" for choice in rule.choices)
    received = _type_of(value)
    detail: dict[str, Json]
    if isinstance(value, str):
        detail = {"received": value, "code": "invalid_enum_value", "options": list(rule.choices)}
        return [Issue((rule.json,), f"Invalid enum value. Expected {options}, received '{value}'", detail)]
    detail = {"expected": options, "received": received, "code": "invalid_type"}
    return [Issue((rule.json,), f"Expected {options}, received {received}", detail)]


def _beyond(
    path: tuple[str | int, ...], type: str, bound: Literal["minimum", "maximum"], limit: int, message: str
) -> Issue:
    code = "too_small" if bound == "minimum" else "too_big"
    detail: dict[str, Json] = {"code": code, bound: limit, "type": type, "inclusive": True, "exact": False}
    return Issue(path, message, detail)


def _wrong_type(path: tuple[str | int, ...], expected: str, value: Json) -> Issue:
    received = _type_of(value)
    detail = {"code": "invalid_type", "expected": expected, "received": received}
    return Issue(path, f"Expected {expected}, received {received}", detail)


def _type_of(value: Json) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


_SURROGATE = re.compile("[\ud800-\udfff]")


def unstorable(text: str) -> str | None:
    """What in ``text`` cannot be stored in a text column; ``None`` if nothing."""
    if "\x00" in text:
        return "a NUL character, which cannot be stored"
    if _SURROGATE.search(text):
        return "a lone surrogate, which cannot be stored"
    return None


def _refuse_constant(constant: str) -> Json:
    raise ValueError(f"{constant} is not JSON")


_PARSER = json.JSONDecoder(parse_constant=_refuse_constant)


def parse_document(text: str) -> Json:
    """The value of a JSON document that travels as a string; NaN and Infinity are not JSON.

    Raises:
        ValueError: the text is not JSON, or is nested deeper than Python's parser goes.
    """
    try:
        return _PARSER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def unstorable_in(document: str | None) -> set[str]:
    """What in the strings and keys of a JSON document cannot be stored in a text column; empty if it is not JSON."""
    if document is None or (document.isascii() and "\\u" not in document):
        return set()  # JSON can hold a NUL as an escape only
    try:
        pending = [parse_document(document)]
    except ValueError:
        return set()  # the server reports it, if it parses the document at all
    found: set[str] = set()
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending.extend(value)
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, str) and (bad := unstorable(value)):
            found.add(bad)
    return found


def merged(stored: dict[str, Any], update: dict[str, Any]) -> dict[str, Any]:
    """Two objects as a tracker merges a run's config: at every depth, and values of ``update`` win.

    >>> merged({"lr": 1, "net": {"depth": 2}}, {"lr": None, "net": {"size": 3}})
    {'lr': None, 'net': {'depth': 2, 'size': 3}}
    """
    both = dict(stored)
    for key, value in update.items():
        before = both.get(key)
        both[key] = merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return both
