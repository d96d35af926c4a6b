"""What `pluto-dist run` prints of a job's end: torchrun's report once, one line of ours, and nothing of our insides."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest
from running import Job, Torchrun, Tracker, wait_for

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers]

SCRIPT = """
import os, signal, sys, time
how, rank = sys.argv[1], int(os.environ["RANK"])
open(f"started{rank}", "w").close()
if rank == 1 and how == "raises": raise ValueError("bad batch")
if rank == 1 and how == "is killed": os.kill(os.getpid(), signal.SIGKILL)
time.sleep(0 if how == "succeeds" else 100)
"""
COMMAND = [sys.executable, "-c", "from pluto_dist.cli import main; main()", "run", "--project=output"]
RULE = re.compile(r"^=+$", re.MULTILINE)


def begin(torchrun: Torchrun, tracker: Tracker, script: str, how: str) -> object:
    environ = tracker.environ() | {"PLUTO_DIST_HEARTBEAT": "0.5"}
    return torchrun.start_command([*COMMAND, "--nproc-per-node=2", script, how], environ)


def ended(torchrun: Torchrun, tracker: Tracker, how: str) -> Job:
    return torchrun.finish(begin(torchrun, tracker, torchrun.write(SCRIPT), how))


def our_last_line(job: Job) -> str:
    """The last line, which is ours; there is no traceback of the launcher before it, and only one such line."""
    lines = [line for line in job.output.splitlines() if line.startswith("pluto_dist: ")]
    assert job.output.splitlines()[-1] == lines[-1], job.output
    assert sum(" COMPLETED" in line or " FAILED" in line or " TERMINATED" in line for line in lines) == 1, job.output
    assert "site-packages/click" not in job.output
    assert "ChildFailedError" not in job.output
    assert "cli/run.py" not in job.output
    return lines[-1]


def report_of(job: Job) -> str:
    """torchrun's report, which is there once."""
    assert job.output.count("Root Cause (first observed failure)") == 1, job.output
    assert len(RULE.findall(job.output)) == 2, job.output
    return job.output[RULE.search(job.output).start() :]


def test_a_script_that_is_not_there(tracker, torchrun):
    """One line, torchrun's exit code, and no run."""
    job = torchrun.finish(begin(torchrun, tracker, "no_such_script.py", "x"))
    assert job.returncode == 1
    assert job.output.startswith("Error: no_such_script.py does not exist (looked for in ")
    assert len(job.output.splitlines()) == 1, job.output
    assert not tracker.creates()


def test_an_exception(tracker, torchrun):
    """The report has the user's script in its title, and the last line has rank, exception, run and address."""
    job = ended(torchrun, tracker, "raises")
    assert job.returncode == 1
    assert "script0.py FAILED" in report_of(job)
    (run,) = tracker.runs("output")
    line = our_last_line(job)
    assert line.startswith(f"pluto_dist: run {run['displayId']} FAILED: rank 1 on ")
    assert ": ValueError: bad batch (http://" in line


@pytest.mark.exhaustive
def test_sigkill(tracker, torchrun):
    """The signal is named."""
    job = ended(torchrun, tracker, "is killed")
    assert job.returncode == 1
    assert "SIGKILL" in report_of(job)
    assert re.search(r"run OUT-1 FAILED: rank 1 on \S+: killed by SIGKILL \(http://", our_last_line(job))


@pytest.mark.exhaustive
def test_success(tracker, torchrun):
    """Two lines: which run it is, and that it is COMPLETED."""
    job = ended(torchrun, tracker, "succeeds")
    assert job.returncode == 0
    assert re.fullmatch(r"pluto_dist: run OUT-1 COMPLETED \(http://\S+\)", our_last_line(job))
    assert len([line for line in job.output.splitlines() if "[W" not in line]) == 2, job.output


@pytest.mark.exhaustive
def test_sigterm(tracker, torchrun):
    """A preemption is one line, without a traceback."""
    process = begin(torchrun, tracker, torchrun.write(SCRIPT), "waits")
    wait_for(lambda: all(Path(torchrun.folder, f"started{rank}").exists() for rank in (0, 1)), "the workers")
    os.kill(process.pid, signal.SIGTERM)
    job = torchrun.finish(process)
    assert job.returncode == 1
    assert "TERMINATED" in our_last_line(job)
    assert "Traceback" not in job.output


@pytest.mark.exhaustive
def test_a_cancel(tracker, torchrun):
    """A cancel is one line, with the exit code of a cancel."""
    process = begin(torchrun, tracker, torchrun.write(SCRIPT), "waits")
    wait_for(lambda: all(Path(torchrun.folder, f"started{rank}").exists() for rank in (0, 1)), "the workers")
    (run,) = tracker.runs("output")
    tracker.cancel(run["id"])
    job = torchrun.finish(process)
    assert job.returncode == 77
    assert job.output.splitlines()[-1].startswith("pluto_dist: run OUT-1 was cancelled in the tracker")
    assert "Traceback" not in job.output
