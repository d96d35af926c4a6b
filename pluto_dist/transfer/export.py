"""Writes runs of a tracker into a folder: details, metrics, console lines, data and files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pluto_dist.contract.validation import Json
from pluto_dist.errors import TrackerUnavailableError
from pluto_dist.query import RunDetails, RunSummary, Tracker
from pluto_dist.query.records import Point
from pluto_dist.transfer.archive import Archive, plain, write_lines


@dataclass(frozen=True, slots=True)
class Exported:
    """A run that was written, with how much it has; ``is_known`` if the folder had it as it is.

    ``missing`` names files that the tracker lists and does not give.
    """

    run: RunSummary
    is_known: bool = False
    points: int = 0
    lines: int = 0
    files: int = 0
    missing: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        counts = {"points": self.points, "console_lines": self.lines, "files": self.files}
        return {**self.run.to_json(), "already_there": self.is_known, **counts, "missing_files": list(self.missing)}


def export(tracker: Tracker, runs: Iterable[RunSummary], folder: Path) -> Iterator[Exported]:
    """Write ``runs`` into ``folder``. Repeated, it adds what is new or has changed.

    Raises:
        ConfigurationError: the folder holds something else.
        TrackerError: the tracker did not answer; what is complete by then is kept.
        OSError: the folder cannot be written.
    """
    archive = Archive(folder)
    archive.begin(tracker.settings.url_api)
    known = {each.details.id: each.details for each in archive.runs()}
    for summary in runs:
        details = tracker.details(summary.id)
        before = known.get(details.id)
        if before is not None and before.updated_at == details.updated_at and details.status != "RUNNING":
            yield Exported(details.summary(), is_known=True)
            continue
        yield _export_run(tracker, details, archive)
    archive.write_table()


def _export_run(tracker: Tracker, run: RunDetails, archive: Archive) -> Exported:
    folder = archive.run_folder(run.id)
    points = _write_metrics(tracker, run, folder)
    lines = write_lines(folder / "console.jsonl", map(asdict, tracker.console(run)))
    write_lines(folder / "data.jsonl", map(asdict, tracker.data(run) or ()))
    files, missing = _write_files(tracker, run, folder)
    archive.add(run, tracker.status_history(run))
    return Exported(run.summary(), False, points, lines, files, missing)


def _write_metrics(tracker: Tracker, run: RunDetails, folder: Path) -> int:
    """The points, for machines and for spreadsheets; returns their number."""
    with (folder / "metrics.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["metric", "step", "time_ms", "value"])

        def rows() -> Iterator[dict[str, Json]]:
            for name, point in _points(tracker, run):
                table.writerow([name, point.step, point.time_ms, point.value])
                yield {"name": name, "step": point.step, "time_ms": point.time_ms, "value": plain(point.value)}

        return write_lines(folder / "metrics.jsonl", rows())


def _points(tracker: Tracker, run: RunDetails) -> Iterator[tuple[str, Point]]:
    for name in tracker.metric_names(run):
        for point in tracker.metrics(run, name):
            yield name, point


def _write_files(tracker: Tracker, run: RunDetails, folder: Path) -> tuple[int, tuple[str, ...]]:
    """Write the files, each under its number; returns how many, and the names of those that cannot be had."""
    rows: list[dict[str, Json]] = []
    missing: list[str] = []
    for file in tracker.files(run):
        try:
            tracker.download(file, folder / "files" / str(len(rows) + 1))
        except TrackerUnavailableError:
            missing.append(f"{file.log_name}/{file.name}")
            continue
        rows.append({name: value for name, value in asdict(file).items() if name != "url"})
    write_lines(folder / "files.jsonl", rows)
    return len(rows), tuple(missing)
