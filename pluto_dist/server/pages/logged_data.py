"""The logged values on a run's page: charts, the latest console lines, files, data, alerts.

Each list is limited.
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

CHARTS, POINTS, LINES, FILES, DATA, ALERTS = 200, 500, 200, 500, 50, 50  # most of each on the page
DATA_TEXT = 4000  # characters of a value
_SYSTEM = "sys"


@dataclass(frozen=True, slots=True)
class ChartGroup:
    """Charts of one log group. Groups of system metrics are collapsed at first."""

    name: str
    charts: tuple[Chart, ...]
    is_system: bool


@dataclass(frozen=True, slots=True)
class LoggedData:
    """Logged values of a run. ``charts_more`` and ``lines_total`` count those beyond the limits."""

    groups: tuple[ChartGroup, ...]
    charts_more: int
    lines: tuple[ConsoleLine, ...]
    lines_total: int
    files: tuple[StoredFile, ...]
    data: tuple[DataLine, ...]
    alerts: tuple[Alert, ...]


def load_logged_data(database: Database, run: int) -> LoggedData:
    """Read the logged values of a run in one snapshot."""
    with database.snapshot():
        found = metrics.series(database, run)
        names = sorted(found, key=_sort_key)
        drawn = [chart for name in names[:CHARTS] if (chart := _chart(database, name, found[name])) is not None]
        _, total = logs.read_console(database, run, type=None, limit=1, offset=0)
        return LoggedData(
            groups=tuple(_groups(drawn)),
            charts_more=max(0, len(names) - CHARTS),
            lines=tuple(logs.latest_console(database, run, LINES)),
            lines_total=total,
            files=tuple(files.list_uploaded(database, run, limit=FILES)),
            data=tuple(_latest(logs.read_data(database, run, None, 10 * DATA))),
            alerts=tuple(logs.alerts(database, run, ALERTS)),
        )


def _chart(database: Database, name: str, metric: metrics.MetricSeries) -> Chart | None:
    """The metric's chart of at most ``POINTS`` points: its own points, or the bounds of buckets of them."""
    if metrics.count(database, metric) > POINTS:
        axis, buckets = metrics.buckets(database, metric, POINTS // 2)
        return charts.line_chart(name, axis, charts.bucket_line(buckets))
    points = metrics.points(database, metric, POINTS)
    axis = "step" if len({point.step for point in points}) > 1 or len(points) == 1 else "time"
    coordinates = [
        None if point.value is None else (point.step if axis == "step" else point.time, point.value) for point in points
    ]
    return charts.line_chart(name, axis, coordinates)


def _groups(drawn: list[Chart]) -> list[ChartGroup]:
    return [
        ChartGroup(name, tuple(members), _is_system(name + "/"))
        for name, members in itertools.groupby(drawn, key=lambda chart: metrics.log_group(chart.name))
    ]


def _sort_key(name: str) -> tuple[bool, str, str]:
    return _is_system(name), metrics.log_group(name), name


def _is_system(name: str) -> bool:
    return name.partition("/")[0] == _SYSTEM and "/" in name


def _latest(found: list[DataLine]) -> list[DataLine]:
    """The latest value of each log name, as text of a limited length."""
    newest = {each.name: each for each in found}
    return [DataLine(each.time, each.step, each.name, each.type, _pretty(each.data)) for each in newest.values()][:DATA]


def _pretty(text: str) -> str:
    with suppress(ValueError, RecursionError):  # a text value need not be JSON
        text = json.dumps(json.loads(text), ensure_ascii=False)
    return text if len(text) <= DATA_TEXT else text[:DATA_TEXT] + " …"
