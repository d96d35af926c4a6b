"""Clocks that are wrong or step, and processes that are stopped for a while: the job and its run are as they were.

A wrong clock is what ``time.time`` says in a rank's process, as on a host of its own. The rows are shown by
``pytest -rP``.
"""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
import pytest
from running import Job, Torchrun, Tracker, wait_for

pytestmark = [pytest.mark.multiprocess, pytest.mark.timeout(600)]

RANKS, RATE, HOUR, DAY = 6, 2.0, 3600.0, 86400.0
RANK = """
import os, time
from pathlib import Path
rank, began, now, now_ns = int(os.environ["RANK"]), time.monotonic(), time.time, time.time_ns
first, then = (float(each) for each in os.environ["OF_RANK_0" if rank == 0 else "OF_OTHERS"].split())
def ahead():
    return first if time.monotonic() < began + 2 else then
time.time, time.time_ns = lambda: now() + ahead(), lambda: now_ns() + int(ahead() * 10**9)
from reporting import report
from training import Training, package
training, pluto_dist = Training(), package()
folder = Path(os.environ["REPORTS"])
def at(place):
    (folder / place).touch()
def timed(call):
    before = time.monotonic()
    call()
    return time.monotonic() - before
at("init")
before = time.monotonic()
run = pluto_dist.init(project="clocks", timeout=float(os.environ["SECONDS"]))
known = run if "WITHOUT" not in os.environ else None
report(known, init=time.monotonic() - before)
at("training")
for _ in range(40 + 20 * (rank == 1)):
    training.step()
    time.sleep(0.1)
at("finish")
print(training, flush=True)
report(known, finish=timed(run.finish))
"""
CLOCKS = {  # seconds ahead: of rank 0 at first and 2 s later, of the others at first and 2 s later
    "the others are 40 s ahead": ("0 0", "40 40"),
    "the others are an hour ahead": ("0 0", f"{HOUR} {HOUR}"),
    "the others are an hour behind": ("0 0", f"{-HOUR} {-HOUR}"),
    "the others are a day ahead": ("0 0", f"{DAY} {DAY}"),
    "rank 0 is an hour ahead": (f"{HOUR} {HOUR}", "0 0"),
    "rank 0 is a day behind": (f"{-DAY} {-DAY}", "0 0"),
    "rank 0 is set a day ahead": (f"0 {DAY}", "0 0"),
    "rank 0 is set an hour back": (f"0 {-HOUR}", "0 0"),
    "the others are set a day ahead": ("0 0", f"0 {DAY}"),
    "all are set an hour back": (f"0 {-HOUR}", f"0 {-HOUR}"),
}
PLACES = ("init", "training", "finish")


def start(torchrun, tracker: Tracker, **environ: str) -> subprocess.Popen[str]:
    crowd = [sys.executable, str(Path(__file__).parent / "crowd.py"), str(RANKS), RANK]
    settings = {"PLUTO_DIST_HEARTBEAT": "1", "PLUTO_DIST_ATTACH_RATE": str(RATE), "SECONDS": "30"}
    clocks = {"OF_RANK_0": "0 0", "OF_OTHERS": "0 0"}
    return torchrun.start_command(crowd, tracker.environ() | settings | clocks | environ)


def check(tracker: Tracker, job: Job, case: str) -> dict[str, Any]:
    """One run in which all ranks were, which has the tracker's time; its row is printed."""
    (run,) = tracker.runs("clocks")
    history = [change["to"] for change in run["statusHistory"]]
    waits = [max(report[name] for report in job.reports if name in report) for name in ("init", "finish")]
    beats = sum('"POST /api/runs/trigger ' in line for line in tracker.log())
    shown = " | ".join(f"{seconds:.1f}" for seconds in waits)
    print(f"ROW | {case} | {shown} | {len(run['attaches'])} attaches | {beats} heartbeats | {' '.join(history)}")
    assert job.returncode == 0, job.output
    assert history == ["RUNNING", "COMPLETED"], job.output
    assert {report["id"] for report in job.reports} - {None} == {run["id"]}  # init() may have been over before it was
    assert {report["resumed"] for report in job.reports} == {False}
    assert "no sign of life" not in job.output
    assert abs(at(run["createdAt"]) - time.time()) < 300
    assert beats >= 4
    return run


def at(moment: str) -> float:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).astimezone(timezone.utc).timestamp()


@pytest.mark.parametrize(
    "case", [pytest.param(each, marks=pytest.mark.exhaustive if n else ()) for n, each in enumerate(CLOCKS)]
)
def test_a_wrong_clock_changes_nothing(tracker, torchrun, case):
    """One run, in the tracker's time, and no more attaches in a second than are allowed."""
    of_rank_0, of_others = CLOCKS[case]
    job = torchrun.finish(start(torchrun, tracker, OF_RANK_0=of_rank_0, OF_OTHERS=of_others))
    run = check(tracker, job, case)
    times = sorted(at(attach["at"]) for attach in run["attaches"])
    assert len(times) == RANKS
    for earlier, later in itertools.pairwise(times[1:]):
        assert later - earlier > 0.7 / RATE, times  # the first is the create
    assert max(report["init"] for report in job.reports if "init" in report) < 20


@pytest.mark.parametrize("seconds", [10, pytest.param(180, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(
    "place", [pytest.param(each, marks=() if each == "training" else pytest.mark.exhaustive) for each in PLACES]
)
def test_all_processes_are_stopped_for_a_while(tracker, torchrun, place, seconds):
    """Longer than a silent node is waited for, and than init() may take: the job goes on, in its run."""
    job = stopped(torchrun, start(torchrun, tracker, SECONDS="6"), place, seconds)
    check(tracker, job, f"stopped for {seconds} s in {place}")
    longest = {"init": 6 + seconds, "finish": 11 + seconds * (place != "init")}
    for name, limit in longest.items():
        assert max(report[name] for report in job.reports if name in report) < limit


def stopped(torchrun: Torchrun, process: subprocess.Popen[str], place: str, seconds: float) -> Job:
    """The job, all of whose processes are stopped for a while once a rank is at ``place``."""
    reports = torchrun.folder / f"reports{torchrun.started.index(process)}"
    wait_for((reports / place).exists, place)
    everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for each in everyone:
        each.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    for each in everyone:
        with suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGCONT)
    return torchrun.finish(process)
