"""What goes wrong on the job's own side of an outage: no disk, no home, killed processes, threads and forks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import FaultyTracker, faulty_tracker
from offline import ended, kept, sync
from running import Torchrun, Tracker

from hosted.columns import TrackerClass

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers]

JOB = """
import os, time, torch, torch.distributed as dist, pluto_dist
from pathlib import Path
from reporting import report
dist.init_process_group("gloo")
run = pluto_dist.init(project="ours", name="n")
total = torch.ones(1)
for step in range(200):
    dist.all_reduce(total, op=dist.ReduceOp.MAX)
report(run)
while os.environ.get("WAIT"):
    time.sleep(0.1)
run.finish()
run.finish()
dist.destroy_process_group()
"""


@pytest.fixture
def tracker(tracker_class: TrackerClass) -> Iterator[FaultyTracker]:
    with faulty_tracker(tracker_class) as faulty:
        faulty.fault = "refuses"
        yield faulty


@pytest.fixture
def environ(tracker: FaultyTracker, tmp_path: Path) -> dict[str, str]:
    folder = {"PLUTO_DIR": str(tmp_path / "state"), "PLUTO_DIST_TIMEOUT": "4"}
    return {**tracker.environ(tmp_path / "authority.pem"), **folder}


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """A small disk with the options given."""
    if os.geteuid() != 0:
        pytest.skip("mounts a small disk: run it as root")
    made: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk{len(made)}"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
        made.append(folder)
        return folder

    yield mount
    for folder in made:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def said(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("pluto_dist: ")]


@pytest.mark.parametrize("what", ["full", "read-only"])
@pytest.mark.exhaustive
def test_a_disk_that_takes_nothing(torchrun: Torchrun, environ: dict[str, str], mounted: Any, what: str):
    """Training completes; one line says that what is recorded is lost if the process ends first."""
    folder = mounted("size=64k,mode=700")
    (folder / "filler").write_bytes(b"x" * 65_000) if what == "full" else None
    if what == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    job = torchrun(JOB, environ={**environ, "PLUTO_DIR": str(folder)})
    assert job.returncode == 0, job.output
    assert [report["mode"] for report in job.reports] == ["offline"] * 2
    assert job.output.count("is lost if this process ends") == 1
    assert "(kept in memory only: " in job.output
    assert "pluto-dist sync" not in job.output  # nothing is there to be sent
    assert job.output.count("is lost: neither the tracker nor the disk took it") == 1
    assert len(said(job.output)) <= 3


def test_a_disk_that_takes_nothing_and_a_tracker_that_comes_back(
    torchrun: Torchrun, tracker: FaultyTracker, environ: dict[str, str], mounted: Any
):
    """What is kept in memory is sent when the tracker answers before the job ends."""
    folder = mounted("size=64k,mode=700")
    (folder / "filler").write_bytes(b"x" * 65_000)
    process = torchrun.start(
        JOB.replace("run.finish()", "time.sleep(12); run.finish()", 1), environ={**environ, "PLUTO_DIR": str(folder)}
    )
    until = time.monotonic() + 60
    while not list((torchrun.folder / "reports0").glob("*.json")) and time.monotonic() < until:
        time.sleep(0.05)
    tracker.fault = ""
    job = torchrun.finish(process)
    assert job.returncode == 0, job.output
    (run,) = Tracker(tracker.behind).runs("ours")
    assert ended(run) == ["RUNNING", "COMPLETED"]


@pytest.mark.parametrize("victim", ["leader", "other rank", "agent"])
@pytest.mark.exhaustive
def test_killed_while_offline(
    torchrun: Torchrun, tracker: FaultyTracker, environ: dict[str, str], tmp_path: Path, victim: str
):
    """Whoever is killed, what was kept until then is whole, and `sync` makes one run of it."""
    process = torchrun.start(JOB.replace("report(run)", "report(run, pid=os.getpid())"),
                             environ={**environ, "WAIT": "1"})  # fmt: skip
    reports, until = torchrun.folder / "reports0", time.monotonic() + 60
    while len(list(reports.glob("*.json"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    pids = {told["rank"]: told["pid"] for told in (json.loads(file.read_text()) for file in reports.glob("*.json"))}
    os.kill({"leader": pids[0], "other rank": pids[1], "agent": process.pid}[victim], signal.SIGKILL)
    if victim == "agent":
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
    torchrun.finish(process)
    assert kept(tmp_path / "state")
    tracker.fault = ""
    done = sync(environ)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = Tracker(tracker.behind).runs("ours")
    assert run["systemMetadata"]["cluster"]["world_size"] == 2
    assert ended(run)[0] == "RUNNING"
    assert len(ended(run)) <= 2


THREADS = """
import os, threading, pluto_dist
from reporting import report
runs = []
def join():
    runs.append(pluto_dist.init(project="ours", name="n"))
thread = threading.Thread(target=join)
thread.start()
thread.join()
again = pluto_dist.init(project="ours", name="n")
assert again is runs[0]
child = os.fork()
if child == 0:
    again.update_config({"child": True})
    again.finish()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
again.update_config({"parent": True})
again.finish()
again.finish()
report(again)
"""


def test_threads_forks_and_calling_twice(
    tracker: FaultyTracker, environ: dict[str, str], torchrun: Torchrun, tmp_path: Path
):
    """init() from a thread, init() again, a forked child that finishes, finish() twice: one run, ended once."""
    command = [sys.executable, torchrun.write(THREADS)]
    job = torchrun.finish(torchrun.start_command(command, environ))
    assert job.returncode == 0, job.output
    tracker.fault = ""
    assert sync(environ).returncode == 0
    (run,) = Tracker(tracker.behind).runs("ours")
    assert ended(run) == ["RUNNING", "COMPLETED"]
    assert run["config"]["parent"] is True
    assert kept(tmp_path / "state") == []
