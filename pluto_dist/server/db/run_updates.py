"""Updates of runs: create, resume, fork, status, config, tags, heartbeat.

Each function is one transaction that holds the write lock from its first read on, which makes
concurrent requests of many ranks safe: one of them finds no run and creates it, the others find it; a
number is taken only by the transaction that creates the run; a merge reads what the previous one wrote.
"""

from __future__ import annotations

import dataclasses
import json
import math

from pluto_dist.contract import run_requests
from pluto_dist.contract.run_requests import CreateRunRequest, ResumeRunRequest, UpdateStatusRequest
from pluto_dist.contract.validation import Json, unstorable, unstorable_in
from pluto_dist.server.db import display_id, documents, metrics
from pluto_dist.server.db.database import Database
from pluto_dist.server.db.records import (
    RUNNING,
    AttachResult,
    ClientInfo,
    RequestRejectedError,
    RunHeader,
    allows_transition,
    has_ended,
    now_ms,
)
from pluto_dist.server.db.run_queries import find_by_display_id, find_by_external_id, find_by_id
from pluto_dist.server.settings import LARGEST_INTEGER

_INVALID_JSON = "Invalid JSON format in request body"


def create_run(database: Database, organization: str, request: CreateRunRequest, client: ClientInfo) -> AttachResult:
    """The run with the request's external id, or a new run.

    Raises:
        RequestRejectedError: 400 with the reason. Nothing is changed and no run number is taken.
    """
    _reject(run_requests.refusals(_checked_by_resume(request)))
    update = _document("config", request.config)
    with database.transaction():
        found = None
        if request.external_id is not None:
            found = find_by_external_id(database, organization, request.project_name, request.external_id)
        if found:
            if isinstance(update, dict):
                _merge_config(database, found.id, update)
            return AttachResult(_attach(database, found, "create", client), resumed=True)
        _reject(run_requests.refusals(request))
        created = _insert(database, organization, request, update)
        _record_status(database, created.id, None, RUNNING, source="create")
        _record_attach(database, created.id, client, "created")
        return AttachResult(created, resumed=False)


def resume_run(database: Database, organization: str, request: ResumeRunRequest, client: ClientInfo) -> AttachResult:
    """The run with the one id in ``request``; its status becomes RUNNING.

    Raises:
        RequestRejectedError: 400, 404 (no such run) or 409 (several projects have a run with this display id).
    """
    with database.transaction():
        run = _find(database, organization, request)
        return AttachResult(_attach(database, run, "resume", client), resumed=True)


def update_status(database: Database, organization: str, request: UpdateStatusRequest) -> None:
    """Set the status and the documents sent with it, unless the current status has a higher precedence.

    Raises:
        RequestRejectedError: 400 if a document is not JSON, 404 if there is no such run.
    """
    extra = {
        "status_metadata": _document("statusMetadata", request.status_metadata, "Invalid statusMetadata JSON"),
        "logger_settings": _document("loggerSettings", request.logger_settings, "Invalid loggerSettings JSON"),
    }
    at = request.status_updated
    if at is not None and at > run_requests.LATEST_MS:
        raise RequestRejectedError(400, f"statusUpdated is {at:.0f} ms, which is after the year 9999")
    with database.transaction():
        run = get_run(database, organization, request.run_id)
        if not allows_transition(run.status, request.status):
            return
        for column, value in extra.items():
            if value is not None:
                database.execute(f"UPDATE runs SET {column} = ? WHERE id = ?", (documents.dump(value), run.id))
        _set_status(database, run, request.status, "update", now_ms() if at is None else int(at))


def update_config(database: Database, organization: str, run_id: float, config: str | None) -> None:
    """Merge ``config`` into the run's config.

    Raises:
        RequestRejectedError: 400 if ``config`` is not JSON or cannot be stored, 404 if there is no such run.
    """
    _reject(tuple(f"config contains {bad}" for bad in sorted(unstorable_in(config))))
    update = _document("config", config, "Invalid config JSON")
    with database.transaction():
        _merge_config(database, get_run(database, organization, run_id).id, update)


def update_tags(database: Database, organization: str, run_id: float, tags: tuple[str, ...]) -> None:
    """Replace the run's tags.

    Raises:
        RequestRejectedError: 400 if the tags cannot be stored, 404 if there is no such run.
    """
    _reject(run_requests.refusals(CreateRunRequest(run_name="", project_name="", tags=tags)))
    with database.transaction():
        run = get_run(database, organization, run_id)
        database.execute("UPDATE runs SET tags = ?, updated_at = ? WHERE id = ?", (json.dumps(tags), now_ms(), run.id))


def heartbeat(database: Database, organization: str, run_id: float) -> str:
    """Record a heartbeat; returns the run's status.

    Raises:
        RequestRejectedError: 404 if there is no such run.
    """
    with database.transaction():
        run = get_run(database, organization, run_id)
        database.execute("UPDATE runs SET heartbeat_at = ? WHERE id = ?", (now_ms(), run.id))
        return run.status


def get_run(database: Database, organization: str, run_id: float) -> RunHeader:
    """The run with this id.

    Raises:
        RequestRejectedError: 400 if ``run_id`` is not an integer, 404 if the organization has no such run.
    """
    found = find_by_id(database, organization, _integer("runId", run_id))
    if found is None:
        raise RequestRejectedError(404, "Run not found")
    return found


def _checked_by_resume(request: CreateRunRequest) -> CreateRunRequest:
    """The fields that are checked if the run exists; the hosted tracker ignores the others then."""
    return CreateRunRequest("", request.project_name, request.external_id, request.tags, config=request.config)


def _reject(reasons: tuple[str, ...]) -> None:
    if reasons:
        raise RequestRejectedError(400, reasons[0])


def _document(name: str, text: str | None, message: str = _INVALID_JSON) -> Json:
    try:
        return documents.parse(text)
    except documents.DepthError as error:
        raise RequestRejectedError(400, f"{name} is {error}") from error
    except ValueError as error:
        raise RequestRejectedError(400, message) from error


def _integer(name: str, number: float) -> int:
    if not math.isfinite(number) or number != int(number):
        raise RequestRejectedError(400, f"{name} is {number}; it must be a whole number")
    return max(-LARGEST_INTEGER, min(LARGEST_INTEGER, int(number)))


def _find(database: Database, organization: str, request: ResumeRunRequest) -> RunHeader:
    for text in (request.display_id, request.external_id, request.project_name):
        if bad := unstorable(text or ""):
            raise RequestRejectedError(400, f"an id contains {bad}")
    if request.run_id is not None:
        return get_run(database, organization, request.run_id)
    if request.display_id is not None:
        return find_by_display_id(database, organization, request.display_id, request.project_name)
    if request.project_name is None:
        raise RequestRejectedError(400, "projectName is required when using externalId")
    found = find_by_external_id(database, organization, request.project_name, request.external_id or "")
    if found is None:
        raise RequestRejectedError(404, "Run not found")
    return found


def _insert(database: Database, organization: str, request: CreateRunRequest, config: Json) -> RunHeader:
    project, prefix, number = _next_number(database, organization, request.project_name)
    tags = request.tags or ()
    parent, step = _fork(database, organization, project, request)
    if parent is not None:
        row = database.execute("SELECT config, tags FROM runs WHERE id = ?", (request.fork_run_id,)).fetchone()
        if request.inherit_config is not False:
            config = documents.inherit_config(documents.load(row["config"]), config)
        if request.inherit_tags:
            tags = documents.inherit_tags(tuple(json.loads(row["tags"])), tags)
    now = now_ms()
    created = now if request.created_at is None else int(request.created_at)
    updated = now if request.updated_at is None else int(request.updated_at)
    values = {
        "project_id": project,
        "number": number,
        "external_id": request.external_id,
        "name": request.run_name,
        "status": RUNNING,
        "tags": json.dumps(tags),
        "config": documents.dump(config),
        "system_metadata": documents.dump(_document("systemMetadata", request.system_metadata)),
        "logger_settings": documents.dump(_document("loggerSettings", request.logger_settings)),
        "forked_from": parent,
        "fork_step": step,
        "created_at": created,
        "updated_at": updated,
    }
    placeholders = ", ".join("?" * len(values))
    cursor = database.execute(f"INSERT INTO runs ({', '.join(values)}) VALUES ({placeholders})", tuple(values.values()))
    run = int(cursor.lastrowid or 0)
    return RunHeader(run, number, project, request.project_name, prefix, RUNNING, parent, step)


def _next_number(database: Database, organization: str, name: str) -> tuple[int, str, int]:
    row = database.execute(
        "INSERT INTO projects (organization, name, prefix, created_at, next_number) VALUES (?, ?, ?, ?, 2) "
        "ON CONFLICT (organization, name) DO UPDATE SET next_number = next_number + 1 "
        "RETURNING id, prefix, next_number - 1",
        (organization, name, display_id.prefix_of(name), now_ms()),
    ).fetchall()[0]
    return row[0], row[1], row[2]


def _fork(
    database: Database, organization: str, project: int, request: CreateRunRequest
) -> tuple[int | None, int | None]:
    """Parent and step of the new run. A fork at a step that the parent inherited becomes a fork of the grandparent."""
    if not request.fork_run_id or request.fork_step is None:
        return None, None
    step = _integer("forkStep", request.fork_step)
    parent = find_by_id(database, organization, _integer("forkRunId", request.fork_run_id))
    if parent is None or parent.project_id != project:
        raise RequestRejectedError(400, "Fork parent run not found in this project")
    while parent.forked_from is not None and step <= (parent.fork_step or 0):
        grandparent = find_by_id(database, organization, parent.forked_from)
        if grandparent is None:
            break
        parent = grandparent
    last = metrics.last_step(database, parent.id)
    if last is not None and step > last:
        raise RequestRejectedError(400, f"forkStep ({step}) exceeds the parent run's max step ({last})")
    return parent.id, step


def _merge_config(database: Database, run: int, update: Json) -> None:
    stored = documents.load(database.execute("SELECT config FROM runs WHERE id = ?", (run,)).fetchone()[0])
    merged = documents.merge(stored, update)
    if merged != stored:
        database.execute(
            "UPDATE runs SET config = ?, updated_at = ? WHERE id = ?", (documents.dump(merged), now_ms(), run)
        )


def _attach(database: Database, run: RunHeader, source: str, client: ClientInfo) -> RunHeader:
    """Record the request; a run that has ended is RUNNING again."""
    _record_attach(database, run.id, client, "resumed")
    if has_ended(run.status):
        _set_status(database, run, RUNNING, source, now_ms())
        return dataclasses.replace(run, status=RUNNING)
    return run


def _set_status(database: Database, run: RunHeader, status: str, source: str, at: int) -> None:
    if run.status == status:
        return
    database.execute(
        "UPDATE runs SET status = ?, status_updated = ?, updated_at = ? WHERE id = ?",
        (status, at, now_ms(), run.id),
    )
    _record_status(database, run.id, run.status, status, source=source, at=at)


def _record_status(
    database: Database, run: int, before: str | None, after: str, *, source: str, at: int | None = None
) -> None:
    database.execute(
        "INSERT INTO status_changes (run_id, from_status, to_status, at, source) VALUES (?, ?, ?, ?, ?)",
        (run, before, after, now_ms() if at is None else at, source),
    )


def _record_attach(database: Database, run: int, client: ClientInfo, outcome: str) -> None:
    database.execute(
        "INSERT INTO attaches (run_id, at, user_agent, outcome, fields) VALUES (?, ?, ?, ?, ?)",
        (run, now_ms(), client.user_agent, outcome, " ".join(client.fields)),
    )
