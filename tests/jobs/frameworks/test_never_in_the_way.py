"""A process that lacks something, or was changed: a warning at most, init() in time, the training as it would be."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from framework_venv import python_with
from running import Torchrun, Tracker

pytestmark = [pytest.mark.multiprocess, pytest.mark.timeout(240)]

SCRIPT = Path(__file__).parent / "scripts" / "hindered.py"
EXHAUSTIVE = pytest.mark.exhaustive
COMPLETED = ["COMPLETED"]
# What hinders, the environment, and the runs that are to come of it.
TROUBLES = [
    pytest.param("no thread, before", "sweeps", [], id="no thread before init()"),
    pytest.param("no thread, after", "sweeps", COMPLETED, id="no thread after init()"),
    pytest.param("no file, before", "sweeps", [], id="no file before init()"),
    # Neither the tracker nor the disk takes its end: the monitor of the tracker ends it.
    pytest.param("no file, after", "sweeps", ["RUNNING"], id="no file after init()", marks=EXHAUSTIVE),
    pytest.param("MASTER_PORT, before", "sweeps", COMPLETED, id="MASTER_PORT changed"),
    pytest.param("host name of text", "sweeps", COMPLETED, id="host name beyond latin-1", marks=EXHAUSTIVE),
    pytest.param("host name of bytes", "sweeps", COMPLETED, id="host name that is no text", marks=EXHAUSTIVE),
    pytest.param("gevent", "greenlets", COMPLETED, id="gevent", marks=EXHAUSTIVE),
    pytest.param("eventlet", "greenlets", COMPLETED, id="eventlet", marks=EXHAUSTIVE),
    pytest.param("urllib3", "urllib3", COMPLETED, id="urllib3 1.26"),
]


@pytest.mark.parametrize(("trouble", "environment", "ends"), TROUBLES)
def test_a_process_that_is_hindered(
    torchrun: Torchrun, tracker: Tracker, trouble: str, environment: str, ends: list[str]
):
    """The training's result and exit code are its own, and at most one line warns of it."""
    command = [str(python_with(environment)), str(SCRIPT)]
    ranks = 2 if trouble.startswith("MASTER_PORT") else 1
    if ranks > 1:
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", str(SCRIPT)]
    if trouble.startswith("host name"):
        if os.geteuid() != 0:
            pytest.skip("needs root, for a host name of its own")
        command = ["unshare", "--uts", *command]
    job = torchrun.finish(torchrun.start_command(command, {**tracker.environ(), "TROUBLE": trouble}), 150)

    assert job.returncode == (1 if ranks > 1 else 7), job.output
    assert [report["total"] for report in job.reports] == [100.0] * ranks, job.output
    assert all(report["seconds"] < 15 for report in job.reports)
    assert "Traceback" not in job.output or ranks > 1  # torchrun's, for the exit code
    assert sum("going on without" in line for line in job.output.splitlines()) == (0 if ends else 1), job.output
    runs = tracker.runs("hindered")
    assert [run["status"] for run in runs] == ends
    assert ends != COMPLETED or runs[0]["config"]["total"] == 100.0
