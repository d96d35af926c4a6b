"""Where in a script init() stands, and on which ranks, makes no difference."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers]

AROUND_PROCESS_GROUP = """
import os, sys, time
import torch, torch.distributed as dist
import pluto_dist
from reporting import report

WHERE = os.environ["WHERE"]
run = pluto_dist.init(project="started") if WHERE == "before" else None
dist.init_process_group("gloo")
ones = torch.ones(1)
dist.all_reduce(ones)
if run is None:
    run = pluto_dist.init(project="started")
dist.all_reduce(ones)
group = dist.new_group([0, 1])
dist.all_reduce(ones, group=group)
report(run, total=ones.item())
run.finish()
dist.destroy_process_group()
"""


@pytest.mark.parametrize(
    ("where", "private"),
    [
        ("after", "0"),
        ("before", "1"),
        pytest.param("before", "0", marks=pytest.mark.exhaustive),
        pytest.param("after", "1", marks=pytest.mark.exhaustive),
    ],
)
def test_before_and_after_init_process_group(tracker, torchrun, where, private):
    """init() meets the ranks with or without a process group, and does not disturb it."""
    environ = tracker.environ() | {"WHERE": where, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": private}
    job = torchrun(AROUND_PROCESS_GROUP, environ=environ)

    assert job.returncode == 0, job.output
    assert [report["total"] for report in job.reports] == [8, 8]
    assert len({report["id"] for report in job.reports}) == 1
    assert len(tracker.runs("started")) == 1
    assert len(tracker.creates()) == 2


@pytest.mark.exhaustive
@pytest.mark.parametrize("caller", [0, 1])
def test_on_one_rank_only(tracker, torchrun, caller):
    """One rank alone gets its run within the timeout, whether or not it is the leader."""
    job = torchrun(
        "import os, time, pluto_dist\nfrom reporting import report\n"
        f"if os.environ['RANK'] == '{caller}':\n"
        "    began = time.monotonic()\n"
        "    run = pluto_dist.init(project='started', config={'lr': 1}, timeout=30)\n"
        "    report(run, seconds=time.monotonic() - began)\n",
        environ=tracker.environ(),
    )
    assert job.returncode == 0, job.output
    (report,) = job.reports
    assert report["mode"] == "online"
    assert report["seconds"] < 30
    (run,) = tracker.runs("started")
    assert run["config"]["lr"] == 1
    assert run["systemMetadata"]["cluster"]["nodes_reported"] == 1
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "COMPLETED"]


def test_no_wait(tracker, torchrun):
    """wait=False returns with the id; what needs the tracker's answer is there on first use."""
    job = torchrun(
        "import pluto_dist\nfrom reporting import report\n"
        "run = pluto_dist.init(project='started', wait=False)\n"
        "report(run)\n",
        environ=tracker.environ(),
    )
    assert job.returncode == 0
    assert [(report["mode"], report["number"]) for report in job.reports] == [("online", 1)] * 2


def test_elastic_launch_of_a_function(tracker, torchrun, tmp_path):
    """Workers that torch's agent starts through multiprocessing are its workers, not strangers' children."""
    (tmp_path / "workers.py").write_text(
        "import pluto_dist\nfrom reporting import report\n"
        "def work():\n"
        "    run = pluto_dist.init(project='started')\n"
        "    report(run)\n"
        "    run.finish()\n"
    )
    job = torchrun(
        "from torch.distributed.launcher.api import LaunchConfig, elastic_launch\n"
        "from workers import work\n"
        "if __name__ == '__main__':\n"
        "    config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=2, run_id='123', rdzv_backend='c10d',\n"
        "                          rdzv_endpoint='localhost:0', max_restarts=0)\n"
        "    elastic_launch(config, work)()\n",
        nproc=1,
        environ=tracker.environ(),
    )
    assert job.returncode == 0, job.output
    assert len({report["run_id"] for report in job.reports}) == 1
    assert len(job.reports) == 2
    assert job.reports[0]["run_id"].startswith("torchrun-123-")
