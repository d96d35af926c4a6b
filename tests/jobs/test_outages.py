"""Whatever the tracker does, and whenever: training completes, and the run is whole, at once or after `sync`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import FAULTS, FaultyTracker, faulty_tracker
from offline import ended, kept, sync
from running import Job, Torchrun, Tracker

from hosted.columns import TrackerClass

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers]

STEPS = 300
TRAIN = """
import os, pathlib, time, torch.distributed as dist
from reporting import report
from training import Training, package
pluto_dist = package()
here = pathlib.Path(os.environ["REPORTS"])
def phase(name):
    if dist.get_rank() == 0:
        (here / name).touch()
    while not (here / f"{name} seen").exists():
        time.sleep(0.01)
dist.init_process_group("gloo")
phase("init")
began = time.monotonic()
run = pluto_dist.init(project="outage", name="ddp", config={"lr": 0.1}, tags=["cpu"])
joined = time.monotonic() - began
phase("train")
training, slowest, began = Training(dist.all_reduce), 0.0, time.monotonic()
for step in range(STEPS):
    at = time.monotonic()
    training.step()
    time.sleep(0.002)
    slowest = max(slowest, time.monotonic() - at)
trained = time.monotonic() - began
run.update_config({"best": 0.97})
phase("finish")
began = time.monotonic()
run.finish()
print(training)
known = run if "WITHOUT" not in os.environ else None
report(known, joined=joined, trained=trained, slowest=slowest, finished=time.monotonic() - began)
dist.destroy_process_group()
"""
PHASES = ("init", "train", "finish")
# One of each kind that the client tells apart; the others with `-m exhaustive`.
IN_CI = {("refuses", "init"), ("self-signed certificate", "finish")}
TABLE = [
    pytest.param(
        fault, phase, id=f"{fault} at {phase}", marks=[] if (fault, phase) in IN_CI else pytest.mark.exhaustive
    )
    for fault in FAULTS
    for phase in PHASES
]


@pytest.fixture
def tracker(request: pytest.FixtureRequest, tracker_class: TrackerClass) -> Iterator[FaultyTracker]:
    fault = request.node.callspec.params["fault"]
    with faulty_tracker(tracker_class, tls="certificate" in fault) as faulty:
        yield faulty


def go(torchrun: Torchrun, tracker: FaultyTracker, environ: dict[str, str], faults: dict[str, str]) -> Job:
    """Runs the job; at each of its phases the tracker has the fault of that phase, or none."""
    process = torchrun.start(f"STEPS = {STEPS}\n{TRAIN}", environ=environ)
    reports = torchrun.folder / f"reports{torchrun.started.index(process)}"
    for phase in PHASES:
        until = time.monotonic() + 120
        while not (reports / phase).exists() and process.poll() is None:
            assert time.monotonic() < until, f"the job never came to {phase}"
            time.sleep(0.02)
        tracker.fault = faults.get(phase, "")
        (reports / f"{phase} seen").touch()
    job = torchrun.finish(process)
    tracker.fault = ""
    return job


def the_run(tracker: FaultyTracker) -> dict[str, Any]:
    """The one run there is, with everything in it."""
    runs = Tracker(tracker.behind).runs("outage")
    assert len(runs) == 1, [run["displayId"] for run in runs]
    run = runs[0]
    assert run["status"] == "COMPLETED", run["statusHistory"]
    assert (run["name"], run["tags"], run["number"]) == ("ddp", ["cpu"], 1)
    assert (run["config"]["lr"], run["config"]["best"]) == (0.1, 0.97)
    assert [each["number"] for each in run["config"]["pluto_dist"]["attempts"].values()] == [1]
    assert run["systemMetadata"]["cluster"]["nodes_reported"] == 1
    return run


@pytest.mark.parametrize(("fault", "phase"), TABLE)
def test_a_fault_of_the_tracker(torchrun: Torchrun, tracker: FaultyTracker, tmp_path: Path, fault: str, phase: str):
    """Training completes, both ranks agree on the mode, and in the end there is one run with everything in it."""
    state = tmp_path / "state"
    timeout = 4.0
    environ = {
        **tracker.environ(tmp_path / "authority.pem"), "PLUTO_DIR": str(state), "PLUTO_DIST_TIMEOUT": f"{timeout}",
        "PLUTO_DIST_HEARTBEAT": "0.5",
    }  # fmt: skip
    job = go(torchrun, tracker, environ, {phase: fault})
    assert job.returncode == 0, job.output
    assert len({(report["run_id"], report["project"]) for report in job.reports}) == 1
    assert max(report["joined"] for report in job.reports) < timeout + 2
    assert max(report["finished"] for report in job.reports) < 25
    assert tracker.behind.api_key not in job.output
    said = [line for line in job.output.splitlines() if line.startswith("pluto_dist: ")]
    left = kept(state)
    done = sync({**environ, "XDG_STATE_HOME": str(tmp_path)}, str(state)) if left else None
    if done is not None:
        assert done.returncode == 0, done.stdout + done.stderr
        assert tracker.behind.api_key not in done.stdout + done.stderr
    assert kept(state) == []
    run = the_run(tracker)
    statuses = [change["to"] for change in run["statusHistory"]]
    assert statuses == ["RUNNING", "COMPLETED"]
    leader = job.reports[0]
    warned = re.sub(r"http\S+|/\S+", "...", "; ".join(said))[:90]
    took = f"init {leader['joined']:.1f} s, {STEPS} steps {leader['trained']:.2f} s, finish {leader['finished']:.1f} s"
    print(f"| {fault} | {phase} | {took} | {len(said)}: {warned} | {len(left)} | {' '.join(statuses)} |")


@pytest.mark.exhaustive
def test_a_name_that_does_not_resolve(torchrun: Torchrun, tmp_path: Path):
    """A tracker whose name nobody knows: offline, and sent where `--to` says."""
    with faulty_tracker() as tracker:
        state = tmp_path / "state"
        quick = {"PLUTO_DIR": str(state), "PLUTO_DIST_TIMEOUT": "4", "PLUTO_URL_API": "http://tracker.invalid:8420"}
        environ = {**tracker.environ(tmp_path / "authority.pem"), **quick}
        job = go(torchrun, tracker, environ, {})
        assert job.returncode == 0, job.output
        assert {report["mode"] for report in job.reports} == {"offline"}
        assert max(report["joined"] for report in job.reports) < 6
        assert len(kept(state)) == 3
        done = sync({**environ, "PLUTO_URL_API": ""}, "--to", tracker.url, str(state))
        assert done.returncode == 0, done.stdout + done.stderr
        run = the_run(tracker)
        assert ended(run) == ["RUNNING", "COMPLETED"]
        leader = job.reports[0]
        print(f"| DNS failure | init | init {leader['joined']:.1f} s, finish {leader['finished']:.1f} s | 3 kept |")
