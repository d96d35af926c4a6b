"""Updates of runs: create, resume, fork, status, config, tags, heartbeat.

Each function is one transaction that holds the write lock from its first read on, which makes
concurrent requests of many ranks safe: one of them finds no run and creates it, the others find it; a
number is taken only by the transaction that creates the run; a merge reads what the previous one wrote.
"""

from __future__ import annotations

import dataclasses
import json

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
    StatusChange,
    allows_transition,
    has_ended,
    now_ms,
)
from pluto_dist.server.db.run_queries import find_by_display_id, find_by_external_id, find_by_id

_INVALID_JSON = "Invalid JSON format in request body"
_LARGEST_ID = 2**63 - 1


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
                _write_config(database, found.id, documents.merge(_stored(database, found.id, "config"), update))
            return AttachResult(_attach(database, found, "create", client), resumed=True)
        _reject(run_requests.refusals(request))
        created = _insert(database, organization, request, update)
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


def update_status(
    database: Database, organization: str, request: UpdateStatusRequest, *, clears_metadata: bool = False
) -> None:
    """Set the status and the documents sent with it, unless the current status has a higher precedence.

    Args:
        database: the tracker's.
        organization: of the key.
        request: without ``status_metadata``, the stored one stays.
        clears_metadata: whether the request has a null there.

    Raises:
        RequestRejectedError: 404 if there is no such run, 400 if a document or the time cannot be stored.
    """
    with database.transaction():
        run = get_run(database, organization, request.run_id)
        settings = _status_document("loggerSettings", request.logger_settings)
        metadata = _status_document("statusMetadata", request.status_metadata)
        at = request.status_updated
        if at is not None and at > run_requests.LATEST_MS:
            raise RequestRejectedError(400, f"statusUpdated is {at:.0f} ms, which is after the year 9999")
        if not allows_transition(run.status, request.status):
            return
        if settings is not None:
            merged = documents.merge(_stored(database, run.id, "logger_settings"), settings)
            database.execute(
                "UPDATE runs SET logger_settings = ? WHERE id = ?", (documents.dump(merged or None), run.id)
            )
        if request.status_metadata or clears_metadata:
            database.execute("UPDATE runs SET status_metadata = ? WHERE id = ?", (documents.dump(metadata), run.id))
        _set_status(database, run, request.status, "update", None if at is None else int(at), metadata)


def update_config(database: Database, organization: str, run_id: float, config: str) -> None:
    """Merge ``config`` into the run's config; an empty result is stored as none.

    Raises:
        RequestRejectedError: 404 if there is no such run, 400 if ``config`` is no JSON object or cannot be stored.
    """
    with database.transaction():
        run = get_run(database, organization, run_id).id
        update = _document("config", config, "Invalid config JSON")
        if update is not None and not isinstance(update, dict):
            raise RequestRejectedError(400, "Invalid config JSON: expected an object")
        _reject(tuple(f"config contains {bad}" for bad in sorted(unstorable_in(config))))
        stored = _stored(database, run, "config")
        merged = stored if update is None else documents.merge(stored, update)
        _write_config(database, run, merged if isinstance(merged, (dict, list, str)) and merged else None)


def update_notes(database: Database, organization: str, run_id: float, notes: str | None) -> None:
    """Replace the run's notes; an empty text and ``None`` remove them.

    Raises:
        RequestRejectedError: 404 if there is no such run, 400 if the notes cannot be stored.
    """
    if bad := unstorable(notes or ""):
        raise RequestRejectedError(400, f"notes contains {bad}")
    with database.transaction():
        run = get_run(database, organization, run_id)
        database.execute("UPDATE runs SET notes = ?, updated_at = ? WHERE id = ?", (notes or None, now_ms(), run.id))


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


def _status_document(name: str, text: str | None) -> Json:
    found = _document(name, text, f"Invalid {name} JSON")
    _reject(tuple(f"{name} contains {bad}" for bad in sorted(unstorable_in(text))))
    return found


def _integer(name: str, number: float) -> int:
    if isinstance(number, float) and not number.is_integer():  # so are NaN and infinity
        raise RequestRejectedError(400, f"{name} is {number}; it must be a whole number")
    if abs(number) > _LARGEST_ID:
        raise RequestRejectedError(
            400, f"{name} is {str(number)[:40]}; the largest number that can be stored is 2**63-1"
        )
    return int(number)


def _find(database: Database, organization: str, request: ResumeRunRequest) -> RunHeader:
    for text in (request.display_id, request.external_id, request.project_name):
        if bad := unstorable(text or ""):
            raise RequestRejectedError(400, f"an id contains {bad}")
    if request.run_id is not None:
        return get_run(database, organization, request.run_id)
    if request.display_id is not None:
        return find_by_display_id(database, organization, request.display_id, request.project_name or None)
    if not request.project_name:
        raise RequestRejectedError(400, "projectName is required when using externalId")
    found = find_by_external_id(database, organization, request.project_name, request.external_id or "")
    if found is None:
        raise RequestRejectedError(404, "Run not found")
    return found


def _insert(database: Database, organization: str, request: CreateRunRequest, config: Json) -> RunHeader:
    now = now_ms()
    created = now if request.created_at is None else int(request.created_at)
    project, prefix, number = _next_number(database, organization, request.project_name, created)
    tags = request.tags or ()
    parent, step = _fork(database, organization, project, request)
    if parent is not None:
        row = database.execute("SELECT config, tags FROM runs WHERE id = ?", (request.fork_run_id,)).fetchone()
        if request.inherit_config is not False:
            config = documents.inherit_config(documents.load(row["config"]), config)
        if request.inherit_tags:
            tags = documents.inherit_tags(tuple(json.loads(row["tags"])), tags)
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
    _record_status(database, run, StatusChange(None, RUNNING, created, "create"))
    return RunHeader(run, number, project, request.project_name, prefix, RUNNING, parent, step)


def _next_number(database: Database, organization: str, name: str, created: int) -> tuple[int, str, int]:
    row = database.execute(
        "INSERT INTO projects (organization, name, prefix, created_at, next_number) VALUES (?, ?, ?, ?, 2) "
        "ON CONFLICT (organization, name) DO UPDATE SET next_number = next_number + 1 "
        "RETURNING id, prefix, next_number - 1",
        (organization, name, display_id.prefix_of(name), created),
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


def _stored(database: Database, run: int, column: str) -> Json:
    return documents.load(database.execute(f"SELECT {column} FROM runs WHERE id = ?", (run,)).fetchone()[0])


def _write_config(database: Database, run: int, config: Json) -> None:
    database.execute("UPDATE runs SET config = ?, updated_at = ? WHERE id = ?", (documents.dump(config), now_ms(), run))


def _attach(database: Database, run: RunHeader, source: str, client: ClientInfo) -> RunHeader:
    """Record the request; a run that has ended is RUNNING again."""
    _record_attach(database, run.id, client, "resumed")
    if has_ended(run.status):
        _set_status(database, run, RUNNING, source)
        return dataclasses.replace(run, status=RUNNING)
    return run


def _set_status(
    database: Database, run: RunHeader, status: str, source: str, at: int | None = None, metadata: Json = None
) -> None:
    """Set the status; ``at`` is when it changed, by default now.

    As on the hosted tracker: an end that is sent again keeps its time unless it brings another, RUNNING that is sent
    again gets a new one, and neither is a change of status. ``updated_at`` comes after ``status_updated``: there the
    row is written some milliseconds later.
    """
    now = now_ms()
    if at is None and (run.status != status or status == RUNNING):
        at = now
    database.execute(
        "UPDATE runs SET status = ?, status_updated = coalesce(?, status_updated), updated_at = ? WHERE id = ?",
        (status, at, now + 1, run.id),
    )
    if run.status != status:
        change = StatusChange(run.status, status, now if at is None else at, source, metadata)
        _record_status(database, run.id, change)


def _record_status(database: Database, run: int, change: StatusChange) -> None:
    database.execute(
        "INSERT INTO status_changes (run_id, from_status, to_status, at, source, metadata) VALUES (?, ?, ?, ?, ?, ?)",
        (run, change.before, change.after, change.at, change.source, documents.dump(change.metadata)),
    )


def _record_attach(database: Database, run: int, client: ClientInfo, outcome: str) -> None:
    database.execute(
        "INSERT INTO attaches (run_id, at, user_agent, outcome, fields) VALUES (?, ?, ?, ?, ?)",
        (run, now_ms(), client.user_agent, outcome, " ".join(client.fields)),
    )
