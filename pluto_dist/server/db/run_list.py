"""Lists of a project's runs: search, tags, filter, sort and pages.

Filter and sort use documents and last metric values, so they are evaluated in Python, on the rows of
one snapshot, and not in SQL.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from pluto_dist.contract.validation import Json, parse_document
from pluto_dist.server.db import documents, filters, metrics, run_queries
from pluto_dist.server.db.database import Database
from pluto_dist.server.db.records import RunSummary, iso


@dataclass(frozen=True, slots=True)
class ListQuery:
    """The parameters of a list. ``filter`` is a parsed JSON document; ``sort`` a field, with ``-`` descending.

    A run matches ``tags`` if it has one of them, and ``statuses`` if its status is one of them.
    """

    limit: int
    offset: int = 0
    search: str = ""
    tags: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    filter: Json = None
    sort: str = ""

    @property
    def is_default(self) -> bool:
        """Whether nothing but ``limit`` is set."""
        return self == ListQuery(self.limit)


def select_runs(
    database: Database, organization: str, project: str, query: ListQuery
) -> tuple[tuple[RunSummary, ...], int]:
    """The runs of one page, newest first unless sorted, and the number of runs on all pages.

    Raises:
        FilterError: the filter or the sort has an unknown word.
    """
    if query.is_default:
        return run_queries.list_runs(database, organization, project, query.limit)
    with database.snapshot():
        found = _select(database, run_queries.all_runs(database, organization, project), query)
    return found[query.offset : query.offset + query.limit], len(found)


def parse_filter(text: str | None) -> Json:
    """The filter in a query string.

    Raises:
        FilterError: ``text`` is not JSON.
    """
    if text is None:
        return None
    try:
        return parse_document(text)
    except ValueError as error:
        raise filters.FilterError(f"filter is not JSON: {error}") from error


def _select(database: Database, found: tuple[RunSummary, ...], query: ListQuery) -> tuple[RunSummary, ...]:
    search = query.search.lower()
    selected = [
        run
        for run in found
        if search in run.name.lower()
        and (not query.tags or set(query.tags) & set(run.tags))
        and (not query.statuses or run.status in query.statuses)
    ]
    if query.filter is not None:
        selected = [
            run for run in selected if filters.matches(query.filter, _field(database, run), _metric(database, run))
        ]
    if query.sort:
        field = query.sort.lstrip("+-")
        keyed = [(filters.field_value(field, _field(database, run), _metric(database, run)), run) for run in selected]
        known = [pair for pair in keyed if pair[0] is not None]
        known.sort(key=lambda pair: _sort_key(pair[0]), reverse=query.sort.startswith("-"))
        selected = [run for _, run in known] + [run for value, run in keyed if value is None]
    return tuple(selected)


def _field(database: Database, run: RunSummary) -> filters.FieldLookup:
    def look_up(field: str) -> Json:
        if field == "config":
            return documents.load(_column(database, run.id, "config"))
        if field == "systemMetadata":
            return documents.load(_column(database, run.id, "system_metadata"))
        if field == "heartbeatAt":
            at = _column(database, run.id, "heartbeat_at")
            return None if at is None else iso(int(at))
        if field == "updatedAt":
            return iso(run.updated_at)
        return run.to_json()[field]

    return look_up


def _metric(database: Database, run: RunSummary) -> filters.MetricLookup:
    def last_value(name: str) -> float | None:
        metric = metrics.series(database, run.id, name).get(name)
        summary = None if metric is None else metrics.summary(database, metric)
        return None if summary is None else summary.last.value

    return last_value


def _column(database: Database, run: int, column: str) -> str | None:
    found: str | None = database.execute(f"SELECT {column} FROM runs WHERE id = ?", (run,)).fetchone()[0]
    return found


def _sort_key(value: Json) -> tuple[int, float, str]:
    """Orders numbers before strings before other values."""
    if isinstance(value, (int, float)):
        return 0, value, ""
    return (1, 0, value) if isinstance(value, str) else (2, 0, json.dumps(value, sort_keys=True))
