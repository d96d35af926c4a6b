"""Parsing of newline-delimited JSON: metrics, console lines, structured data.

One invalid line rejects the whole body and is named in the error, so nothing is stored and the client
can send the body again once it is corrected. (The hosted tracker stores the lines before the invalid
one and answers 422; the client cannot know how many.) Blank lines and unknown fields are ignored.

>>> parse_metrics(b'{"time": 5, "step": 1, "data": {"loss": 0.5, "gone": null, "odd": NaN}}')
[MetricLine(time=5, step=1, values=(('loss', 0.5), ('odd', nan)))]
>>> parse_metrics(b'\\n{"time": 5, "step": -1, "data": {}}')
Traceback (most recent call last):
pluto_dist.server.db.log_lines.LineError: line 2: step is -1; it must be a whole number from 0 to 2**53
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from pluto_dist.contract.run_requests import LATEST_MS
from pluto_dist.contract.validation import Json, unstorable
from pluto_dist.server.settings import LARGEST_INTEGER, NAME_LIMIT

_NOT_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class LineError(ValueError):
    """A line is invalid; the message has its number and the reason."""


@dataclass(frozen=True, slots=True)
class MetricLine:
    """Values of one step. ``time`` in milliseconds since 1970."""

    time: int
    step: int
    values: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class ConsoleLine:
    """One console line. ``number`` counts the lines of one stream of one process."""

    time: int
    number: int
    type: str
    message: str


@dataclass(frozen=True, slots=True)
class DataLine:
    """One histogram, table, graph or text value; ``data`` is the text that was sent."""

    time: int
    step: int
    name: str
    type: str
    data: str


def parse_metrics(body: bytes) -> list[MetricLine]:
    """The metrics in a body. A null is ignored, as on the hosted tracker.

    Raises:
        LineError: a line is invalid.
    """
    found = []
    for number, line in _objects(body):
        data = line.get("data")
        if not isinstance(data, dict):
            raise LineError(f"line {number}: data must be an object of names and numbers")
        values = tuple((_name(number, k), _value(number, k, v)) for k, v in data.items() if v is not None)
        found.append(MetricLine(_time(number, line), _integer(number, "step", line.get("step")), values))
    return found


def parse_console(body: bytes) -> list[ConsoleLine]:
    """The console lines in a body. Characters that cannot be stored are replaced by U+FFFD.

    Raises:
        LineError: a line is invalid.
    """
    return [
        ConsoleLine(
            time=_time(number, line),
            number=_integer(number, "lineNumber", line.get("lineNumber")),
            type=_label(number, "logType", line.get("logType")),
            message=_replace_unstorable(_text(number, "message", line.get("message"))),
        )
        for number, line in _objects(body)
    ]


def parse_data(body: bytes) -> list[DataLine]:
    """The structured values in a body.

    Raises:
        LineError: a line is invalid.
    """
    return [
        DataLine(
            time=_time(number, line),
            step=_integer(number, "step", line.get("step")),
            name=_name(number, _label(number, "logName", line.get("logName"))),
            type=_label(number, "dataType", line.get("dataType")),
            data=_replace_unstorable(_text(number, "data", line.get("data"))),
        )
        for number, line in _objects(body)
    ]


def _objects(body: bytes) -> Iterator[tuple[int, dict[str, Json]]]:
    for number, line in enumerate(body.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)  # accepts NaN and Infinity, which the SDK writes
        except (ValueError, RecursionError) as error:
            raise LineError(f"line {number} is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise LineError(f"line {number} is not a JSON object")
        yield number, value


def _value(number: int, name: str, value: Json) -> float:
    if isinstance(value, str) and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise LineError(f"line {number}: {name[:80]!r} is {type(value).__name__}; it must be a number")
    try:
        return float(value)
    except OverflowError as error:
        raise LineError(f"line {number}: {name[:80]!r} is beyond what a double can hold") from error


def _time(number: int, line: dict[str, Json]) -> int:
    time = _integer(number, "time", line.get("time"))
    if time > LATEST_MS:
        raise LineError(f"line {number}: time is {time} ms, which is after the year 9999")
    return time


def _integer(number: int, field: str, value: Json) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_INTEGER:
        text = str(value)[:40]
        raise LineError(f"line {number}: {field} is {text}; it must be a whole number from 0 to 2**53")
    return value


def _text(number: int, field: str, value: Json) -> str:
    if not isinstance(value, str):
        raise LineError(f"line {number}: {field} must be a string")
    return value


def _label(number: int, field: str, value: Json) -> str:
    text = _text(number, field, value)
    if not text.strip() or len(text) > NAME_LIMIT or unstorable(text):
        raise LineError(f"line {number}: {field} must have 1 to {NAME_LIMIT} characters, none of them NUL")
    return text


def _name(number: int, name: str) -> str:
    return _label(number, "a name", name)


def _replace_unstorable(text: str) -> str:
    return text.replace("\x00", "\ufffd").encode("utf-8", "surrogatepass").decode("utf-8", "replace")
