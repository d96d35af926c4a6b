"""Metrics of runs: storing points, and reading them thinned, in buckets or as statistics.

A fork has its ancestors' points up to the steps of the forks. They are not copied: :func:`lineage`
gives the ancestors and the last step of each. A value that is not finite is stored, and read as ``None``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pluto_dist.server.db.database import Database
from pluto_dist.server.db.log_lines import MetricLine
from pluto_dist.server.settings import LARGEST_INTEGER

NAMES_LIMIT = 2000


@dataclass(frozen=True, slots=True)
class Point:
    """One logged number. ``time`` in milliseconds since 1970."""

    step: int
    time: int
    value: float | None


@dataclass(frozen=True, slots=True)
class MetricSeries:
    """The stored series that make up one metric of a run: ids, each with the last step that counts."""

    parts: tuple[tuple[int, int], ...]

    def condition(self, first: int = 0, last: int = LARGEST_INTEGER) -> tuple[str, tuple[int, ...]]:
        """The SQL condition on ``points`` for the steps from ``first`` to ``last``, and its parameters."""
        text = " OR ".join(["(series_id = ? AND step BETWEEN ? AND ?)"] * len(self.parts))
        return text, tuple(n for series_id, end in self.parts for n in (series_id, first, min(end, last)))


@dataclass(frozen=True, slots=True)
class Bucket:
    """Adjacent points: the bounds of their steps (or times) and of their values."""

    first: int
    last: int
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """Statistics of a metric's finite values. ``stddev`` is of the population."""

    count: int
    minimum: float
    maximum: float
    mean: float
    stddev: float
    first: Point
    last: Point


def store(database: Database, run: int, lines: Sequence[MetricLine]) -> int:
    """Store points; returns how many were sent. The caller opens the transaction."""
    ids: dict[str, int] = {}
    rows = []
    for line in lines:
        for name, value in line.values:
            if name not in ids:
                ids[name] = _series_id(database, run, name)
            rows.append((ids[name], line.step, line.time, value if math.isfinite(value) else str(value)))
    database.execute_many("INSERT OR IGNORE INTO points (series_id, step, time, value) VALUES (?, ?, ?, ?)", rows)
    return len(rows)


def lineage(database: Database, run: int) -> tuple[tuple[int, int], ...]:
    """The run and its ancestors, each with the last step whose points belong to the run."""
    found: list[tuple[int, int]] = []
    end = LARGEST_INTEGER
    current: int | None = run
    while current is not None and current not in [seen for seen, _ in found]:
        found.append((current, end))
        row = database.execute("SELECT forked_from, fork_step FROM runs WHERE id = ?", (current,)).fetchone()
        current = None if row is None else row["forked_from"]
        if current is not None:
            end = min(end, row["fork_step"] or 0)
    return tuple(found)


def series(database: Database, run: int, name: str | None = None) -> dict[str, MetricSeries]:
    """The run's metrics in the order of their names; only ``name`` if given."""
    parts: dict[str, list[tuple[int, int]]] = {}
    for ancestor, end in lineage(database, run):
        condition, values = ("", (ancestor,)) if name is None else (" AND name = ?", (ancestor, name))
        for row in database.execute(f"SELECT id, name FROM series WHERE run_id = ?{condition}", values).fetchall():
            parts.setdefault(row["name"], []).append((row["id"], end))
    return {each: MetricSeries(tuple(parts[each])) for each in sorted(parts)[:NAMES_LIMIT]}


def count(database: Database, metric: MetricSeries) -> int:
    """The number of points."""
    condition, values = metric.condition()
    return int(database.execute(f"SELECT count(*) FROM points WHERE {condition}", values).fetchone()[0])


def points(
    database: Database, metric: MetricSeries, limit: int, *, first: int = 0, last: int = LARGEST_INTEGER
) -> list[Point]:
    """A metric's points by step. More than ``limit`` are thinned evenly; the first and the last are kept."""
    condition, values = metric.condition(first, last)
    total = database.execute(f"SELECT count(*) FROM points WHERE {condition}", values).fetchone()[0]
    every = 1 if total <= limit else math.ceil(total / max(1, limit - 1))
    rows = database.execute(
        "SELECT step, time, value FROM (SELECT step, time, value, row_number() OVER (ORDER BY step, time) AS place "
        f"FROM points WHERE {condition}) WHERE (place - 1) % ? = 0 OR place = ? ORDER BY step, time LIMIT ?",
        (*values, every, total, limit),
    )
    return [_point(step, time, value) for step, time, value in rows.fetchall()]


def logged_points(
    database: Database, run: int, name: str, limit: int, *, first: int = 0, last: int = LARGEST_INTEGER
) -> list[tuple[int, int, float]]:
    """Step, time and value of the first ``limit`` points that the run itself logged, also of those not finite."""
    rows = database.execute(
        "SELECT step, time, value FROM points JOIN series ON series.id = points.series_id "
        "WHERE series.run_id = ? AND series.name = ? AND step BETWEEN ? AND ? ORDER BY step, time LIMIT ?",
        (run, name, first, last, limit),
    )
    return [(step, time, float(value)) for step, time, value in rows.fetchall()]


def buckets(database: Database, metric: MetricSeries, limit: int) -> tuple[str, list[Bucket]]:
    """The axis ("step" or "time") and a metric's finite values in at most ``limit`` buckets along it.

    The axis is time if all points have the same step, like the SDK's system metrics.
    """
    condition, values = metric.condition()
    finite = f"FROM points WHERE ({condition}) AND typeof(value) = 'real'"
    bounds = database.execute(f"SELECT min(step), max(step), min(time), max(time) {finite}", values).fetchone()
    if bounds[0] is None:
        return "step", []
    axis, low, high = ("step", bounds[0], bounds[1]) if bounds[1] > bounds[0] else ("time", bounds[2], bounds[3])
    rows = database.execute(
        f"SELECT min({axis}), max({axis}), min(value), max(value) {finite} "
        f"GROUP BY ({axis} - ?) * ? / ? ORDER BY min({axis})",
        (*values, low, limit, high - low + 1),
    )
    return axis, [Bucket(*row) for row in rows.fetchall()]


def summary(database: Database, metric: MetricSeries) -> MetricSummary | None:
    """Statistics of the metric; ``None`` if it has no finite value."""
    condition, values = metric.condition()
    finite = f"FROM points WHERE ({condition}) AND typeof(value) = 'real'"
    row = database.execute(f"SELECT count(*), min(value), max(value), avg(value) {finite}", values).fetchone()
    if not row[0]:
        return None
    number, minimum, maximum, mean = row
    variance = database.execute(f"SELECT avg((value - ?) * (value - ?)) {finite}", (mean, mean, *values)).fetchone()[0]
    ends = [
        Point(*database.execute(f"SELECT step, time, value {finite} ORDER BY {order} LIMIT 1", values).fetchone())
        for order in ("step, time", "step DESC, time DESC")
    ]
    return MetricSummary(number, minimum, maximum, mean, _root(variance), ends[0], ends[1])


def outliers(database: Database, metric: MetricSeries, low: float, high: float, limit: int) -> list[Point]:
    """The first finite points below ``low`` or above ``high``."""
    condition, values = metric.condition()
    rows = database.execute(
        f"SELECT step, time, value FROM points WHERE ({condition}) AND typeof(value) = 'real' "
        "AND (value < ? OR value > ?) ORDER BY step, time LIMIT ?",
        (*values, low, high, limit),
    )
    return [Point(*row) for row in rows.fetchall()]


def last_step(database: Database, run: int) -> int | None:
    """The highest step of the run's points; ``None`` if it has none."""
    found = []
    for series_id, end in (part for metric in series(database, run).values() for part in metric.parts):
        row = database.execute(
            "SELECT max(step) FROM points WHERE series_id = ? AND step <= ?", (series_id, end)
        ).fetchone()
        found.append(row[0])
    return max((step for step in found if step is not None), default=None)


def log_group(name: str) -> str:
    """The group of a log name: the part before the last slash.

    >>> log_group("train/loss/mean"), log_group("loss")
    ('train/loss', '')
    """
    return name.rpartition("/")[0]


def _series_id(database: Database, run: int, name: str) -> int:
    database.execute("INSERT INTO series (run_id, name) VALUES (?, ?) ON CONFLICT DO NOTHING", (run, name))
    row = database.execute("SELECT id FROM series WHERE run_id = ? AND name = ?", (run, name)).fetchone()
    return int(row[0])


def _point(step: int, time: int, value: float | str) -> Point:
    return Point(step, time, None if isinstance(value, str) else value)


def _root(variance: float | None) -> float:
    return math.sqrt(max(0.0, variance)) if variance is not None and math.isfinite(variance) else 0.0
