"""Ends that are told to a tracker like the hosted one, whatever the job failed of and whatever the tracker did before.

Each job is one rank that ends by itself, or below our launcher.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from offline import kept, sync

from client.picky import PickyTracker

pytestmark = [pytest.mark.multiprocess, pytest.mark.timeout(240)]

LAUNCHER = [sys.executable, "-c", "from pluto_dist.cli import main; main()", "run", "--nproc-per-node=1"]
WAYS = {"init": [sys.executable], "run": [*LAUNCHER, "--no-python", sys.executable]}
EITHER_WAY = pytest.mark.parametrize("way", WAYS)
MOSTLY_INIT = pytest.mark.parametrize("way", ["init", pytest.param("run", marks=pytest.mark.exhaustive)])

HEAD = """
import json, os, sys, time, requests, pluto_dist
def post(path, body):
    key = {"Authorization": "Bearer " + os.environ["PLUTO_API_KEY"]}
    return requests.post(os.environ["PLUTO_URL_API"] + path, json=body, headers=key, timeout=30)
"""
RAISES = (
    HEAD
    + r"""
pluto_dist.init(project="told")
raise ValueError("bad record: \x00 \ud800")
"""
)
ENDED_BY_MONITOR = (
    HEAD
    + """
run = pluto_dist.init(project="told")
reason = {"reason": "stale", "grace_seconds": 1800}
post("/api/runs/status/update", {"runId": run.id, "status": "FAILED", "statusMetadata": json.dumps(reason)})
"""
)
OF_THE_PAST = (
    HEAD
    + """
run = pluto_dist.init(project="told", created_at=1_600_000_000_000.0, updated_at=1_600_000_123_456.0)
"""
)
WITHOUT_HEARTBEATS = (
    HEAD
    + """
run = pluto_dist.init(project="told")
time.sleep(1.5)
run.update_config({"more": 1})
"""
)


def job(tracker: PickyTracker, folder: Path, way: str, source: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The job, to its end."""
    script = folder / "script.py"
    script.write_text(source)
    own = {"PLUTO_DIR": str(folder / "state"), "PLUTO_DIST_HEARTBEAT": "0.5", **environ}
    merged = {**os.environ, **tracker.environ, **own}
    command = [*WAYS[way], str(script)]
    return subprocess.run(command, env=merged, cwd=folder, capture_output=True, text=True, timeout=200, check=False)


def history(run: dict[str, Any]) -> list[str]:
    return [change["to"] for change in run["statusHistory"]]


@MOSTLY_INIT
def test_an_exception_that_no_database_holds(tmp_path: Path, way: str):
    """A NUL and a lone surrogate in the message: the run is FAILED, with the rest of it, told once."""
    with PickyTracker() as tracker:
        done = job(tracker, tmp_path, way, RAISES)
        run = tracker.run("told")
        (end,) = tracker.ends()
    assert done.returncode == 1
    assert history(run) == ["RUNNING", "FAILED"], done.stderr
    assert run["statusMetadata"]["reason"] == "ValueError: bad record:  \ufffd"
    assert kept(tmp_path / "state") == []
    assert type(json.loads(end["statusMetadata"]).get("at_ms", 0)) is int


@EITHER_WAY
def test_a_run_that_the_monitor_ended(tmp_path: Path, way: str):
    """A job that succeeds after its tracker gave it up is COMPLETED, and no reason of a failure is left."""
    with PickyTracker() as tracker:
        done = job(tracker, tmp_path, way, ENDED_BY_MONITOR)
        run = tracker.run("told")
        last = tracker.ends()[-1]
    assert done.returncode == 0
    assert history(run) == ["RUNNING", "FAILED", "RUNNING", "COMPLETED"], done.stderr
    assert (last["status"], last["statusMetadata"]) == ("COMPLETED", None)


@MOSTLY_INIT
def test_a_run_of_the_past(tmp_path: Path, way: str):
    """A run that is brought in with its times began and ended then."""
    with PickyTracker() as tracker:
        done = job(tracker, tmp_path, way, OF_THE_PAST)
        run = tracker.run("told")
    assert history(run) == ["RUNNING", "COMPLETED"], done.stderr
    assert (run["createdAt"], run["statusUpdated"]) == ("2020-09-13T12:26:40.000Z", "2020-09-13T12:28:43.456Z")


def test_a_run_of_the_past_during_an_outage(tmp_path: Path):
    """So is one that no tracker heard of before the sync."""
    with PickyTracker() as tracker:
        job(tracker, tmp_path, "init", OF_THE_PAST, PLUTO_DIST_MODE="offline")
        assert sync({**tracker.environ, "PLUTO_DIR": str(tmp_path / "state")}).returncode == 0
        run = tracker.run("told")
    assert history(run) == ["RUNNING", "COMPLETED"]
    assert (run["createdAt"], run["statusUpdated"]) == ("2020-09-13T12:26:40.000Z", "2020-09-13T12:28:43.456Z")


@MOSTLY_INIT
def test_heartbeats_that_go_nowhere(tmp_path: Path, way: str):
    """An address that takes none is said once, with the variable to set; the run is whole, and ends."""
    with PickyTracker(takes_heartbeats=False) as tracker:
        done = job(tracker, tmp_path, way, WITHOUT_HEARTBEATS)
        run = tracker.run("told")
        beats = sum(seen.path == "/api/runs/trigger" for seen in tracker.requests)
    assert done.returncode == 0
    assert history(run) == ["RUNNING", "COMPLETED"]
    assert run["config"]["more"] == 1
    assert beats >= 2
    assert done.stderr.count("Set PLUTO_URL_PY") == 1, done.stderr


def test_an_organization_at_its_limit(tmp_path: Path):
    """The training goes on, one line tells why the run is offline; `sync` keeps it until there is room."""
    environ = {"PLUTO_DIR": str(tmp_path / "state")}
    with PickyTracker(is_at_limit=True) as tracker:
        done = job(tracker, tmp_path, "init", HEAD + "pluto_dist.init(project='told')\nprint('trained')\n")
        full = sync({**tracker.environ, **environ})
        assert tracker.ask("GET", "/api/runs/list?projectName=told")["runs"] == []
        tracker.is_at_limit = False
        sent = sync({**tracker.environ, **environ})
        run = tracker.run("told")
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "Organization is at limit" in line]
    assert "going on offline" in line
    assert full.returncode == 1
    assert "Organization is at limit" in full.stdout + full.stderr
    assert sent.returncode == 0, sent.stderr
    assert history(run) == ["RUNNING", "COMPLETED"]


def test_what_an_earlier_version_kept(tmp_path: Path):
    """Requests on disk that no tracker takes as they are: `sync` sends them, and nothing is kept or set aside."""
    state = tmp_path / "state"
    with PickyTracker() as tracker:
        job(tracker, tmp_path, "init", RAISES, PLUTO_DIST_MODE="offline")
        for file in kept(state):
            entry = json.loads(file.read_text())
            if entry["kind"] == "status":
                cause = {"reason": "bad \0 \ud800", "host": "a", "at": 1.5, "x": float("nan")}
                entry["request"].update(statusMetadata=json.dumps(cause), statusUpdated=1.7e12)
            else:
                entry["request"].update(runName="n" * 300 + "\0", createdAt=1.6e12)
            file.write_text(json.dumps(entry))
        done = sync({**tracker.environ, "PLUTO_DIR": str(state)})
        run = tracker.run("told")
    assert done.returncode == 0, done.stdout + done.stderr
    assert kept(state) == []
    assert (history(run), run["statusMetadata"]["reason"]) == (["RUNNING", "FAILED"], "bad  \ufffd")
    assert len(run["name"]) == 255
