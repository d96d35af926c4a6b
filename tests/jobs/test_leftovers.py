"""After finish() nothing of ours is left in the process."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers]

LOOK_AROUND = """
import atexit, gc, os, sys, threading
from pathlib import Path
import psutil
import torch.distributed
import pluto_dist, pluto_dist.api
from reporting import report

def around():
    gc.collect()
    process = psutil.Process()
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "processes": len(process.children(recursive=True)),
        "sockets": len(process.net_connections(kind="all")),
        "files": sorted(file.path for file in process.open_files()),
        "variables": sorted(f"{name}={value}" for name, value in os.environ.items()),
        "excepthook": sys.excepthook is sys.__excepthook__,
        "hooks at exit": atexit._ncallbacks(),
        "working directory": sorted(str(path) for path in Path.cwd().rglob("*") if "reports" not in str(path)),
    }

def life(project):
    run = pluto_dist.init(project=project, config={"lr": 0.1})
    run.update_config({"best": 1})
    run.finish()

life("first")  # loads what is loaded once
before = around()
life("second")
report(before=before, after=around())
"""


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.exhaustive), 2])
def test_nothing_is_left_after_finish(tracker, torchrun, ranks):
    """Threads, processes, sockets, files, variables and hooks are what they were before init()."""
    job = torchrun(LOOK_AROUND, nproc=ranks, environ=tracker.environ())
    assert job.returncode == 0, job.output
    assert len(job.reports) == ranks
    for report in job.reports:
        assert report["after"] == report["before"]
        assert report["after"]["threads"] == ["MainThread"]
        assert report["after"]["excepthook"] is True
