"""What the rows read from and write to the embedded tracker's database.

The hosted tracker keeps one thing that the embedded one does not: cancels, which stay. They have a table of their own
in the same file, so they outlive a restart of the server.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pluto_dist.contract.run_requests import ResumeRunRequest
from pluto_dist.contract.validation import unstorable
from pluto_dist.server.db import run_queries
from pluto_dist.server.db.database import Database
from pluto_dist.server.db.display_id import parse
from pluto_dist.server.db.records import RequestRejectedError, now_ms

_TRIGGERS = "CREATE TABLE IF NOT EXISTS hosted_triggers (run_id INTEGER NOT NULL, created_at INTEGER NOT NULL)"


@dataclass(frozen=True)
class StoredRun:
    """A row of ``runs``. Times in milliseconds since 1970."""

    id: int
    status: str
    status_updated: int | None
    updated_at: int
    heartbeat_at: int | None
    config: Any
    system_metadata: Any
    logger_settings: Any


class Facts:
    """Reads and writes runs; used by one thread."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.at_limit = False
        database.execute(_TRIGGERS)

    def run(self, run: Any, organization: str | None = None) -> StoredRun | None:
        """The run with this id; with ``organization``, only if it is that organization's."""
        if not isinstance(run, (int, float)) or not -(2**63) < run < 2**63 or run != int(run):
            return None
        found = self.database.execute(
            "SELECT runs.*, projects.organization FROM runs JOIN projects ON projects.id = runs.project_id "
            "WHERE runs.id = ?",
            (int(run),),
        ).fetchone()
        if found is None or organization not in (None, found["organization"]):
            return None
        documents = [found[name] for name in ("config", "system_metadata", "logger_settings")]
        loaded = [None if text is None else json.loads(text) for text in documents]
        times = (found["status_updated"], found["updated_at"], found["heartbeat_at"])
        return StoredRun(found["id"], found["status"], *times, *loaded)

    def has_project(self, organization: str, name: str) -> bool:
        return bool(
            self.database.execute(
                "SELECT 1 FROM projects WHERE organization = ? AND name = ?", (organization, name)
            ).fetchone()
        )

    def named(self, organization: str, project: str, external_id: str | None) -> StoredRun | None:
        """The run with this external id."""
        if external_id is None or unstorable(external_id) or unstorable(project):
            return None
        found = run_queries.find_by_external_id(self.database, organization, project, external_id)
        return None if found is None else self.run(found.id)

    def resumed(self, organization: str, request: ResumeRunRequest) -> StoredRun | None:
        """The run that a valid request to ``/resume`` is about."""
        if request.run_id is not None:
            return self.run(request.run_id, organization)
        if request.display_id is not None and parse(request.display_id) is not None:
            try:
                project = request.project_name
                return self.run(
                    run_queries.find_by_display_id(self.database, organization, request.display_id, project).id
                )
            except RequestRejectedError:
                return None
        return self.named(organization, request.project_name or "", request.external_id)

    def set(self, run: int, **columns: Any) -> None:
        """Write columns of a run."""
        names = ", ".join(f"{name} = ?" for name in columns)
        self.database.execute(f"UPDATE runs SET {names} WHERE id = ?", (*columns.values(), run))

    def last_change(self) -> int:
        """The number of the newest change of any run's status."""
        return int(self.database.execute("SELECT ifnull(max(id), 0) FROM status_changes").fetchone()[0])

    def change_since(self, number: int, run: int) -> int | None:
        """The number of the change of this run's status after ``number``; ``None`` if there is none."""
        found = self.database.execute(
            "SELECT max(id) FROM status_changes WHERE id > ? AND run_id = ?", (number, run)
        ).fetchone()[0]
        return None if found is None else int(found)

    def add_change(self, run: int, before: str, after: str, at: int, source: str, metadata: Any) -> None:
        self.database.execute(
            "INSERT INTO status_changes (run_id, from_status, to_status, at, source, metadata) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (run, before, after, at, source, json.dumps(metadata)),
        )

    def changes_by(self, source: str) -> set[int]:
        """The numbers of the changes of status that ``source`` made."""
        rows = self.database.execute("SELECT id FROM status_changes WHERE source = ?", (source,))
        return {row[0] for row in rows.fetchall()}

    def burn_number(self, organization: str, project: str) -> None:
        self.database.execute(
            "UPDATE projects SET next_number = next_number + 1 WHERE organization = ? AND name = ?",
            (organization, project),
        )

    def cancel(self, run: int) -> None:
        """What the page's button does: a trigger that stays."""
        self.database.execute("INSERT INTO hosted_triggers VALUES (?, ?)", (run, now_ms()))

    def is_cancelled(self, run: int) -> bool:
        return bool(self.database.execute("SELECT 1 FROM hosted_triggers WHERE run_id = ?", (run,)).fetchone())
