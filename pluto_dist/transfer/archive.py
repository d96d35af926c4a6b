"""The folder of an export: its files, and how values are written there.

A run has a folder named by its number; its line in ``runs.jsonl`` is written when that folder is complete. Names that
a job chose are data: no path is made of them.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pluto_dist.contract.validation import Json
from pluto_dist.errors import ConfigurationError
from pluto_dist.query.records import ConsoleLine, Datum, Point, RunDetails, StatusChange, StoredFile

FORMAT = 1
_ABOUT, _RUNS, _TABLE = "export.json", "runs.jsonl", "runs.csv"
_COLUMNS = ("id", "display_id", "project", "name", "status", "created_at", "status_updated", "tags", "external_id")


@dataclass(frozen=True, slots=True)
class ExportedRun:
    """A run of an export: the tracker's answer about it, and the folder with what it logged."""

    details: RunDetails
    history: tuple[StatusChange, ...]
    folder: Path

    def points(self) -> Iterator[tuple[str, Point]]:
        """Name and value of every point, by name and step."""
        for row in read_lines(self.folder / "metrics.jsonl"):
            yield row["name"], Point(row["step"], row["time_ms"], float(row["value"]))

    def console(self) -> Iterator[ConsoleLine]:
        for row in read_lines(self.folder / "console.jsonl"):
            yield ConsoleLine(row["time_ms"], row["type"], row["number"], row["message"])

    def data(self) -> Iterator[Datum]:
        for row in read_lines(self.folder / "data.jsonl"):
            yield Datum(row["name"], row["type"], row["step"], row["time_ms"], row["data"])

    def files(self) -> Iterator[tuple[StoredFile, Path]]:
        """Each file with the path of its bytes."""
        for number, row in enumerate(read_lines(self.folder / "files.jsonl"), start=1):
            yield StoredFile(**row, url=""), self.folder / "files" / str(number)


class Archive:
    """The folder of an export.

    Args:
        folder: of it.

    Raises:
        ConfigurationError: it holds something else, or the export of another version or tracker.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, origin: str) -> None:
        """Make the folder, or go on with an export from the same tracker."""
        if self.folder.exists() and any(self.folder.iterdir()):
            if self.origin() != origin:
                raise ConfigurationError(f"{self.folder} has an export of {self.origin()}; name another folder")
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / _ABOUT).write_text(json.dumps({"format": FORMAT, "tracker": origin}) + "\n")

    def origin(self) -> str:
        """The tracker from which the runs are."""
        try:
            about = json.loads((self.folder / _ABOUT).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{self.folder} is no folder that `pluto-dist export` wrote") from error
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise ConfigurationError(f"{self.folder} was written by another version; this one reads format {FORMAT}")
        return str(about.get("tracker"))

    def runs(self) -> Iterator[ExportedRun]:
        """The complete runs; of one that was exported twice, the later."""
        self.origin()
        latest = {}
        for row in read_lines(self.folder / _RUNS):
            details = RunDetails.of(row.get("details") if isinstance(row, dict) else None)
            if details is not None:
                history = tuple(filter(None, map(_change, row.get("history") or ())))
                latest[details.id] = ExportedRun(details, history, self._folder_of(details.id))
        yield from latest.values()

    def run_folder(self, run: int) -> Path:
        """The empty folder for what a run logged."""
        folder = self._folder_of(run)
        (folder / "files").mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def add(self, run: RunDetails, history: Sequence[StatusChange]) -> None:
        """Record that a run's folder is complete."""
        line = {"details": run.raw, "history": [change.to_json() for change in history]}
        with (self.folder / _RUNS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def write_table(self) -> None:
        """Write ``runs.csv``: a row for each run, with a column for each value of the configs."""
        runs = list(self.runs())
        configs = [_flat(each.details.config) for each in runs]
        names = list(dict.fromkeys(name for config in configs for name in config))
        with (self.folder / _TABLE).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*_COLUMNS, *names])
            for each, config in zip(runs, configs, strict=True):
                row = each.details.to_json() | {"tags": " ".join(each.details.tags)}
                writer.writerow([*(row[name] for name in _COLUMNS), *(config.get(name) for name in names)])

    def _folder_of(self, run: int) -> Path:
        return self.folder / "runs" / str(run)


def write_lines(path: Path, rows: Iterable[Mapping[str, Json]]) -> int:
    """Write a JSON object a line; returns their number."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
            count += 1
    return count


def read_lines(path: Path) -> Iterator[Any]:
    """The JSON values in ``path``, one a line; none if there is no such file. A line that was cut off ends them.

    Raises:
        ConfigurationError: a line before the last is not JSON.
    """
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield json.loads(line)
            except ValueError as error:
                if not line.endswith("\n"):
                    return
                raise ConfigurationError(f"{path}: line {number} is not JSON") from error


def plain(value: float) -> float | str:
    """A number as JSON can hold it; NaN and infinity as text that ``float()`` reads.

    >>> plain(0.5), plain(float("nan")), float(plain(float("-inf")))
    (0.5, 'nan', -inf)
    """
    return value if math.isfinite(value) else str(value)


def _change(row: Json) -> StatusChange | None:
    if not isinstance(row, dict):
        return None
    return StatusChange.of({
        "fromStatus": row.get("from_status"), "toStatus": row.get("to_status"), "source": row.get("source"),
        "createdAt": row.get("at"),
    })  # fmt: skip


def _flat(config: Json, prefix: str = "config") -> dict[str, Json]:
    """Dotted names and values of a config, without what this package keeps there."""
    if not isinstance(config, dict):
        return {} if config is None else {prefix: json.dumps(config)}
    found: dict[str, Json] = {}
    for name, value in config.items():
        if prefix == "config" and name == "pluto_dist":
            continue
        if isinstance(value, dict):
            found.update(_flat(value, f"{prefix}.{name}"))
        else:
            found[f"{prefix}.{name}"] = value if isinstance(value, (int, float, str)) else json.dumps(value)
    return found
