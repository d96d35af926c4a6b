"""What is done to runs: create, resume, fork, status, config, heartbeat.

Each function is one transaction that holds the write lock from its first read on. That is the whole
answer to ranks that race: one of them finds no run and makes it, the others find it; a number is
taken only by the transaction that makes the run; a merge reads what the merge before it wrote.
Requests come in as records of ``wire``; HTTP is not known here.
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
from pluto_dist.server.db.records import RUNNING, Head, Landed, RefusalError, Visitor, accepts, has_ended, now_ms
from pluto_dist.server.db.run_queries import find_by_display_id, find_by_external_id, find_by_id

_INVALID_JSON = "Invalid JSON format in request body"
_LARGEST_ID = 2**53


def create_run(database: Database, organization: str, request: CreateRunRequest, visitor: Visitor) -> Landed:
    """The run that ``request`` names, made if it does not exist.

    Raises:
        RefusalError: 400 with what is wrong; nothing was changed and no run number taken.
    """
    _refuse(run_requests.refusals(_seen_by_resume(request)))
    update = _document("config", request.config)
    with database.transaction():
        found = None
        if request.external_id is not None:
            found = find_by_external_id(database, organization, request.project_name, request.external_id)
        if found:
            if isinstance(update, dict):
                _merge_config(database, found.id, update)
            return Landed(_attach(database, found, "create", visitor), resumed=True)
        _refuse(run_requests.refusals(request))
        made = _insert(database, organization, request, update)
        _note_status(database, made.id, None, RUNNING, source="create")
        _note_attach(database, made.id, visitor, "created")
        return Landed(made, resumed=False)


def resume_run(database: Database, organization: str, request: ResumeRunRequest, visitor: Visitor) -> Landed:
    """The existing run that ``request`` names by exactly one of its ids, running again.

    Raises:
        RefusalError: 400, 404 (no such run) or 409 (a display id that several projects have).
    """
    with database.transaction():
        run = _named_by(database, organization, request)
        return Landed(_attach(database, run, "resume", visitor), resumed=True)


def update_status(database: Database, organization: str, request: UpdateStatusRequest) -> None:
    """Take over a status and what came with it, unless a graver end is already recorded.

    Raises:
        RefusalError: 400 for a document that is not JSON, 404 for an unknown run.
    """
    extra = {
        "status_metadata": _document("statusMetadata", request.status_metadata, "Invalid statusMetadata JSON"),
        "logger_settings": _document("loggerSettings", request.logger_settings, "Invalid loggerSettings JSON"),
    }
    at = request.status_updated
    if at is not None and at > run_requests.LATEST_MS:
        raise RefusalError(400, f"statusUpdated is {at:.0f} ms, which is after the year 9999")
    with database.transaction():
        run = existing(database, organization, request.run_id)
        if not accepts(run.status, request.status):
            return
        for column, value in extra.items():
            if value is not None:
                database.execute(f"UPDATE runs SET {column} = ? WHERE id = ?", (documents.dump(value), run.id))
        _set_status(database, run, request.status, "update", now_ms() if at is None else int(at))


def update_config(database: Database, organization: str, run_id: float, config: str | None) -> None:
    """Merge ``config`` into the run's.

    Raises:
        RefusalError: 400 for text that is not JSON or cannot be stored, 404 for an unknown run.
    """
    _refuse(tuple(f"config contains {bad}" for bad in sorted(unstorable_in(config))))
    update = _document("config", config, "Invalid config JSON")
    with database.transaction():
        _merge_config(database, existing(database, organization, run_id).id, update)


def update_tags(database: Database, organization: str, run_id: float, tags: tuple[str, ...]) -> None:
    """Give the run these tags in place of those it has.

    Raises:
        RefusalError: 400 for tags that cannot be stored, 404 for an unknown run.
    """
    _refuse(run_requests.refusals(CreateRunRequest(run_name="", project_name="", tags=tags)))
    with database.transaction():
        run = existing(database, organization, run_id)
        database.execute("UPDATE runs SET tags = ?, updated_at = ? WHERE id = ?", (json.dumps(tags), now_ms(), run.id))


def heartbeat(database: Database, organization: str, run_id: float) -> str:
    """Note a sign of life and tell the run's status.

    Raises:
        RefusalError: 404 for an unknown run.
    """
    with database.transaction():
        run = existing(database, organization, run_id)
        database.execute("UPDATE runs SET heartbeat_at = ? WHERE id = ?", (now_ms(), run.id))
        return run.status


def existing(database: Database, organization: str, run_id: float) -> Head:
    """The run with this number.

    Raises:
        RefusalError: 400 for a fraction, 404 for an unknown run or another organization's.
    """
    found = find_by_id(database, organization, _whole("runId", run_id))
    if found is None:
        raise RefusalError(404, "Run not found")
    return found


def _seen_by_resume(request: CreateRunRequest) -> CreateRunRequest:
    """The part of a create that counts when the run exists: the hosted server never looks at the rest."""
    return CreateRunRequest("", request.project_name, request.external_id, request.tags, config=request.config)


def _refuse(reasons: tuple[str, ...]) -> None:
    if reasons:
        raise RefusalError(400, reasons[0])


def _document(name: str, text: str | None, message: str = _INVALID_JSON) -> Json:
    try:
        return documents.read(text)
    except documents.DepthError as error:
        raise RefusalError(400, f"{name} is {error}") from error
    except ValueError as error:
        raise RefusalError(400, message) from error


def _whole(name: str, number: float) -> int:
    if not math.isfinite(number) or number != int(number):
        raise RefusalError(400, f"{name} is {number}; it must be a whole number")
    return max(-_LARGEST_ID, min(_LARGEST_ID, int(number)))


def _named_by(database: Database, organization: str, request: ResumeRunRequest) -> Head:
    for text in (request.display_id, request.external_id, request.project_name):
        if bad := unstorable(text or ""):
            raise RefusalError(400, f"an id contains {bad}")
    if request.run_id is not None:
        return existing(database, organization, request.run_id)
    if request.display_id is not None:
        return find_by_display_id(database, organization, request.display_id, request.project_name)
    if request.project_name is None:
        raise RefusalError(400, "projectName is required when using externalId")
    found = find_by_external_id(database, organization, request.project_name, request.external_id or "")
    if found is None:
        raise RefusalError(404, "Run not found")
    return found


def _insert(database: Database, organization: str, request: CreateRunRequest, config: Json) -> Head:
    project, prefix, number = _next_number(database, organization, request.project_name)
    tags = request.tags or ()
    parent, step = _fork(database, organization, project, request)
    if parent is not None:
        row = database.execute("SELECT config, tags FROM runs WHERE id = ?", (request.fork_run_id,)).fetchone()
        if request.inherit_config is not False:
            config = documents.inherited(documents.load(row["config"]), config)
        if request.inherit_tags:
            tags = documents.inherited_tags(tuple(json.loads(row["tags"])), tags)
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
    marks = ", ".join("?" * len(values))
    cursor = database.execute(f"INSERT INTO runs ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))
    run = int(cursor.lastrowid or 0)
    return Head(run, number, project, request.project_name, prefix, RUNNING, parent, step)


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
    """Parent and step of the new run. A step that the parent itself inherited belongs to its parent."""
    if not request.fork_run_id or request.fork_step is None:
        return None, None
    step = _whole("forkStep", request.fork_step)
    parent = find_by_id(database, organization, _whole("forkRunId", request.fork_run_id))
    if parent is None or parent.project_id != project:
        raise RefusalError(400, "Fork parent run not found in this project")
    while parent.forked_from is not None and step <= (parent.fork_step or 0):
        older = find_by_id(database, organization, parent.forked_from)
        if older is None:
            break
        parent = older
    last = metrics.last_step(database, parent.id)
    if last is not None and step > last:
        raise RefusalError(400, f"forkStep ({step}) exceeds the parent run's max step ({last})")
    return parent.id, step


def _merge_config(database: Database, run: int, update: Json) -> None:
    stored = documents.load(database.execute("SELECT config FROM runs WHERE id = ?", (run,)).fetchone()[0])
    merged = documents.merged(stored, update)
    if merged != stored:
        database.execute(
            "UPDATE runs SET config = ?, updated_at = ? WHERE id = ?", (documents.dump(merged), now_ms(), run)
        )


def _attach(database: Database, run: Head, source: str, visitor: Visitor) -> Head:
    """Note who came; a run that had ended runs again."""
    _note_attach(database, run.id, visitor, "resumed")
    if has_ended(run.status):
        _set_status(database, run, RUNNING, source, now_ms())
        return dataclasses.replace(run, status=RUNNING)
    return run


def _set_status(database: Database, run: Head, status: str, source: str, at: int) -> None:
    if run.status == status:
        return
    database.execute(
        "UPDATE runs SET status = ?, status_updated = ?, updated_at = ? WHERE id = ?",
        (status, at, now_ms(), run.id),
    )
    _note_status(database, run.id, run.status, status, source=source, at=at)


def _note_status(
    database: Database, run: int, before: str | None, after: str, *, source: str, at: int | None = None
) -> None:
    database.execute(
        "INSERT INTO status_changes (run_id, from_status, to_status, at, source) VALUES (?, ?, ?, ?, ?)",
        (run, before, after, now_ms() if at is None else at, source),
    )


def _note_attach(database: Database, run: int, visitor: Visitor, outcome: str) -> None:
    database.execute(
        "INSERT INTO attaches (run_id, at, user_agent, outcome, fields) VALUES (?, ?, ?, ?, ?)",
        (run, now_ms(), visitor.user_agent, outcome, " ".join(visitor.fields)),
    )
