"""The numbers a run logged: stored point by point, read as they are or summed up.

A fork has its parent's points up to the step of the fork, without a copy: its lineage says which of
its ancestors' points are its own. A value that is not finite is stored, and told as ``None``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pluto_dist.server.db.database import Database
from pluto_dist.server.db.log_lines import LARGEST, MetricLine

NAMES_LIMIT = 2000


@dataclass(frozen=True, slots=True)
class Point:
    """One logged number; the time in milliseconds since 1970."""

    step: int
    time: int
    value: float | None


@dataclass(frozen=True, slots=True)
class Spans:
    """Where one metric of a run lies: series, each up to a last step."""

    parts: tuple[tuple[int, int], ...]

    def where(self, first: int = 0, last: int = LARGEST) -> tuple[str, tuple[int, ...]]:
        """A condition on ``points``, and its values, for the steps from ``first`` to ``last``."""
        text = " OR ".join(["(series_id = ? AND step BETWEEN ? AND ?)"] * len(self.parts))
        return text, tuple(n for series, end in self.parts for n in (series, first, min(end, last)))


@dataclass(frozen=True, slots=True)
class Bucket:
    """Neighbouring points, summed up: from where to where they lie, and how low and high they are."""

    first: int
    last: int
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A metric's finite values in a few numbers. ``deviation`` is of the population."""

    count: int
    lowest: float
    highest: float
    mean: float
    deviation: float
    first: Point
    last: Point


def store(database: Database, run: int, lines: Sequence[MetricLine]) -> int:
    """Add the points to the run's and tell how many they were; must stand in a transaction."""
    ids: dict[str, int] = {}
    rows = []
    for line in lines:
        for name, value in line.values:
            if name not in ids:
                ids[name] = _series(database, run, name)
            rows.append((ids[name], line.step, line.time, value if math.isfinite(value) else str(value)))
    database.execute_many("INSERT OR IGNORE INTO points (series_id, step, time, value) VALUES (?, ?, ?, ?)", rows)
    return len(rows)


def lineage(database: Database, run: int) -> tuple[tuple[int, int], ...]:
    """The run and its ancestors, each with the last step that is still the run's."""
    found: list[tuple[int, int]] = []
    end = LARGEST
    current: int | None = run
    while current is not None and current not in [known for known, _ in found]:
        found.append((current, end))
        row = database.execute("SELECT forked_from, fork_step FROM runs WHERE id = ?", (current,)).fetchone()
        current = None if row is None else row["forked_from"]
        if current is not None:
            end = min(end, row["fork_step"] or 0)
    return tuple(found)


def spans(database: Database, run: int, name: str | None = None) -> dict[str, Spans]:
    """The run's metrics by name, in the names' order; only ``name`` if one is given."""
    parts: dict[str, list[tuple[int, int]]] = {}
    for ancestor, end in lineage(database, run):
        condition, values = ("", (ancestor,)) if name is None else (" AND name = ?", (ancestor, name))
        for row in database.execute(f"SELECT id, name FROM series WHERE run_id = ?{condition}", values).fetchall():
            parts.setdefault(row["name"], []).append((row["id"], end))
    return {each: Spans(tuple(parts[each])) for each in sorted(parts)[:NAMES_LIMIT]}


def count(database: Database, where: Spans) -> int:
    condition, values = where.where()
    return int(database.execute(f"SELECT count(*) FROM points WHERE {condition}", values).fetchone()[0])


def points(database: Database, where: Spans, limit: int, *, first: int = 0, last: int = LARGEST) -> list[Point]:
    """A metric's points by step. More than ``limit`` are thinned evenly; first and last stay."""
    condition, values = where.where(first, last)
    total = database.execute(f"SELECT count(*) FROM points WHERE {condition}", values).fetchone()[0]
    every = 1 if total <= limit else math.ceil(total / max(1, limit - 1))
    rows = database.execute(
        "SELECT step, time, value FROM (SELECT step, time, value, row_number() OVER (ORDER BY step, time) AS place "
        f"FROM points WHERE {condition}) WHERE (place - 1) % ? = 0 OR place = ? ORDER BY step, time LIMIT ?",
        (*values, every, total, limit),
    )
    return [_point(step, time, value) for step, time, value in rows.fetchall()]


def buckets(database: Database, where: Spans, limit: int) -> tuple[str, list[Bucket]]:
    """A metric's finite values in at most ``limit`` buckets, and whether they lie over ``step`` or ``time``.

    Time is what tells them apart when all were logged at one step, as the SDK's system metrics are.
    """
    condition, values = where.where()
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


def summary(database: Database, where: Spans) -> Summary | None:
    """The metric in a few numbers; ``None`` when it has no finite value."""
    condition, values = where.where()
    finite = f"FROM points WHERE ({condition}) AND typeof(value) = 'real'"
    row = database.execute(f"SELECT count(*), min(value), max(value), avg(value) {finite}", values).fetchone()
    if not row[0]:
        return None
    number, lowest, highest, mean = row
    spread = database.execute(f"SELECT avg((value - ?) * (value - ?)) {finite}", (mean, mean, *values)).fetchone()[0]
    ends = [
        Point(*database.execute(f"SELECT step, time, value {finite} ORDER BY {order} LIMIT 1", values).fetchone())
        for order in ("step, time", "step DESC, time DESC")
    ]
    return Summary(number, lowest, highest, mean, _root(spread), ends[0], ends[1])


def outside(database: Database, where: Spans, low: float, high: float, limit: int) -> list[Point]:
    """The first finite points below ``low`` or above ``high``."""
    condition, values = where.where()
    rows = database.execute(
        f"SELECT step, time, value FROM points WHERE ({condition}) AND typeof(value) = 'real' "
        "AND (value < ? OR value > ?) ORDER BY step, time LIMIT ?",
        (*values, low, high, limit),
    )
    return [Point(*row) for row in rows.fetchall()]


def last_step(database: Database, run: int) -> int | None:
    """The highest step that the run has a point at; ``None`` when it has none."""
    found = []
    for series, end in (part for each in spans(database, run).values() for part in each.parts):
        row = database.execute(
            "SELECT max(step) FROM points WHERE series_id = ? AND step <= ?", (series, end)
        ).fetchone()
        found.append(row[0])
    return max((step for step in found if step is not None), default=None)


def group_of(name: str) -> str:
    """What stands before the last slash of a name.

    >>> group_of("train/loss/mean"), group_of("loss")
    ('train/loss', '')
    """
    return name.rpartition("/")[0]


def _series(database: Database, run: int, name: str) -> int:
    database.execute("INSERT INTO series (run_id, name) VALUES (?, ?) ON CONFLICT DO NOTHING", (run, name))
    row = database.execute("SELECT id FROM series WHERE run_id = ? AND name = ?", (run, name)).fetchone()
    return int(row[0])


def _point(step: int, time: int, value: float | str) -> Point:
    return Point(step, time, None if isinstance(value, str) else value)


def _root(spread: float | None) -> float:
    return math.sqrt(max(0.0, spread)) if spread is not None and math.isfinite(spread) else 0.0
