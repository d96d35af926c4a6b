"""Logged values other than metrics: console lines, structured data, log names, alerts, the model graph.

Console lines and data are stored once if a batch arrives twice. The caller of a function that writes
opens the transaction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pluto_dist.contract.validation import Json
from pluto_dist.server.db.database import Database
from pluto_dist.server.db.log_lines import ConsoleLine, DataLine
from pluto_dist.server.db.records import LogName

LOG_NAMES_SHOWN = 1000  # as on the hosted tracker


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert of a run. ``at`` in milliseconds since 1970."""

    at: int
    level: str
    title: str
    body: str


def store_console(database: Database, run: int, lines: Sequence[ConsoleLine]) -> int:
    database.execute_many(
        "INSERT OR IGNORE INTO log_lines (run_id, time, number, type, message) VALUES (?, ?, ?, ?, ?)",
        [(run, line.time, line.number, line.type, line.message) for line in lines],
    )
    return len(lines)


def read_console(
    database: Database, run: int, *, type: str | None, limit: int, offset: int
) -> tuple[list[ConsoleLine], int]:
    """Console lines by time, optionally of one type, and their number without the limit."""
    condition, values = ("run_id = ?", (run,)) if type is None else ("run_id = ? AND type = ?", (run, type))
    total = database.execute(f"SELECT count(*) FROM log_lines WHERE {condition}", values).fetchone()[0]
    rows = database.execute(
        f"SELECT time, number, type, message FROM log_lines WHERE {condition} ORDER BY time, number LIMIT ? OFFSET ?",
        (*values, limit, offset),
    )
    return [ConsoleLine(*row) for row in rows.fetchall()], total


def latest_console(database: Database, run: int, limit: int) -> list[ConsoleLine]:
    """The latest lines, oldest first."""
    rows = database.execute(
        "SELECT time, number, type, message FROM log_lines WHERE run_id = ? ORDER BY time DESC, number DESC LIMIT ?",
        (run, limit),
    )
    return [ConsoleLine(*row) for row in rows.fetchall()][::-1]


def store_data(database: Database, run: int, lines: Sequence[DataLine]) -> int:
    database.execute_many(
        "INSERT OR IGNORE INTO data_points (run_id, name, type, step, time, digest, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(run, each.name, each.type, each.step, each.time, _digest(each.data), each.data) for each in lines],
    )
    return len(lines)


def read_data(database: Database, run: int, name: str | None, limit: int) -> list[DataLine]:
    """Structured values by step, optionally of one log name."""
    condition, values = ("run_id = ?", (run,)) if name is None else ("run_id = ? AND name = ?", (run, name))
    rows = database.execute(
        f"SELECT time, step, name, type, data FROM data_points WHERE {condition} ORDER BY step, time, id LIMIT ?",
        (*values, limit),
    )
    return [DataLine(*row) for row in rows.fetchall()]


def add_log_names(database: Database, run: int, names: Iterable[str], type: str) -> None:
    """Register log names. A registered name keeps its type, as on the hosted tracker."""
    database.execute_many(
        "INSERT OR IGNORE INTO log_names (run_id, name, type) VALUES (?, ?, ?)", [(run, name, type) for name in names]
    )


def log_names(database: Database, run: int) -> tuple[LogName, ...]:
    rows = database.execute(
        "SELECT name, type FROM log_names WHERE run_id = ? ORDER BY name LIMIT ?", (run, LOG_NAMES_SHOWN)
    )
    return tuple(LogName(*row) for row in rows.fetchall())


def add_alert(database: Database, run: int, alert: Alert) -> None:
    database.execute(
        "INSERT INTO alerts (run_id, at, level, title, body) VALUES (?, ?, ?, ?, ?)",
        (run, alert.at, alert.level, alert.title, alert.body),
    )


def alerts(database: Database, run: int, limit: int) -> list[Alert]:
    """The newest alerts, newest first."""
    rows = database.execute(
        "SELECT at, level, title, body FROM alerts WHERE run_id = ? ORDER BY id DESC LIMIT ?", (run, limit)
    )
    return [Alert(*row) for row in rows.fetchall()]


def set_model_graph(database: Database, run: int, format: str, nodes: dict[str, Json]) -> None:
    """Store the run's model graph; it replaces an earlier one."""
    database.execute(
        "INSERT INTO model_graphs (run_id, format, nodes) VALUES (?, ?, ?) "
        "ON CONFLICT (run_id) DO UPDATE SET format = excluded.format, nodes = excluded.nodes",
        (run, format, json.dumps(nodes, separators=(",", ":"))),
    )


def model_graph(database: Database, run: int) -> tuple[str, dict[str, Json]] | None:
    row = database.execute("SELECT format, nodes FROM model_graphs WHERE run_id = ?", (run,)).fetchone()
    return None if row is None else (row["format"], json.loads(row["nodes"]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
