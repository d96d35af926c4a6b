"""What a job does when the tracker does not want it, or is not there."""

from __future__ import annotations

import socket

import pytest
from running import wait_for

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers]


def test_a_wrong_key_is_the_same_error_on_every_rank(tracker, torchrun):
    """Every rank raises the same error long before the timeout of init(), and the key is nowhere in the output."""
    wrong = "mlps_" + "x7" * 20
    job = torchrun(
        "import time, torch.distributed, pluto_dist\nfrom reporting import report\n"
        "began = time.monotonic()\n"
        "try:\n"
        "    pluto_dist.init(project='refused', timeout=120)\n"
        "except pluto_dist.errors.AuthenticationError as error:\n"
        "    report(error=str(error), seconds=time.monotonic() - began)\n"
        "    raise\n",
        environ=tracker.environ() | {"PLUTO_API_KEY": wrong},
    )
    assert job.returncode != 0
    assert [report["rank"] for report in job.reports] == [0, 1]
    assert len({report["error"] for report in job.reports}) == 1
    assert "PLUTO_API_KEY" in job.reports[0]["error"]
    assert max(report["seconds"] for report in job.reports) < 30
    assert wrong not in job.output
    assert tracker.runs("refused") == []


TRAIN = """
import torch, torch.distributed as dist, pluto_dist
from reporting import report
dist.init_process_group("gloo")
run = pluto_dist.init(project="down")
total = torch.ones(1)
for step in range(200):
    dist.all_reduce(total, op=dist.ReduceOp.AVG if False else dist.ReduceOp.MAX)
report(run, total=total.item())
run.finish()
dist.destroy_process_group()
"""


def test_a_tracker_that_is_down_costs_one_warning(torchrun):
    """All ranks go on offline together, training completes, and the job says so once."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: refuses for as long as the test runs
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        job = torchrun(TRAIN, environ={"PLUTO_API_KEY": "k", "PLUTO_URL_API": url, "PLUTO_DIST_TIMEOUT": "4"})

    assert job.returncode == 0, job.output
    assert [report["mode"] for report in job.reports] == ["offline"] * 2
    assert len({report["run_id"] for report in job.reports}) == 1
    lines = [line for line in job.output.splitlines() if "pluto_dist" in line]
    assert len(lines) == 1, job.output
    assert "going on offline" in lines[0]


@pytest.mark.exhaustive
def test_a_tracker_that_dies_in_mid_run(tracker, torchrun):
    """A run whose tracker goes away ends in time, with one warning on the leader."""
    process = torchrun.start(
        "import os, time, pluto_dist\nfrom pathlib import Path\nfrom reporting import report\n"
        "run = pluto_dist.init(project='dying')\n"
        "report(run)\n"
        "while not (Path(os.environ['REPORTS']) / 'dead').exists(): time.sleep(0.02)\n"
        "began = time.monotonic()\n"
        "run.finish()\n"
        "report(run, seconds=time.monotonic() - began)\n",
        environ=tracker.environ(),
    )
    reports = torchrun.folder / "reports0"
    wait_for(lambda: len(list(reports.glob("*.json"))) == 2, "the ranks")
    (run,) = tracker.runs("dying")
    wait_for(lambda: len(tracker.run(run["id"])["attaches"]) == 2, "the attaches")
    tracker.server.stop()
    (reports / "dead").touch()
    job = torchrun.finish(process)

    assert job.returncode == 0, job.output
    assert len(job.reports) == 4
    assert max(report.get("seconds", 0) for report in job.reports) < 30
    assert job.output.count("could not be reported to the tracker") == 1


@pytest.mark.exhaustive
def test_without_a_key_the_job_runs_offline(torchrun):
    """No key: one line, no request, the same run id on all ranks."""
    job = torchrun(TRAIN, environ={})
    assert job.returncode == 0, job.output
    assert [report["mode"] for report in job.reports] == ["offline"] * 2
    assert job.output.count("no API key") == 1


@pytest.mark.exhaustive
def test_one_rank_with_another_run_id(tracker, torchrun):
    """Ranks that name different runs get the same error, which tells both names; nothing is created twice."""
    job = torchrun(
        "import os, pluto_dist\nfrom reporting import report\n"
        "try:\n"
        "    pluto_dist.init(project='apart', run_id='job-' + os.environ['RANK'])\n"
        "except pluto_dist.errors.RunIdMismatchError as error:\n"
        "    report(error=str(error))\n",
        environ=tracker.environ(),
    )
    assert job.returncode == 0, job.output
    errors = [report["error"] for report in job.reports]
    assert errors
    assert all("'job-0'" in error and "'job-1'" in error for error in errors)
    assert len(tracker.runs("apart")) <= 1
