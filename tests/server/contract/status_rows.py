"""Rows about existing runs: status, resume and details."""

from __future__ import annotations

import itertools
from typing import Any

from server.contract.row import REASON, VALID, Row
from server.contract.target import RESUME, Answer, Target, new_project, observed

ORDER = ("COMPLETED", "TERMINATED", "CANCELLED", "FAILED")
SUCCESS = Answer(200, "ok", '"success": true')
NOT_FOUND = Answer(404, "A", "Run not found")
NO_PROJECT = Answer(400, "A", "projectName is required when using externalId")
C = Answer(400, "C")


def _accepted(status: Any) -> Row:
    def observe(target: Target) -> Answer:
        return observed(target.status(target.create_run(new_project())["runId"], status))

    if status in ("RUNNING", *ORDER):
        return Row("status", f"{status!r} is a status", observe, SUCCESS)
    return Row("status", f"{status!r} is no status", observe, C)


def _reopened(status: str) -> Row:
    def observe(target: Target) -> Any:
        project = new_project()
        run = target.create_run(project, "job")["runId"]
        target.status(run, status)
        again = target.create_run(project, "job")
        return again["resumed"], again["runId"] == run, target.details(run)["status"]

    return Row("status", f"create after {status} reopens the run", observe, (True, True, "RUNNING"))


def _after(first: str, second: str) -> Row:
    expected = second if ORDER.index(second) > ORDER.index(first) else first

    def observe(target: Target) -> Any:
        run = target.create_run(new_project())["runId"]
        target.status(run, first)
        answer = observed(target.status(run, second))
        return answer, target.details(run)["status"]

    return Row("status", f"{second} after {first}", observe, (SUCCESS, expected))


def _running_after_failed(target: Target) -> Any:
    run = target.create_run(new_project())["runId"]
    target.status(run, "FAILED")
    return observed(target.status(run, "RUNNING")), target.details(run)["status"]


def _mixed(target: Target) -> Any:
    run = target.create_run(new_project())["runId"]
    answers = target.concurrently(32, lambda n: target.status(run, ORDER[n % 4]))
    return {answer.status_code for answer in answers}, target.details(run)["status"]


def _bad_document(field: str) -> Row:
    def observe(target: Target) -> Answer:
        return observed(target.status(target.create_run(new_project())["runId"], "FAILED", **{field: "{"}))

    return Row("status", f"{field} not JSON", observe, Answer(400, "A", f"Invalid {field} JSON"))


def _elsewhere(target: Target) -> Answer:
    run = target.create_run(new_project())["runId"]
    key = target.keys["another organization"]
    return observed(target.send("/api/runs/status/update", {"runId": run, "status": "FAILED"}, key=key))


def _half(target: Target) -> Answer:
    return observed(target.status(1.5, "FAILED"))


def _resume(*names: str) -> Row:
    """A resume request with these fields."""

    def observe(target: Target) -> Any:
        project = new_project()
        run = target.create_run(project, "job")
        known = {**run, "externalId": "job", "projectName": project}
        answer = target.send(RESUME, {name: known[name] for name in names})
        body = answer.json()
        return answer.status_code, body["resumed"], body["runId"] == run["runId"], "forkStep" in body

    return Row("status", f"resume by {' and '.join(names)}", observe, (200, True, True, False))


def _rejected(name: str, fields: dict[str, Any], hosted: Answer, *, read: bool = False) -> Row:
    return Row("status", f"resume: {name}", lambda target: observed(target.send(RESUME, fields)), hosted, read=read)


def _ambiguous(target: Target) -> int:
    """Two projects with the same prefix, and a run with the same number in each."""
    first = new_project()
    second = f"{first}0"
    created = target.create_run(first)
    target.create_run(second)
    return target.send(RESUME, {"displayId": created["displayId"]}).status_code


def _details(target: Target) -> Any:
    project = new_project()
    run = target.create_run(project, "job", config='{"a":1}', systemMetadata='{"b":2}', tags=["t"])
    found = target.details(run["runId"])
    fields = {
        "config", "systemMetadata", "loggerSettings", "status", "statusMetadata", "externalId", "tags", "projectName",
        "createdAt", "updatedAt", "statusUpdated", "forkedFromRunId", "forkStep", "logNames",
    }  # fmt: skip
    missing = fields - set(found)
    return missing, found["config"], found["systemMetadata"], found["externalId"], found["status"]


def _by_display_id(target: Target) -> Any:
    project = new_project()
    run = target.create_run(project)
    answer = target.send(
        f"/api/runs/details/by-display-id/{run['displayId']}", method="GET", params={"projectName": project}
    )
    found = answer.json()
    return answer.status_code, found["projectName"] == project, {"forkedFromRunId", "forkStep"} & set(found)


def _get(name: str, path: str, hosted: Answer, *, needs: str = "", method: str = "GET") -> Row:
    def observe(target: Target) -> Answer:
        return observed(target.send(path, method=method, key=target.keys[needs] if needs else None))

    return Row("status", name, observe, hosted, needs=needs)


def _details_elsewhere(target: Target) -> Answer:
    run = target.create_run(new_project())["runId"]
    key = target.keys["another organization"]
    return observed(target.send(f"/api/runs/details/{run}", method="GET", key=key))


def _out_of_range(name: str, fields: dict[str, Any], reason: str) -> Row:
    """A resume request with a number that no run can have."""

    def observe(target: Target) -> Answer:
        return observed(target.send(RESUME, fields))

    return Row("status", f"resume: {name}", observe, Answer(500, "A"), Answer(400, "A", reason), REASON)


def _not_ascii(target: Target) -> int:
    """A display id as the tracker itself gave it, with a prefix beyond ASCII."""
    project = f"日 {new_project()}"
    created = target.create_run(project)
    return target.send(RESUME, {"displayId": created["displayId"], "projectName": project}).status_code


NO_RUN = "contract: no such project"
RESUMES = [
    _rejected("runId null and a displayId", {"runId": None, "displayId": "A-1"}, C),
    _rejected("displayId null", {"displayId": None}, C, read=True),
    _rejected("projectName null", {"runId": 1, "projectName": None}, C, read=True),
    _rejected('externalId ""', {"externalId": "", "projectName": NO_RUN}, NOT_FOUND),
    _rejected('externalId "" without project', {"externalId": ""}, NO_PROJECT, read=True),
    _rejected('externalId and projectName ""', {"externalId": "job", "projectName": ""}, NO_PROJECT, read=True),
    _rejected("no displayId", {"displayId": "job"}, Answer(400, "A", "isplay"), read=True),
    _out_of_range("a display id with a date", {"displayId": "JOB-20261128093000"}, "displayId is JOB-20261128093000"),
    _out_of_range("a display id with nanoseconds", {"displayId": "JOB-20261128093000123456789"}, "displayId is JOB-2"),
    _out_of_range("runId 1e30", {"runId": 1e30}, "runId is 1e+30"),
    Row("status", "resume: a display id beyond ASCII", _not_ascii, 400, 200, VALID, read=True),
]
ROWS = [
    *map(_accepted, ("RUNNING", *ORDER, "completed", "FINISHED", "STOPPED", "CRASHED", "", None)),
    *map(_reopened, ("COMPLETED", "FAILED", "CANCELLED")),
    *(_after(first, second) for first, second in itertools.permutations(ORDER, 2)),
    Row("status", "RUNNING after FAILED", _running_after_failed, (SUCCESS, "RUNNING")),
    Row("status", "32 concurrent ends", _mixed, ({200}, "FAILED")),
    _bad_document("statusMetadata"),
    _bad_document("loggerSettings"),
    Row("status", "an unknown run", lambda target: observed(target.status(10**9, "FAILED")), NOT_FOUND),
    Row("status", "another organization's run", _elsewhere, NOT_FOUND, needs="another organization"),
    Row("status", "runId 1.5", _half, Answer(500, "A"), Answer(400, "A", "runId"), REASON),
    _resume("runId"),
    _resume("displayId", "projectName"),
    _resume("externalId", "projectName"),
    _rejected("externalId without project", {"externalId": "job"}, NO_PROJECT),
    _rejected("unknown run", {"runId": 10**9}, Answer(404, "A")),
    *RESUMES,
    _rejected("two ids", {"runId": 1, "displayId": "A-1"}, C),
    _rejected("no id", {"projectName": "p"}, C),
    Row("status", "resume: ambiguous displayId", _ambiguous, 409),
    Row("status", "details", _details, (set(), {"a": 1}, {"b": 2}, "job", "RUNNING")),
    Row("status", "details by display id have no fork fields", _by_display_id, (200, True, set())),
    _get("details of a sqid", "/api/runs/details/Uk", C),
    _get("details of an unknown run", "/api/runs/details/1000000000", NOT_FOUND),
    Row("status", "details of another organization's run", _details_elsewhere, NOT_FOUND, needs="another organization"),
    _get("auth/validate", "/api/runs/auth/validate", Answer(200, "ok", '"valid": true')),
    _get("POST auth/validate", "/api/runs/auth/validate", Answer(404, "text"), method="POST"),
    _get("slug", "/api/slug", Answer(200, "ok", '{"organization": {"slug": '), method="POST"),
    _get("health", "/api/health", Answer(200, "text", "OK")),
]  # fmt: skip
