"""Parsing of newline-delimited JSON: valid lines, and the errors of invalid ones."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluto_dist.server.db.log_lines import LineError, parse_console, parse_data, parse_metrics
from pluto_dist.server.settings import LARGEST_INTEGER

METRIC = {"time": 1, "step": 2, "data": {"loss": 0.5}}
CONSOLE = {"time": 1, "lineNumber": 2, "logType": "INFO", "message": "m"}
DATA = {"time": 1, "step": 2, "dataType": "TABLE", "logName": "t", "data": "{}"}


@given(
    st.dictionaries(
        st.text("abc/._ü", min_size=1), st.floats() | st.integers(-LARGEST_INTEGER, LARGEST_INTEGER), max_size=5
    )
)
def test_numbers_round_trip(values: dict[str, float]) -> None:
    """Numbers that Python's json writes, NaN and Infinity included, are parsed to the same values."""
    (line,) = parse_metrics(json.dumps({**METRIC, "data": values}).encode())
    for (name, value), (expected_name, expected) in zip(line.values, values.items(), strict=True):
        assert name == expected_name
        assert value == expected or (math.isnan(value) and math.isnan(expected))


def test_ignored_input() -> None:
    """Blank lines, unknown fields and nulls are ignored; the string "NaN" is NaN."""
    body = b'\n \n{"time": 1, "step": 0, "data": {"a": null, "b": "NaN", "c": "-Infinity"}, "new": [1]}\r\n'
    (line,) = parse_metrics(body)
    assert [name for name, _ in line.values] == ["b", "c"]
    assert math.isnan(line.values[0][1])
    assert line.values[1][1] == -math.inf


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"step": -1}, "step is -1"),
        ({"step": 1.5}, "step is 1.5"),
        ({"step": True}, "step is True"),
        ({"step": 2**53 + 1}, "step is 9007199254740993"),
        ({"time": None}, "time is None"),
        ({"time": 253_402_300_800_000}, "after the year 9999"),
        ({"data": [1]}, "data must be an object"),
        ({"data": {"loss": "low"}}, "'loss' is str"),
        ({"data": {"loss": True}}, "'loss' is bool"),
        ({"data": {"loss": [1]}}, "'loss' is list"),
        ({"data": {"loss": 10**400}}, "'loss' is beyond"),
        ({"data": {" ": 1}}, "a name must have"),
        ({"data": {"a\x00": 1}}, "a name must have"),
        ({"data": {"n" * 1001: 1}}, "a name must have"),
    ],
)
def test_invalid_metric_line(change: dict[str, object], reason: str) -> None:
    """The error has the number of the line and the reason."""
    body = "\n".join(json.dumps(line) for line in (METRIC, {**METRIC, **change}))
    with pytest.raises(LineError, match="line 2") as caught:
        parse_metrics(body.encode())
    assert reason in str(caught.value)


@pytest.mark.parametrize("text", [b"{", b"[1]", b'"x"', b"\xff", b"[" * 100_000], ids=repr)
@pytest.mark.parametrize("parse", [parse_metrics, parse_console, parse_data])
def test_line_that_is_no_object(parse: object, text: bytes) -> None:
    """Anything but a JSON object is a LineError."""
    with pytest.raises(LineError, match="line 1"):
        parse(text)  # type: ignore[operator]


@pytest.mark.parametrize("change", [{"message": 1}, {"logType": ""}, {"lineNumber": -1}, {"time": "now"}])
def test_invalid_console_line(change: dict[str, object]) -> None:
    """A console line has a message, a type, a number and a time."""
    with pytest.raises(LineError, match="line 1"):
        parse_console(json.dumps({**CONSOLE, **change}).encode())


@pytest.mark.parametrize("change", [{"data": {}}, {"dataType": " "}, {"logName": ""}, {"step": None}])
def test_invalid_data_line(change: dict[str, object]) -> None:
    """A structured value has a name, a type, a step, a time and a string of data."""
    with pytest.raises(LineError, match="line 1"):
        parse_data(json.dumps({**DATA, **change}).encode())


def test_unstorable_characters_are_replaced() -> None:
    """Characters that cannot be stored are replaced; the rest of the line is kept."""
    (line,) = parse_console(json.dumps({**CONSOLE, "message": "a\x00b\udc80c ü 🚀"}).encode())
    assert line.message.encode()
    assert "\x00" not in line.message
    assert line.message.startswith("a\ufffdb")
    assert line.message.endswith("c ü 🚀")
