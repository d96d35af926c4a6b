"""Rows about updates of a run: config, status with its documents and times, notes, heartbeats."""

from __future__ import annotations

import json
import time
from typing import Any

from server.contract.row import ADDRESS, EXACT, REASON, VALID, AnyOf, Better, Row
from server.contract.target import HEARTBEATS, Answer, Target, new_project, observed

CONFIG, NOTES, TRIGGER = "/api/runs/config/update", "/api/runs/notes/update", "/api/runs/trigger"
SUCCESS = Answer(200, "ok", '"success": true')
NOT_FOUND = Answer(404, "A", "Run not found")
BROKEN = Answer(500, "A")
C = Answer(400, "C")
NUL, SURROGATE = r'{"a":"\u0000"}', r'{"a":"\ud800"}'
DEEP = '{"a":' * 124 + "1" + "}" * 124
LONG_AGO, LATER = 1_600_000_000_000, 1_600_000_060_000  # in milliseconds since 1970
SEVENTEEN_DIGITS = 1764291600.1234567
KEPT = {"kept": 1}


def A(text: str) -> Answer:  # noqa: N802  # the name of the shape
    return Answer(400, "A", text)


def iso(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(at // 1000))


def history(target: Target, run: int) -> list[dict[str, Any]]:
    """The run's changes of status, as its endpoint lists them."""
    answer = target.send("/api/runs/status/history", method="GET", params={"runId": run})
    return list(answer.json()["events"])


def _config(
    name: str,
    config: Any,
    hosted: Answer,
    embedded: Any = None,
    better: Better = "",
    *,
    stored: Any = KEPT,
    read: bool = False,
) -> Row:
    """An update of a run's config ``KEPT``, and what is stored then."""

    def observe(target: Target) -> Any:
        run = target.create_run(new_project(), config=json.dumps(KEPT))["runId"]
        answer = target.send(CONFIG, {"runId": run, "config": config})
        return observed(answer), target.details(run)["config"]

    expected = None if embedded is None else (embedded, stored)
    return Row("updates", f"config/update: {name}", observe, (hosted, stored), expected, better, read=read)


def _no_config(target: Target) -> Any:
    run = target.create_run(new_project())["runId"]
    answer = target.send(CONFIG, {"runId": run, "config": "{}"})
    return observed(answer), target.details(run)["config"]


def _unknown(path: str, **fields: Any) -> Row:
    def observe(target: Target) -> Answer:
        return observed(target.send(path, {"runId": 10**9, **fields}))

    return Row("updates", f"{path.removeprefix('/api/runs/')}: an unknown run", observe, NOT_FOUND, read=True)


def _digits(target: Target) -> float:
    run = target.create_run(new_project(), config=json.dumps({"at": SEVENTEEN_DIGITS}))["runId"]
    return float(target.details(run)["config"]["at"])


EXPECTED_OBJECT = A("expected an object")
CONFIGS = [
    _config("an object", '{"a":1}', SUCCESS, stored={"kept": 1, "a": 1}),
    _config("an array", "[1]", EXPECTED_OBJECT),
    _config("a string", '"a"', EXPECTED_OBJECT),
    _config("a number", "5", EXPECTED_OBJECT),
    _config("a boolean", "true", EXPECTED_OBJECT),
    _config("null", None, C),
    _config("the text null", "null", SUCCESS, read=True),
    _config("the empty text", "", SUCCESS, read=True),
    _config("not JSON", "{", A("Invalid config JSON"), read=True),
    _config("NUL", NUL, BROKEN, A("NUL"), REASON, read=True),
    _config("lone surrogate", SURROGATE, BROKEN, A("lone surrogate"), REASON, read=True),
    Row("updates", "config/update: {} where there is no config", _no_config, (SUCCESS, None), read=True),
    _unknown(CONFIG, config="{"),
    Row(
        "updates", "a number of 17 digits in config", _digits,
        AnyOf("16 digits of it", lambda found: found != SEVENTEEN_DIGITS and abs(found - SEVENTEEN_DIGITS) < 1e-5),
        SEVENTEEN_DIGITS, EXACT,
    ),
]  # fmt: skip


def _status(name: str, fields: dict[str, Any], hosted: Any, embedded: Any = None, better: Better = "") -> Row:
    """An end with further fields."""

    def observe(target: Target) -> Answer:
        return observed(target.status(target.create_run(new_project())["runId"], "FAILED", **fields))

    read = "statusUpdated" in fields
    return Row("updates", f"status/update: {name}", observe, hosted, embedded, better, read=read)


def _kept_metadata(name: str, fields: dict[str, Any], kept: Any, *, read: bool = False) -> Row:
    """What is stored of the ``statusMetadata`` of a FAILED run after it went on and COMPLETED."""

    def observe(target: Target) -> Any:
        run = target.create_run(new_project())["runId"]
        target.status(run, "FAILED", statusMetadata='{"reason":1}')
        target.status(run, "RUNNING")
        answer = observed(target.status(run, "COMPLETED", **fields))
        return answer, target.details(run)["statusMetadata"]

    return Row("updates", f"statusMetadata {name}", observe, (SUCCESS, kept), read=read)


def _settings(target: Target) -> Any:
    run = target.create_run(new_project(), loggerSettings='{"a":{"x":1}}')["runId"]
    target.status(run, "FAILED", loggerSettings='{"a":{"y":2}}')
    return target.details(run)["loggerSettings"]


def _no_run_in_range(target: Target) -> Answer:
    return observed(target.status(10**30, "FAILED"))


def _again(status: str) -> Any:
    """Whether the same status again gives a new ``statusUpdated``, and how many events there are."""

    def observe(target: Target) -> Any:
        run = target.create_run(new_project())["runId"]
        times = []
        for _ in range(2):
            target.status(run, status)
            times.append(target.details(run)["statusUpdated"])
            time.sleep(0.02)
        return times[0] < times[1], len(history(target, run))

    return observe


def _resumed(target: Target) -> Any:
    """Whether the row is not written before the time of the status, and whether a later config leaves that."""
    project = new_project()
    run = target.create_run(project, "job")["runId"]
    target.status(run, "FAILED")
    target.send("/api/runs/resume", {"runId": run})
    found = target.details(run)
    target.create_run(project, "job", config='{"a":1}')
    later = target.details(run)
    return (
        found["updatedAt"] >= found["statusUpdated"],
        later["statusUpdated"] == found["statusUpdated"],
    )


def _past(target: Target) -> Any:
    """The times of a run from the past: as created, and after its end."""
    run = target.create_run(new_project(), createdAt=LONG_AGO, updatedAt=LATER)["runId"]
    found = target.details(run)
    created = found["createdAt"] == iso(LONG_AGO), found["updatedAt"] == iso(LATER)
    target.status(run, "COMPLETED", statusUpdated=LATER)
    found = target.details(run)
    ended = found["createdAt"] == iso(LONG_AGO), found["updatedAt"] == iso(LATER), found["statusUpdated"] == iso(LATER)
    return created, ended, history(target, run)[-1]["createdAt"] == iso(LATER)


def _first_event(target: Target) -> bool:
    run = target.create_run(new_project(), createdAt=LONG_AGO)["runId"]
    return bool(history(target, run)[0]["createdAt"] == iso(LONG_AGO))


STATUSES = [
    *(
        _status(f"{what} in {field}", {field: sent}, BROKEN, A(what), REASON)
        for field in ("statusMetadata", "loggerSettings")
        for what, sent in (("NUL", NUL), ("lone surrogate", SURROGATE))
    ),
    _status("statusMetadata nested 124 deep", {"statusMetadata": DEEP}, BROKEN, SUCCESS, VALID),
    _status("statusUpdated in the year 10000", {"statusUpdated": 253402300800000}, BROKEN, A("9999"), REASON),
    _status("statusUpdated -1", {"statusUpdated": -1}, C),
    _kept_metadata("null clears what is stored", {"statusMetadata": None}, None),
    _kept_metadata("absent leaves what is stored", {}, {"reason": 1}),
    _kept_metadata("empty leaves what is stored", {"statusMetadata": ""}, {"reason": 1}, read=True),
    _kept_metadata("null in JSON clears what is stored", {"statusMetadata": "null"}, None, read=True),
    Row("updates", "loggerSettings of status/update are merged", _settings, {"a": {"x": 1, "y": 2}}, read=True),
    _unknown("/api/runs/status/update", status="FAILED", statusMetadata="{"),
    Row("updates", "status/update: runId 1e30", _no_run_in_range, BROKEN, A("runId"), REASON, read=True),
    Row("updates", "RUNNING again has a new time and is no event", _again("RUNNING"), (True, 1)),
    Row("updates", "an end again keeps its time and is no event", _again("COMPLETED"), (False, 2), read=True),
    Row("updates", "updatedAt is not before statusUpdated", _resumed, (True, True)),
    Row(
        "updates", "times of a run from the past: updatedAt is lost, the others stay", _past,
        ((True, True), (True, False, True), True),
    ),
    Row("updates", "createdAt is the time of the first event", _first_event, True, read=True),
]  # fmt: skip


def _notes(name: str, fields: dict[str, Any], hosted: Any, embedded: Any = None, better: Better = "") -> Row:
    def observe(target: Target) -> Answer:
        run = target.create_run(new_project())["runId"]
        return observed(target.send(NOTES, {"runId": run, **fields}))

    read = name != "1000 characters"
    return Row("updates", f"notes/update: {name}", observe, hosted, embedded, better, read=read)


NOTE_ROWS = [
    _notes("1000 characters", {"notes": "n" * 1000}, SUCCESS),
    _notes("1001 characters", {"notes": "n" * 1001}, C),
    _notes("501 emoji are 1002 characters in UTF-16", {"notes": "🚀" * 501}, C),
    _notes("null", {"notes": None}, SUCCESS),
    _notes("empty", {"notes": ""}, SUCCESS),
    _notes("absent", {}, C),
    _notes("NUL", {"notes": "a\0"}, BROKEN, A("NUL"), REASON),
    _unknown(NOTES, notes="n"),
]


def _heartbeat(target: Target) -> Any:
    run = target.create_run(new_project())["runId"]
    first = target.send(TRIGGER, {"runId": run}, base=target.heartbeats)
    target.status(run, "CANCELLED")
    second = target.send(TRIGGER, {"runId": run}, base=target.heartbeats)
    return first.json(), second.json()["status"]


def _elsewhere(target: Target) -> Answer:
    return observed(target.send(TRIGGER, {"runId": target.create_run(new_project())["runId"]}))


def _log_name(type: str, hosted: Answer) -> Row:
    def observe(target: Target) -> Answer:
        run = target.create_run(new_project())["runId"]
        return observed(target.send("/api/runs/logName/add", {"runId": run, "logName": ["a"], "logType": type}))

    return Row("updates", f"logName/add: the type {type}", observe, hosted, read=True)


LOG_NAMES = [_log_name("METRIC", SUCCESS), _log_name("metric", C), _log_name("GRAPH", C)]
BEATS = [
    Row(
        "updates", "a heartbeat returns the status", _heartbeat, ({"status": "RUNNING", "triggers": None}, "CANCELLED"),
        needs=HEARTBEATS,
    ),
    Row(
        "updates", "a heartbeat at the address of the API", _elsewhere,
        Answer(404, "text"), Answer(200, "ok", '"status": "RUNNING"'), ADDRESS,
    ),
]  # fmt: skip
ROWS = [*CONFIGS, *STATUSES, *NOTE_ROWS, *LOG_NAMES, *BEATS]
