"""Queries of runs: by each of their ids, in lists, and with all details.

Nothing is written here. Queries with several statements run in one snapshot.
"""

from __future__ import annotations

import json
import sqlite3

from pluto_dist.server.db import display_id as display_ids
from pluto_dist.server.db import documents, logs
from pluto_dist.server.db.database import Database
from pluto_dist.server.db.records import (
    Attach,
    Project,
    RequestRejectedError,
    RunDetails,
    RunHeader,
    RunSummary,
    StatusChange,
)

ATTACHES_SHOWN = 1000
LARGEST_RUN_NUMBER = 2**31 - 1  # of the hosted tracker's column

_SELECT_HEADER = (
    "SELECT runs.id, runs.number, runs.project_id, projects.name, projects.prefix, runs.status, "
    "runs.forked_from, runs.fork_step FROM runs JOIN projects ON projects.id = runs.project_id "
    "WHERE projects.organization = ? AND "
)
_SELECT_SUMMARY = (
    "SELECT runs.id, runs.number, projects.prefix, runs.name, runs.external_id, runs.status, runs.tags, "
    "runs.created_at, runs.updated_at FROM runs JOIN projects ON projects.id = runs.project_id "
    "WHERE projects.organization = ? AND "
)
_NEWEST_FIRST = " ORDER BY runs.created_at DESC, runs.id DESC LIMIT ?"


def find_by_id(database: Database, organization: str, run: int) -> RunHeader | None:
    return _header(database.execute(_SELECT_HEADER + "runs.id = ?", (organization, run)))


def find_by_external_id(database: Database, organization: str, project: str, external_id: str) -> RunHeader | None:
    return _header(
        database.execute(
            _SELECT_HEADER + "projects.name = ? AND runs.external_id = ?", (organization, project, external_id)
        )
    )


def find_by_display_id(database: Database, organization: str, text: str, project: str | None) -> RunHeader:
    """The run with this display id, in ``project`` if given, else in all projects.

    Raises:
        RequestRejectedError: 400 if ``text`` is no display id, 404 if there is no such run, 409 if there are several.
    """
    parsed = display_ids.parse(text)
    if parsed is None:
        raise RequestRejectedError(400, "Invalid display ID format: a display id is a prefix and a number, as in MMP-1")
    prefix, number = parsed
    if number > LARGEST_RUN_NUMBER:
        raise RequestRejectedError(
            400, f"displayId is {text[:80]}; the number of a run is at most {LARGEST_RUN_NUMBER}"
        )
    statement = _SELECT_HEADER + "projects.prefix = ? AND runs.number = ?"
    values: tuple[object, ...] = (organization, prefix, number)
    if project is not None:
        statement, values = statement + " AND projects.name = ?", (*values, project)
    found = [RunHeader(*row) for row in database.execute(statement, values).fetchall()]
    if not found:
        raise RequestRejectedError(404, "Run not found")
    if len(found) > 1:
        projects = ", ".join(sorted(run.project for run in found))
        raise RequestRejectedError(
            409, f"{prefix}-{number} is a run in several projects ({projects}): set projectName, too"
        )
    return found[0]


def list_runs(database: Database, organization: str, project: str, limit: int) -> tuple[tuple[RunSummary, ...], int]:
    """The newest runs of a project, newest first, and the number of its runs."""
    with database.snapshot():
        rows = database.execute(_SELECT_SUMMARY + "projects.name = ?" + _NEWEST_FIRST, (organization, project, limit))
        runs = tuple(_summary(row) for row in rows.fetchall())
        count = database.execute(
            "SELECT count(*) FROM runs JOIN projects ON projects.id = runs.project_id "
            "WHERE projects.organization = ? AND projects.name = ?",
            (organization, project),
        ).fetchone()[0]
    return runs, count


def all_runs(database: Database, organization: str, project: str) -> tuple[RunSummary, ...]:
    """All runs of a project, newest first. The caller opens the snapshot."""
    rows = database.execute(_SELECT_SUMMARY + "projects.name = ?" + _NEWEST_FIRST, (organization, project, -1))
    return tuple(_summary(row) for row in rows.fetchall())


def ids_in_project(database: Database, organization: str, project: str) -> list[int]:
    """The ids of a project's runs, oldest first."""
    rows = database.execute(
        "SELECT runs.id FROM runs JOIN projects ON projects.id = runs.project_id "
        "WHERE projects.organization = ? AND projects.name = ? ORDER BY runs.id",
        (organization, project),
    )
    return [row[0] for row in rows.fetchall()]


def list_projects(database: Database, organization: str, runs: int) -> tuple[Project, ...]:
    """All projects with runs, the one with the newest run first; each with its newest ``runs`` runs."""
    with database.snapshot():
        rows = database.execute(
            "SELECT projects.name, projects.prefix, count(runs.id), projects.id, projects.created_at, "
            "max(runs.updated_at) FROM projects "
            "JOIN runs ON runs.project_id = projects.id WHERE projects.organization = ? "
            "GROUP BY projects.id ORDER BY max(runs.id) DESC",
            (organization,),
        ).fetchall()
        found = []
        for name, prefix, count, *more in rows:
            newest = database.execute(
                _SELECT_SUMMARY + "projects.name = ?" + _NEWEST_FIRST, (organization, name, runs)
            ).fetchall()
            found.append(Project(name, prefix, count, tuple(_summary(row) for row in newest), *more))
    return tuple(found)


def details(database: Database, organization: str, run: int) -> RunDetails | None:
    """All facts about a run, or ``None`` if the organization has no such run."""
    with database.snapshot():
        row = database.execute(
            "SELECT runs.*, projects.name AS project, projects.prefix FROM runs "
            "JOIN projects ON projects.id = runs.project_id WHERE projects.organization = ? AND runs.id = ?",
            (organization, run),
        ).fetchone()
        if row is None:
            return None
        history = _history(database, run)
        attaches = database.execute(
            "SELECT at, user_agent, outcome, fields FROM attaches WHERE run_id = ? ORDER BY id DESC LIMIT ?",
            (run, ATTACHES_SHOWN),
        ).fetchall()
        count = database.execute("SELECT count(*) FROM attaches WHERE run_id = ?", (run,)).fetchone()[0]
        names = logs.log_names(database, run)
    return RunDetails(
        summary=_summary(row),
        project=row["project"],
        config=documents.load(row["config"]),
        system_metadata=documents.load(row["system_metadata"]),
        logger_settings=documents.load(row["logger_settings"]),
        status_metadata=documents.load(row["status_metadata"]),
        status_updated=row["status_updated"],
        heartbeat_at=row["heartbeat_at"],
        forked_from=row["forked_from"],
        fork_step=row["fork_step"],
        notes=row["notes"],
        history=history,
        attaches=tuple(Attach(at, agent, outcome, tuple(fields.split())) for at, agent, outcome, fields in attaches)[
            ::-1
        ],
        attach_count=count,
        log_names=names,
    )


def _history(database: Database, run: int) -> tuple[StatusChange, ...]:
    rows = database.execute(
        "SELECT from_status, to_status, at, source, metadata, id FROM status_changes WHERE run_id = ? ORDER BY at, id",
        (run,),
    ).fetchall()
    return tuple(
        StatusChange(before, after, at, source, documents.load(metadata), number)
        for before, after, at, source, metadata, number in rows
    )


def _header(cursor: sqlite3.Cursor) -> RunHeader | None:
    row = cursor.fetchone()
    return RunHeader(*row) if row else None


def _summary(row: sqlite3.Row) -> RunSummary:
    return RunSummary(
        id=row["id"],
        number=row["number"],
        display_id=display_ids.display_id(row["prefix"], row["number"]),
        name=row["name"],
        external_id=row["external_id"],
        status=row["status"],
        tags=tuple(json.loads(row["tags"])),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
