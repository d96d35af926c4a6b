"""Newline-delimited JSON: what each kind of line must be, and what is said of one that is not."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluto_dist.server.db.log_lines import LARGEST, LineError, console_lines, data_lines, metric_lines

METRIC = {"time": 1, "step": 2, "data": {"loss": 0.5}}
CONSOLE = {"time": 1, "lineNumber": 2, "logType": "INFO", "message": "m"}
DATA = {"time": 1, "step": 2, "dataType": "TABLE", "logName": "t", "data": "{}"}


@given(st.dictionaries(st.text("abc/._ü", min_size=1), st.floats() | st.integers(-LARGEST, LARGEST), max_size=5))
def test_numbers_arrive_as_they_were(values: dict[str, float]) -> None:
    """What Python's json writes, NaN and Infinity included, is read with the same values."""
    (line,) = metric_lines(json.dumps({**METRIC, "data": values}).encode())
    for (name, value), (wanted_name, wanted) in zip(line.values, values.items(), strict=True):
        assert name == wanted_name
        assert value == wanted or (math.isnan(value) and math.isnan(wanted))


def test_what_is_passed_over() -> None:
    """Blank lines, unknown fields and nulls are no errors; text that says NaN is NaN."""
    body = b'\n \n{"time": 1, "step": 0, "data": {"a": null, "b": "NaN", "c": "-Infinity"}, "new": [1]}\r\n'
    (line,) = metric_lines(body)
    assert [name for name, _ in line.values] == ["b", "c"]
    assert math.isnan(line.values[0][1])
    assert line.values[1][1] == -math.inf


@pytest.mark.parametrize(
    ("change", "why"),
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
def test_a_bad_metric(change: dict[str, object], why: str) -> None:
    """A line that is no metric is named with its number and with what is wrong."""
    body = "\n".join(json.dumps(line) for line in (METRIC, {**METRIC, **change}))
    with pytest.raises(LineError, match="line 2") as caught:
        metric_lines(body.encode())
    assert why in str(caught.value)


@pytest.mark.parametrize("text", [b"{", b"[1]", b'"x"', b"\xff", b"[" * 100_000], ids=repr)
@pytest.mark.parametrize("parse", [metric_lines, console_lines, data_lines])
def test_what_is_no_object(parse: object, text: bytes) -> None:
    """Anything but a JSON object is an error of its own kind, whatever it is."""
    with pytest.raises(LineError, match="line 1"):
        parse(text)  # type: ignore[operator]


@pytest.mark.parametrize("change", [{"message": 1}, {"logType": ""}, {"lineNumber": -1}, {"time": "now"}])
def test_a_bad_console_line(change: dict[str, object]) -> None:
    """A console line has a message, a type, a number and a time."""
    with pytest.raises(LineError, match="line 1"):
        console_lines(json.dumps({**CONSOLE, **change}).encode())


@pytest.mark.parametrize("change", [{"data": {}}, {"dataType": " "}, {"logName": ""}, {"step": None}])
def test_a_bad_data_line(change: dict[str, object]) -> None:
    """A structured value has a name, a type, a step, a time, and text."""
    with pytest.raises(LineError, match="line 1"):
        data_lines(json.dumps({**DATA, **change}).encode())


def test_a_console_may_print_anything() -> None:
    """Bytes that are no text cost their characters, not the line."""
    (line,) = console_lines(json.dumps({**CONSOLE, "message": "a\x00b\udc80c ü 🚀"}).encode())
    assert line.message.encode()
    assert "\x00" not in line.message
    assert line.message.startswith("a\ufffdb")
    assert line.message.endswith("c ü 🚀")
