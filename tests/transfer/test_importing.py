"""What one tracker exports and another imports is equal when it is read back, but for what the target assigns."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest

from hosted import columns
from hosted.rows.liveness import Times
from hosted.tracker import HostedTracker
from pluto_dist.errors import PlutoDistError
from pluto_dist.query import RunDetails, Tracker
from pluto_dist.server import LocalServer
from pluto_dist.transfer import importing
from pluto_dist.transfer.archive import Archive
from pluto_dist.transfer.export import export
from pluto_dist.transfer.importing import import_runs
from recorded_runs import Recorder

ASSIGNED = {"id", "display_id", "updated_at", "heartbeat_at", "raw"}  # by the target
WITHOUT_RECORDED_ANSWERS = {"/api/runs/files", "/api/runs/metric-names"}  # their shapes are those the SDK reads
STATUSES = ("COMPLETED", "FAILED", "TERMINATED", "CANCELLED")


def read(tracker: Tracker, run: RunDetails, folder: Path) -> dict[str, Any]:
    """All of a run that a tracker gives out, without what the target of an import assigns."""
    fields = {each.name: getattr(run, each.name) for each in dataclasses.fields(run) if each.name not in ASSIGNED}
    config = copy.deepcopy(fields.pop("config")) or {}
    own = config.get("pluto_dist", {})
    own.pop(importing.FIELD, None)
    if own in ({}, {"run_id": run.external_id}):
        config.pop("pluto_dist", None)
    files = {}
    for file in tracker.files(run):
        tracker.download(file, folder / "file")
        files[file.log_name, file.name] = dataclasses.replace(file, url=""), (folder / "file").read_bytes()
    points = {
        name: [(each.step, each.time_ms, "nan" if math.isnan(each.value) else each.value) for each in found]
        for name in tracker.metric_names(run)
        for found in [tracker.metrics(run, name)]
    }
    last = tracker.status_history(run)[-1]
    return {
        **fields, "config": config, "points": points, "console": list(tracker.console(run)), "files": files,
        "ended": (last.to_status, last.at),
    }  # fmt: skip


def moved(source: Any, target: Any, folder: Path, *, count: int) -> None:
    """Move ``count`` runs, and compare them."""
    recorder = Recorder(source)
    for number in range(1, count + 1):
        recorder.whole(f"project {number % 3}", number, STATUSES[number % 4])
    with Tracker(environ=source.environ()) as old, Tracker(environ=target.environ()) as new:
        runs = [run for project in old.projects() for run in old.runs(project.name)]
        assert len(list(export(old, runs, folder / "e"))) == count
        assert {each.outcome for each in import_runs(new, folder / "e")} == {"sent"}
        for summary in runs:
            before = old.details(summary.id)
            after = new.run(before.external_id, before.project)
            assert read(new, after, folder) == read(old, before, folder)
            if not isinstance(source, HostedTracker) and not isinstance(target, HostedTracker):
                assert new.data(after) == old.data(before) != ()
        assert {each.outcome for each in import_runs(new, folder / "e")} == {"already there"}


def test_from_the_embedded_tracker(tmp_path):
    """Details, metrics with those that are not finite, console lines, data, files and ends are equal."""
    with LocalServer() as source, LocalServer() as target:
        moved(source, target, tmp_path, count=4)


@pytest.mark.parametrize(
    ("source", "target"),
    [(HostedTracker, LocalServer), (LocalServer, HostedTracker), (LocalServer, LocalServer)],
    ids=["from hosted", "to hosted", "embedded"],
)
@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
def test_100_runs(source, target, tmp_path):
    """The same from and to the hosted tracker, as it was measured."""
    with source() as from_tracker, target() as to_tracker:
        moved(from_tracker, to_tracker, tmp_path, count=100)


def test_what_an_export_reads_was_recorded(tmp_path):
    """The contract has answers of the hosted tracker for each path that an export asks it, but for those named here.

    ``tests/hosted/test_contract.py`` holds the layer, from which the other tests here export, to those answers.
    """
    with HostedTracker() as server:
        Recorder(server).whole()
        before = len(server.requests())
        with Tracker(environ=server.environ()) as tracker:
            list(export(tracker, tracker.runs("digits"), tmp_path / "e"))
        lines = server.requests()[before:]
    asked = {found[1] for line in lines if (found := re.search(r'"GET (/api/runs/[a-z/-]*[a-z])', line))}
    contract = "".join(path.read_text() for path in Path(columns.__file__).parents[1].glob("server/contract/*_rows.py"))
    assert {path for path in asked if path not in contract} == WITHOUT_RECORDED_ANSWERS
    assert len(asked - WITHOUT_RECORDED_ANSWERS) >= 5


def test_a_run_of_the_past_is_not_silent(tmp_path):
    """The hosted tracker's monitor, which looks all the time here, ends no run whose last sign arrives late."""
    with LocalServer() as source, HostedTracker(times=Times(every=0.02)) as target:
        Recorder(source).whole(status="COMPLETED")
        with Tracker(environ=source.environ()) as old, Tracker(environ=target.environ()) as new:
            list(export(old, old.runs("digits"), tmp_path / "e"))
            list(import_runs(new, tmp_path / "e"))
            (after,) = new.runs("digits")
            assert read(new, new.details(after.id), tmp_path) == read(old, old.run("DIG-1"), tmp_path)


@pytest.mark.both_trackers(by_default=True)
def test_an_import_that_is_interrupted(tracker_class: columns.TrackerClass, tmp_path, monkeypatch):
    """The run that was under way is sent again by the next import, and nothing is there twice."""
    with LocalServer() as source, tracker_class() as target:
        Recorder(source).whole()
        with Tracker(environ=source.environ()) as old, Tracker(environ=target.environ()) as new:
            list(export(old, old.runs("digits"), tmp_path / "e"))
            with monkeypatch.context() as patch:
                patch.setattr(importing, "_send_files", _interrupted)
                with pytest.raises(KeyboardInterrupt):
                    list(import_runs(new, tmp_path / "e"))
            assert [each.outcome for each in import_runs(new, tmp_path / "e")] == ["sent"]
            (after,) = new.runs("digits")
            assert read(new, new.details(after.id), tmp_path) == read(old, old.run("DIG-1"), tmp_path)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_odd_runs(tmp_path):
    """A run without an external id, one with a config that is a list, and one that is running arrive once."""
    with LocalServer() as source, LocalServer() as target:
        recorder = Recorder(source)
        recorder.create()
        recorder.create(config="[1, 2]", externalId="listed", runName="naïve\nname")
        with Tracker(environ=source.environ()) as old, Tracker(environ=target.environ()) as new:
            list(export(old, old.runs("digits"), tmp_path / "e"))
            for outcome in ("sent", "already there"):
                assert {each.outcome for each in import_runs(new, tmp_path / "e", "moved")} == {outcome}
            listed, unnamed = (new.details(each.id) for each in new.runs("moved"))
            assert listed.config["value"] == [1, 2]
            assert listed.name == "naïve\nname"
            assert (unnamed.status, unnamed.external_id[:7]) == ("RUNNING", "import-")


def test_an_export_goes_on(tmp_path):
    """A run that ended is read once; one that was running is read again; a line that was cut off does no harm."""
    with LocalServer() as source:
        recorder = Recorder(source)
        recorder.whole()
        running = recorder.create("digits", "job-2")["runId"]
        with Tracker(environ=source.environ()) as tracker:
            list(export(tracker, tracker.runs("digits"), tmp_path / "e"))
            recorder.metric(running, "loss", 1.0)
            recorder.status(running, "COMPLETED")
            done = {each.run.id: each for each in export(tracker, tracker.runs("digits"), tmp_path / "e")}
            assert (done[1].is_known, done[running].is_known, done[running].points) == (True, False, 1)
            with (tmp_path / "e" / "runs.jsonl").open("a") as file:
                file.write('{"details": {"id"')
            runs = {each.details.id: each.details.status for each in Archive(tmp_path / "e").runs()}
            assert runs == {1: "FAILED", running: "COMPLETED"}


def test_an_archive_that_is_broken(tmp_path):
    """The error names the file and the line."""
    with LocalServer() as source, Tracker(environ=source.environ()) as tracker:
        Recorder(source).whole()
        list(export(tracker, tracker.runs("digits"), tmp_path / "e"))
        (tmp_path / "e" / "runs.jsonl").write_text("{\n{}\n")
        with pytest.raises(PlutoDistError, match=r"runs.jsonl: line 1 is not JSON"):
            list(import_runs(tracker, tmp_path / "e"))
