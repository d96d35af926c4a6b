"""Launches of one job with resume, one after the other and at once, by both launchers, on both trackers."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from running import Torchrun, Tracker, wait_for
from test_ways_to_start import free_port

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers, pytest.mark.timeout(400)]

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import pluto_dist
from reporting import report

try:
    run = pluto_dist.init(project="again", config={"lr": 0.1})
except pluto_dist.errors.PlutoDistError as error:
    report(error=type(error).__name__, message=str(error))
    print(error, flush=True)
    sys.exit(0)
report(run, number=run.number)
with run:
    if os.environ["HOW"] == "COMPLETED":
        time.sleep(1)
    elif os.environ["HOW"] == "FAILED":
        raise ValueError("boom")
    else:
        time.sleep(120)  # until it is ended from outside
"""
START = {
    "torchrun": [sys.executable, "-m", "torch.distributed.run"],
    "pluto-dist run": [sys.executable, "-c", "from pluto_dist.cli import main; main()", "run", "--project=again"],
}
ENDS = ("COMPLETED", "FAILED", "TERMINATED", "killed")


class Launches:
    """Starts launches of one job, of two ranks each; heartbeats are 1 s, so a killed one is dead after 3.5 s."""

    def __init__(self, tracker: Tracker, torchrun: Torchrun, launcher: str) -> None:
        self.tracker, self.torchrun, self.launcher = tracker, torchrun, launcher
        self.count = 0

    def start(self, how: str) -> int:
        options = ["--nproc-per-node=2", "--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{free_port()}"]
        environ = {"HOW": how, "PLUTO_DIST_RESUME": "1", "PLUTO_DIST_HEARTBEAT": "1"}
        script = self.torchrun.write(SCRIPT)
        command = [*START[self.launcher], *options, "--rdzv-id=nightly", script]
        self.torchrun.start_command(command, self.tracker.environ() | environ)
        self.count += 1
        return self.count - 1

    def reports(self, launch: int) -> list[dict[str, Any]]:
        folder = self.torchrun.folder / f"reports{launch}"
        return [json.loads(file.read_text()) for file in folder.glob("*.json")]

    def joined(self, launch: int) -> list[dict[str, Any]]:
        """The reports of both ranks."""
        wait_for(lambda: len(self.reports(launch)) == 2, f"launch {launch}")
        return self.reports(launch)

    def check_refused(self, launch: int, error: str, message: str) -> None:
        """Each rank of the launch has the error."""
        reports, output = self.joined(launch), self.end(launch, "COMPLETED")
        assert [report.get("id") for report in reports] == [None, None], output
        assert {report["error"] for report in reports} == {error}, output
        assert all(message in report["message"] for report in reports)

    def end(self, launch: int, how: str) -> str:
        """End a launch in this way, and wait for it; what it printed. Of a killed one no process is left."""
        process = self.torchrun.started[launch]
        if how == "TERMINATED":
            process.send_signal(signal.SIGTERM)
        elif how == "killed":
            # torchrun gives every worker a session of its own.
            workers = [child for child in Path("/proc").glob("[0-9]*") if parent_of(child) == process.pid]
            for pid in (process.pid, *(int(worker.name) for worker in workers)):
                os.kill(pid, signal.SIGKILL)
        return process.communicate(timeout=120)[0]


def parent_of(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def more(*values: Any) -> list[Any]:
    return [pytest.param(*value, marks=pytest.mark.exhaustive) for value in values]


@pytest.fixture
def launches(tracker: Tracker, torchrun: Torchrun, launcher: str) -> Launches:
    return Launches(tracker, torchrun, launcher)


@pytest.mark.parametrize("launcher", ["torchrun", *more(["pluto-dist run"])])
@pytest.mark.parametrize("ends", [("killed", "FAILED", "COMPLETED"), *more([(*ENDS, "COMPLETED", "FAILED")])], ids=len)
def test_launches_one_after_the_other(launches, ends):
    """Launches that end in each way: all are in one run, none is refused, and each end is told."""
    for launch, how in enumerate(ends):
        launches.start(how)
        reports = launches.joined(launch)
        assert not [report for report in reports if "error" in report], reports
        assert {report["resumed"] for report in reports} == {launch > 0}
        launches.end(launch, how)
        (run,) = launches.tracker.runs("again")
        assert run["status"] == ("RUNNING" if how == "killed" else how), (launch, how)
        if how != "killed":
            assert bool(run["statusMetadata"]) == (how != "COMPLETED")  # an old reason is cleared
    records = run["config"]["pluto_dist"]["attempts"]
    assert sorted(record["number"] for record in records.values()) == list(range(1, len(ends) + 1))
    assert not [claim for claim in run["config"]["pluto_dist"].get("claims", {}).values() if claim]


@pytest.mark.parametrize("minutes", [60, *more([0])])
@pytest.mark.parametrize("launcher", ["pluto-dist run", *more(["torchrun"])])
def test_a_launch_beside_a_living_one(launches, minutes):
    """The second launch is refused, on every rank, at once or an hour later; the first ends as if it was alone."""
    launches.start("TERMINATED")
    launches.joined(0)
    age(Path(launches.tracker.server.db), minutes)
    launches.start("COMPLETED")
    launches.check_refused(1, "RunInUseError", "alive in run AGA-1")
    (run,) = launches.tracker.runs("again")
    assert run["status"] == "RUNNING"
    assert len(run["config"]["pluto_dist"]["attempts"]) == 1
    launches.end(0, "TERMINATED")
    (run,) = launches.tracker.runs("again")
    assert run["status"] == "TERMINATED"


def age(db: Path, minutes: int) -> None:
    """Move everything that the tracker has of the past further into it."""
    names = ("created_at", "updated_at", "status_updated", "heartbeat_at")
    changes = ", ".join(f"{name} = {name} - {60_000 * minutes}" for name in names)
    with closing(sqlite3.connect(db, timeout=30)) as connection, connection:
        connection.execute(f"UPDATE runs SET {changes}")


@pytest.mark.parametrize("launcher", more(["torchrun"], ["pluto-dist run"]))
def test_two_at_the_same_moment(launches):
    """Of two launches that start at once one is in the run and the other is refused, the first time and again."""
    for number in (0, 2):
        for _ in range(2):
            launches.start("COMPLETED")
        is_in = [report.get("id") is not None for launch in (number, number + 1) for report in launches.joined(launch)]
        output = [launches.end(launch, "COMPLETED") for launch in (number, number + 1)]
        assert sorted(is_in) == [False, False, True, True], output
        assert "alive in run AGA-1" in "".join(output)
        (run,) = launches.tracker.runs("again")
        assert run["status"] == "COMPLETED"


@pytest.mark.parametrize("launcher", more(["torchrun"], ["pluto-dist run"]))
def test_a_cancelled_run(launches):
    """A run that somebody cancelled is refused by the next launch, and stays cancelled."""
    launches.start("TERMINATED")
    (run,) = {report["id"] for report in launches.joined(0)}
    launches.tracker.cancel(run)
    wait_for(lambda: launches.tracker.run(run)["status"] == "CANCELLED", "the cancel")
    launches.end(0, "TERMINATED")
    launches.start("COMPLETED")
    launches.check_refused(1, "RunCancelledError", "AGA-1 was cancelled")
    assert launches.tracker.run(run)["status"] == "CANCELLED"
