"""Which runs of a project a query lists, and in which order.

Search, tags, filter and sort look at documents and at last values, so they are decided here and not in
SQL, on the rows of one snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from pluto_dist.contract.validation import Json, parse_document
from pluto_dist.server.db import documents, filters, metrics, run_queries
from pluto_dist.server.db.database import Database
from pluto_dist.server.db.records import Summary, iso


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a query asks for. ``filter`` is a parsed JSON document; ``sort`` a field, after ``-`` descending."""

    limit: int
    offset: int = 0
    search: str = ""
    tags: tuple[str, ...] = ()
    filter: Json = None
    sort: str = ""

    @property
    def is_plain(self) -> bool:
        return not (self.offset or self.search or self.tags or self.filter is not None or self.sort)


@dataclass(frozen=True, slots=True)
class Listed:
    """A run in a list, with its config."""

    summary: Summary
    config: Json


def runs(database: Database, organization: str, project: str, wanted: Wanted) -> tuple[list[Listed], int]:
    """The runs that are asked for, the newest first unless a sort is, and how many there are without the limit.

    Raises:
        FilterError: the filter or the sort has an unknown word.
    """
    if wanted.is_plain:
        found, total = run_queries.list_runs(database, organization, project, wanted.limit)
    else:
        with database.snapshot():
            found = _chosen(database, run_queries.all_runs(database, organization, project), wanted)
        total = len(found)
        found = found[wanted.offset : wanted.offset + wanted.limit]
    return [Listed(run, documents.load(_column(database, run.id, "config"))) for run in found], total


def parsed(text: str | None) -> Json:
    """The filter that a query string carries.

    Raises:
        FilterError: it is not JSON.
    """
    if text is None:
        return None
    try:
        return parse_document(text)
    except ValueError as error:
        raise filters.FilterError(f"filter is not JSON: {error}") from error


def _chosen(database: Database, found: tuple[Summary, ...], wanted: Wanted) -> tuple[Summary, ...]:
    search = wanted.search.lower()
    kept = [run for run in found if search in run.name.lower() and set(wanted.tags) <= set(run.tags)]
    if wanted.filter is not None:
        kept = [run for run in kept if filters.holds(wanted.filter, _fact(database, run), _metric(database, run))]
    if wanted.sort:
        field = wanted.sort.lstrip("+-")
        keyed = [(filters.value_of(field, _fact(database, run), _metric(database, run)), run) for run in kept]
        known = [pair for pair in keyed if pair[0] is not None]
        known.sort(key=lambda pair: _rank(pair[0]), reverse=wanted.sort.startswith("-"))
        kept = [run for _, run in known] + [run for value, run in keyed if value is None]
    return tuple(kept)


def _fact(database: Database, run: Summary) -> filters.Fact:
    def tell(field: str) -> Json:
        if field == "config":
            return documents.load(_column(database, run.id, "config"))
        if field == "systemMetadata":
            return documents.load(_column(database, run.id, "system_metadata"))
        if field == "heartbeatAt":
            at = _column(database, run.id, "heartbeat_at")
            return None if at is None else iso(int(at))
        return run.to_json()[field]

    return tell


def _metric(database: Database, run: Summary) -> Callable[[str], float | None]:
    def last(name: str) -> float | None:
        where = metrics.spans(database, run.id, name).get(name)
        summary = None if where is None else metrics.summary(database, where)
        return None if summary is None else summary.last.value

    return last


def _column(database: Database, run: int, column: str) -> str | None:
    found: str | None = database.execute(f"SELECT {column} FROM runs WHERE id = ?", (run,)).fetchone()[0]
    return found


def _rank(value: Json) -> tuple[int, float, str]:
    """Numbers before texts before anything else."""
    if isinstance(value, (int, float)):
        return 0, value, ""
    return (1, 0, value) if isinstance(value, str) else (2, 0, json.dumps(value, sort_keys=True))
