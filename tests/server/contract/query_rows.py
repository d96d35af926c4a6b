"""Rows about what is read: lists, details, changes of status, logged points, and paths without a key."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from server.contract.row import FIELDS, ONCE, STABLE, VALID, WHOLE, AnyOf, Row
from server.contract.target import Answer, Target, new_project, observed
from server.contract.update_rows import history

LIST, RAW, HISTORY = "/api/runs/list", "/api/runs/metrics/raw", "/api/runs/status/history"
LISTED = {"id", "name", "number", "displayId", "projectName", "status", "tags", "createdAt"}
DETAILS = {
    "id", "name", "number", "displayId", "status", "tags", "config", "systemMetadata", "loggerSettings",
    "statusMetadata", "createdAt", "updatedAt", "statusUpdated", "projectName", "externalId", "forkedFromRunId",
    "forkStep", "logNames",
}  # fmt: skip
OWN = {"attachCount", "attaches", "heartbeatAt", "statusHistory", "url"}  # of the embedded tracker's details
EVENT = {"id", "runId", "fromStatus", "toStatus", "source", "metadata", "actorId", "apiKeyId", "createdAt"}
TIME = 1_700_000_000_123


def get(target: Target, path: str, **params: Any) -> Any:
    return target.send(path, method="GET", params=params).json()


def _listed(target: Target) -> Any:
    project = new_project()
    run = target.create_run(project, "job", runName="n", tags=["t"], config='{"a":1}')
    found = get(target, LIST, projectName=project)
    (item,) = found["runs"]
    expected = {"id": run["runId"], "name": "n", "projectName": project, "displayId": run["displayId"], "tags": ["t"]}
    return set(item), expected.items() <= item.items(), found["total"]


def _names(**params: str) -> Any:
    """The names of the runs that a list with these parameters has."""

    def observe(target: Target) -> Any:
        project = new_project()
        for name, tags in {"one": ["x"], "two": ["y"], "three": ["x", "y"], "none": []}.items():
            run = target.create_run(project, runName=name, tags=tags)["runId"]
            if name in ("one", "two"):
                target.status(run, "FAILED" if name == "one" else "COMPLETED")
        return {run["name"] for run in get(target, LIST, projectName=project, **params)["runs"]}

    return observe


def _get(name: str, path: str, hosted: Answer, *, key: str | None = None, read: bool = True, **params: Any) -> Row:
    def observe(target: Target) -> Answer:
        return observed(target.send(path, method="GET", params=params, key=key))

    return Row("queries", name, observe, hosted, read=read)


LISTS = [
    Row("queries", "list: the fields of a run", _listed, (LISTED, True, 1)),
    _get("list without a project", LIST, Answer(400, "A", "projectName is required")),
    _get("list of an unknown project", LIST, Answer(200, "ok", '"total": 0'), projectName="contract: no such project"),
    Row("queries", "list: runs with any of the tags", _names(tags="x, y"), {"one", "two", "three"}, read=True),
    Row("queries", "list: runs with any status", _names(status="FAILED,RUNNING"), {"one", "three", "none"}, read=True),
    _get(
        "list: an unknown status", LIST, Answer(400, "A", "status"), projectName="contract bodies", status="failed",
    ),
]  # fmt: skip


def _fields_of_details(target: Target) -> set[str]:
    return set(target.details(target.create_run(new_project())["runId"])) - DETAILS


def _events(target: Target) -> Any:
    project = new_project()
    run = target.create_run(project, "job")["runId"]
    target.status(run, "FAILED", statusMetadata='{"reason":1}')
    target.create_run(project, "job")
    target.status(run, "COMPLETED")
    target.send("/api/runs/resume", {"runId": run})
    found = history(target, run)
    changes = [(event["fromStatus"], event["toStatus"], event["source"]) for event in found]
    texts = all(isinstance(event["id"], str) and event["runId"] == run for event in found)
    return {frozenset(event) for event in found} == {frozenset(EVENT)}, texts, changes, found[1]["metadata"]


CHANGES = [
    (None, "RUNNING", "api"),
    ("RUNNING", "FAILED", "api"),
    ("FAILED", "RUNNING", "resume"),
    ("RUNNING", "COMPLETED", "api"),
    ("COMPLETED", "RUNNING", "resume"),
]
STATUS = [
    Row("queries", "details: fields of its own", _fields_of_details, set(), OWN, FIELDS, read=True),
    Row("queries", "status/history", _events, (True, True, CHANGES, {"reason": 1}), read=True),
    _get("status/history of an unknown run", HISTORY, Answer(404, "A", "Run not found"), runId=10**9),
    _get("status/history without a run", HISTORY, Answer(400, "C")),
]


def _ingest(target: Target, *lines: str) -> tuple[dict[str, Any], Answer]:
    project = new_project()
    run = target.create_run(project)
    headers = {"X-Run-Id": str(run["runId"]), "X-Run-Name": "run", "X-Project-Name": project}
    body = "".join(f"{line}\n" for line in lines).encode()
    sent = target.send("/ingest/metrics", raw=body, headers={**headers, "Content-Type": "application/x-ndjson"})
    return run, observed(sent)


def _line(step: int, value: float) -> str:
    return json.dumps({"time": TIME, "step": step, "data": {"train/loss": value}})


def _raw(target: Target, run: Mapping[str, Any], **params: Any) -> Any:
    """The points of a run's metric; the hosted tracker may take some seconds to show them."""
    named = {"runId": run["runId"], "projectName": run["projectName"], "logName": "train/loss", **params}
    deadline = time.monotonic() + 30
    while not (found := get(target, RAW, **named))["rows"] and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _points(target: Target) -> Any:
    run, _ = _ingest(target, _line(1, 0.5), _line(2, float("nan")), _line(3, float("inf")), _line(4, -float("inf")))
    found, some = _raw(target, run), _raw(target, run, stepMin=2, limit=2)
    points = [(row["step"], row["value"], row["nonFiniteFlags"]) for row in found["rows"]]
    first = found["rows"][0]
    return points, first["logGroup"], first["time"], found["truncated"], len(some["rows"]), some["truncated"]


def _twice(target: Target) -> int:
    run, _ = _ingest(target, _line(1, 0.5), _line(1, 0.5))
    return len(_raw(target, run)["rows"])


def _invalid_line(target: Target) -> int:
    return _ingest(target, _line(1, 0.5), "{")[1].status


POINTS = [
    Row(
        "queries", "metrics/raw", _points,
        ([(1, 0.5, 0), (2, 0, 1), (3, 0, 2), (4, 0, 4)], "train", "2023-11-14 22:13:20.123", False, 2, True), read=True,
    ),
    Row("queries", "metrics/raw: a point that was sent twice", _twice, 2, 1, ONCE, read=True),
    Row("queries", "a batch of points with an invalid line", _invalid_line, 422, 400, WHOLE, read=True),
    _get("metrics/raw without a name", RAW, Answer(400, "C"), runId=1, projectName="p"),
]  # fmt: skip


def _version(target: Target) -> Any:
    answer = target.send("/api/version", method="GET", key="")
    return answer.status_code, set(answer.json())


def _attempts(target: Target) -> int:
    run = target.create_run(new_project())["runId"]
    return target.send(f"/api/runs/{run}/attempts", method="GET").status_code


def _delete(target: Target) -> int:
    run = target.create_run(new_project())["runId"]
    return target.send(f"/api/runs/{run}", method="DELETE").status_code


def _data(target: Target) -> set[str]:
    run = target.create_run(new_project())
    return set(get(target, "/api/runs/data", runId=run["runId"], projectName=run["projectName"]))


def _code(target: Target) -> int:
    return len(str(target.create_run(new_project())["url"]).rpartition("/")[2])


def _console(target: Target) -> int:
    run = target.create_run(new_project())
    params = {"runId": run["runId"], "projectName": run["projectName"], "logType": "info"}
    return target.send("/api/runs/logs", method="GET", params=params).status_code


OTHERS = [
    Row("queries", "console lines of type info, as the SDK documents it", _console, 400, 200, VALID, read=True),
    Row(
        "queries", "the code in a run's URL", _code,
        AnyOf("5 characters or more", lambda found: found >= 5), AnyOf("2 or more", lambda found: found in (2, 3, 4)),
        STABLE, read=True,
    ),
    Row(
        "queries", "the version needs no key", _version,
        (200, {"service", "version", "gitCommit", "gitBranch", "buildTime"}), read=True,
    ),
    _get("a sqid needs no key", "/api/runs/Uk", Answer(200, "ok", '{"runId": 1}'), key=""),
    _get("a text that is no sqid", "/api/runs/--", Answer(200, "ok", "{}")),
    Row("queries", "the attempts of a run", _attempts, 404, 200, FIELDS, read=True),
    Row("queries", "DELETE of a run", _delete, 404, 200, FIELDS, read=True),
    Row("queries", "the data of a run (a sqid on the hosted tracker)", _data, {"runId"}, {"data"}, FIELDS, read=True),
]  # fmt: skip
ROWS = [*LISTS, *STATUS, *POINTS, *OTHERS]
