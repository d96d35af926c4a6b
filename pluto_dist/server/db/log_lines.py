"""What stands in a body of newline-delimited JSON: metrics, console lines, structured data.

Pure: bytes in, records out. One bad line refuses the whole body and names the line, so nothing of it
is stored and it can be sent again once it is right. (The hosted server stores the lines before the bad
one and answers 422; a sender cannot tell how far it came.) Blank lines and unknown fields are passed over.

>>> metric_lines(b'{"time": 5, "step": 1, "data": {"loss": 0.5, "gone": null, "odd": NaN}}')
[MetricLine(time=5, step=1, values=(('loss', 0.5), ('odd', nan)))]
>>> metric_lines(b'\\n{"time": 5, "step": -1, "data": {}}')
Traceback (most recent call last):
pluto_dist.server.db.log_lines.LineError: line 2: step is -1; it must be a whole number from 0 to 2**53
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from pluto_dist.contract.run_requests import LATEST_MS
from pluto_dist.contract.validation import Json, unstorable

LARGEST = 2**53  # of what JSON can carry exactly in a double
NAME_LIMIT = 1000
_NAMED = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class LineError(ValueError):
    """A line that is not what it should be."""


@dataclass(frozen=True, slots=True)
class MetricLine:
    """Values of one step; the time in milliseconds since 1970."""

    time: int
    step: int
    values: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class ConsoleLine:
    """One line of a console; ``number`` counts within the process and stream that wrote it."""

    time: int
    number: int
    type: str
    message: str


@dataclass(frozen=True, slots=True)
class DataLine:
    """One histogram, table, graph or text value; ``data`` is as it was sent."""

    time: int
    step: int
    name: str
    type: str
    data: str


def metric_lines(body: bytes) -> list[MetricLine]:
    """The metrics in a body; a null is no value, as on the hosted server.

    Raises:
        LineError: a line is something else; says which and why.
    """
    found = []
    for number, line in _objects(body):
        data = line.get("data")
        if not isinstance(data, dict):
            raise LineError(f"line {number}: data must be an object of names and numbers")
        values = tuple((_name(number, k), _value(number, k, v)) for k, v in data.items() if v is not None)
        found.append(MetricLine(_time(number, line), _whole(number, "step", line.get("step")), values))
    return found


def console_lines(body: bytes) -> list[ConsoleLine]:
    """The console's lines in a body. What no text column can hold becomes a replacement character.

    Raises:
        LineError: a line is something else.
    """
    return [
        ConsoleLine(
            time=_time(number, line),
            number=_whole(number, "lineNumber", line.get("lineNumber")),
            type=_filled(number, "logType", line.get("logType")),
            message=_storable(_text(number, "message", line.get("message"))),
        )
        for number, line in _objects(body)
    ]


def data_lines(body: bytes) -> list[DataLine]:
    """The structured values in a body.

    Raises:
        LineError: a line is something else.
    """
    return [
        DataLine(
            time=_time(number, line),
            step=_whole(number, "step", line.get("step")),
            name=_name(number, _filled(number, "logName", line.get("logName"))),
            type=_filled(number, "dataType", line.get("dataType")),
            data=_storable(_text(number, "data", line.get("data"))),
        )
        for number, line in _objects(body)
    ]


def _objects(body: bytes) -> Iterator[tuple[int, dict[str, Json]]]:
    for number, line in enumerate(body.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)  # takes NaN and Infinity, which the SDK writes
        except (ValueError, RecursionError) as error:
            raise LineError(f"line {number} is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise LineError(f"line {number} is not a JSON object")
        yield number, value


def _value(number: int, name: str, value: Json) -> float:
    if isinstance(value, str) and value in _NAMED:
        return _NAMED[value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise LineError(f"line {number}: {name[:80]!r} is {type(value).__name__}; it must be a number")
    try:
        return float(value)
    except OverflowError as error:
        raise LineError(f"line {number}: {name[:80]!r} is beyond what a double can hold") from error


def _time(number: int, line: dict[str, Json]) -> int:
    time = _whole(number, "time", line.get("time"))
    if time > LATEST_MS:
        raise LineError(f"line {number}: time is {time} ms, which is after the year 9999")
    return time


def _whole(number: int, field: str, value: Json) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        shown = str(value)[:40]
        raise LineError(f"line {number}: {field} is {shown}; it must be a whole number from 0 to 2**53")
    return value


def _text(number: int, field: str, value: Json) -> str:
    if not isinstance(value, str):
        raise LineError(f"line {number}: {field} must be a string")
    return value


def _filled(number: int, field: str, value: Json) -> str:
    text = _text(number, field, value)
    if not text.strip() or len(text) > NAME_LIMIT or (unstorable(text)):
        raise LineError(f"line {number}: {field} must have 1 to {NAME_LIMIT} characters, none of them NUL")
    return text


def _name(number: int, name: str) -> str:
    return _filled(number, "a name", name)


def _storable(text: str) -> str:
    return text.replace("\x00", "\ufffd").encode("utf-8", "surrogatepass").decode("utf-8", "replace")
