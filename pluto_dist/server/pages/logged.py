"""What the run's page shows of all that the run logged: curves, last lines, files, data, alerts.

Each is bounded, and says how much there is beyond.
"""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from dataclasses import dataclass

from pluto_dist.server.db import files, logs, metrics
from pluto_dist.server.db.database import Database
from pluto_dist.server.db.files import StoredFile
from pluto_dist.server.db.log_lines import ConsoleLine, DataLine
from pluto_dist.server.db.logs import Alert
from pluto_dist.server.pages import charts
from pluto_dist.server.pages.charts import Chart

CHARTS, POINTS, LINES, FILES, DATA, ALERTS = 200, 500, 200, 500, 50, 50
DATA_TEXT = 4000
_SYSTEM = "sys"


@dataclass(frozen=True, slots=True)
class Group:
    """Charts whose names share what stands before the last slash. Those of the system start closed."""

    name: str
    charts: tuple[Chart, ...]
    is_system: bool


@dataclass(frozen=True, slots=True)
class Logged:
    """Everything of it. ``charts_more`` counts metrics beyond those that are drawn."""

    groups: tuple[Group, ...]
    charts_more: int
    lines: tuple[ConsoleLine, ...]
    lines_total: int
    files: tuple[StoredFile, ...]
    data: tuple[DataLine, ...]
    alerts: tuple[Alert, ...]


def logged(database: Database, run: int) -> Logged:
    with database.snapshot():
        found = metrics.spans(database, run)
        names = sorted(found, key=_order)
        drawn = [chart for name in names[:CHARTS] if (chart := _chart(database, name, found[name])) is not None]
        _, total = logs.console(database, run, type=None, limit=1, offset=0)
        return Logged(
            groups=tuple(_groups(drawn)),
            charts_more=max(0, len(names) - CHARTS),
            lines=tuple(logs.newest_console(database, run, LINES)),
            lines_total=total,
            files=tuple(files.uploaded(database, run, limit=FILES)),
            data=tuple(_latest(logs.data(database, run, None, 10 * DATA))),
            alerts=tuple(logs.alerts(database, run, ALERTS)),
        )


def _chart(database: Database, name: str, where: metrics.Spans) -> Chart | None:
    """The metric's curve of at most ``POINTS`` points: its own ones if they are few, else their bounds."""
    if metrics.count(database, where) > POINTS:
        axis, buckets = metrics.buckets(database, where, POINTS // 2)
        return charts.curve(name, axis, charts.through(buckets))
    points = metrics.points(database, where, POINTS)
    axis = "step" if len({point.step for point in points}) > 1 or len(points) == 1 else "time"
    places = [
        None if point.value is None else (point.step if axis == "step" else point.time, point.value) for point in points
    ]
    return charts.curve(name, axis, places)


def _groups(drawn: list[Chart]) -> list[Group]:
    return [
        Group(name, tuple(members), _is_system(name + "/"))
        for name, members in itertools.groupby(drawn, key=lambda chart: metrics.group_of(chart.name))
    ]


def _order(name: str) -> tuple[bool, str, str]:
    return _is_system(name), metrics.group_of(name), name


def _is_system(name: str) -> bool:
    return name.partition("/")[0] == _SYSTEM and "/" in name


def _latest(found: list[DataLine]) -> list[DataLine]:
    """The newest value of each name, as text of a bounded length."""
    newest = {each.name: each for each in found}
    return [DataLine(each.time, each.step, each.name, each.type, _pretty(each.data)) for each in newest.values()][:DATA]


def _pretty(text: str) -> str:
    with suppress(ValueError, RecursionError):  # a text value is no JSON, and shown as it is
        text = json.dumps(json.loads(text), ensure_ascii=False)
    return text if len(text) <= DATA_TEXT else text[:DATA_TEXT] + " …"
