"""Ranks that a real Slurm starts: srun on one node and on two, torchrun in steps of a batch script, and a requeue.

A virtual node's name does not resolve, so ranks on two of them are told to meet at localhost.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import gpu_cgroups
import pytest
from running import Job, Torchrun
from slurm import Slurm, two_nodes, why_not
from test_ways_to_start import check_one_run, free_port, run_python

from fakenvml import build

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers]

# A rank's report needs its number, which srun's tasks have under another name, and torchrun's workers have.
SCRIPT = """
import os, sys, time, pluto_dist
from reporting import report
run = pluto_dist.init(project="ways")
os.environ.setdefault("RANK", os.environ.get("SLURM_PROCID", "0"))
names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_NTASKS")
report(run, **{name.lower()[6:]: os.environ.get(name) for name in names})
if sys.argv[1:] == ["train"] and "SLURM_RESTART_COUNT" not in os.environ:
    time.sleep(120)  # until the requeue
"""
# A node waits a second for what its ranks see, so these begin together; on this machine they share two cores.
TOGETHER = """
import os, time, torch.distributed
from pathlib import Path
here = Path(os.environ["MEETING"])
(here / os.environ["SLURM_PROCID"]).touch()
while len(list(here.iterdir())) < int(os.environ["SLURM_NTASKS"]):
    time.sleep(0.01)
"""
PATIENT = {"PLUTO_DIST_TIMEOUT": "60"}  # ranks on a busy machine may need half a minute to import torch
RESUME = {"PLUTO_DIST_RESUME": "1"}
BEGIN_SECONDS, JOB_SECONDS = 60.0, 120.0


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """A Slurm with two nodes; where it cannot be had tests are skipped, in CI they fail."""
    if reason := why_not():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with two_nodes() as found:
        yield found


@pytest.fixture
def user(slurm, torchrun, tracker) -> Iterator[User]:
    """Starts jobs; none is left after the test."""
    yield User(slurm, torchrun, tracker.environ() | slurm.environ | PATIENT)
    slurm.cancel_all()


@pytest.fixture
def gpus_of_every_node(fake_library, tmp_path) -> dict[str, str]:
    """What gives every node eight GPUs."""
    profile = build.write_profile(tmp_path / "node.profile", "h100")
    (tmp_path / "meeting").mkdir()
    return build.environ(fake_library, profile, tmp_path / "calls.log") | {"MEETING": str(tmp_path / "meeting")}


@dataclass
class User:
    """Does what a user of Slurm does; all jobs report to the one tracker."""

    slurm: Slurm
    jobs: Torchrun
    environ: dict[str, str]

    def run(self, *command: str, environ: dict[str, str] | None = None) -> Job:
        """``srun`` or ``salloc``, until it has ended."""
        return run_python(self.jobs, list(command), self.environ | (environ or {}))

    def batch(
        self, *lines: str, environ: dict[str, str] | None = None, meanwhile: Callable[[], None] | None = None
    ) -> Job:
        """sbatch a script of these lines, for two tasks on one node; what it prints is the job's output."""
        output = self.jobs.folder / "batch.out"
        command = ["sbatch", "--parsable", "--nodes=1", "--ntasks=2", f"--output={output}"]
        process = self.jobs.start_command([*command, f"--wrap={' && '.join(lines)}"], self.environ | (environ or {}))
        assert process.wait(BEGIN_SECONDS) == 0, process.communicate()[0]
        if meanwhile is not None:
            meanwhile()
        self.slurm.await_jobs(JOB_SECONDS)  # sbatch --wait looks for the end only twice a minute
        job = self.jobs.finish(process)
        state = self.slurm.run("squeue", "--noheader", "--states=all", f"--jobs={job.output.strip()}", "--format=%T")
        return replace(job, returncode=0 if state.strip() == "COMPLETED" else 1, output=output.read_text())

    def python(self, *arguments: str) -> str:
        """A line of shell that runs the script."""
        return shlex.join([sys.executable, self.jobs.write(SCRIPT), *arguments])

    def torchrun_step(self, *arguments: str) -> str:
        """A line of shell that runs the script under torchrun, in a step of its own."""
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
        return shlex.join(["srun", "-N1", "-n1", *torchrun, self.jobs.write(SCRIPT), *arguments])

    def requeue_after(self, reports: int) -> None:
        """Wait for so many reports of the one job that runs, then have it start again."""
        give_up = time.monotonic() + BEGIN_SECONDS
        while len(list(self.jobs.folder.glob("reports*/*.json"))) < reports:
            assert time.monotonic() < give_up, "the job does not begin"
            time.sleep(0.05)
        job = self.slurm.run("squeue", "--noheader", "--format=%A").strip()
        self.slurm.run("scontrol", "requeue", job)
        while self.slurm.run("squeue", "--noheader", "--format=%T").strip() != "PENDING":
            assert time.monotonic() < give_up, "the job is not requeued"
            time.sleep(0.05)
        self.slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")  # else two minutes from now


@pytest.mark.exhaustive
def test_srun_on_one_node(tracker, user):
    """Four tasks of one step on one node, with no address given, are in one run, by one call each."""
    job = user.run("srun", "-N1", "-n4", sys.executable, user.jobs.write(SCRIPT))
    run = check_one_run(tracker, job, ranks=4)
    assert run["externalId"].startswith("slurm-")
    assert len(tracker.creates()) == 4


@pytest.mark.parametrize("with_port", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_srun_on_two_nodes(tracker, user, with_port):
    """The tasks of a step on two nodes are in one run: its job and step make a port where MASTER_PORT is not set."""
    place = {"MASTER_ADDR": "localhost"} | ({"MASTER_PORT": str(free_port())} if with_port else {})
    job = user.run("srun", "-N2", "-n4", sys.executable, user.jobs.write(SCRIPT), environ=place)
    run = check_one_run(tracker, job, ranks=4)
    assert run["externalId"].startswith("slurm-")
    assert run["systemMetadata"]["cluster"]["nodes_reported"] == 2


def nodes_of(tracker) -> list[dict[str, Any]]:
    (run,) = tracker.runs("ways")
    return run["systemMetadata"]["nodes"]


@pytest.mark.exhaustive
def test_gpus_per_task(tracker, user, gpus_of_every_node):
    """Each task has a list of its own of GPUs, which one process of the node alone would not know."""
    tasks = ["srun", "-N1", "-n4", "--gpus-per-task=2", sys.executable, user.jobs.write(TOGETHER + SCRIPT)]
    job = user.run(*tasks, environ=gpus_of_every_node)
    check_one_run(tracker, job, ranks=4)
    (node,) = nodes_of(tracker)
    assert node["visible_of_rank"] == ["0,1", "2,3", "4,5", "6,7"]
    assert node["gpu_of_rank"] == [0, 2, 4, 6]
    assert "visible" not in node


def test_tasks_that_see_one_gpu_each(tracker, user, gpus_of_every_node, tmp_path):
    """Where a cgroup shows each task its own GPU only, as number 0, the run has them all, each with its rank."""
    if reason := gpu_cgroups.why_not():
        pytest.skip(reason)
    (tmp_path / "machine").mkdir()
    with gpu_cgroups.one_gpu_per_task(tmp_path / "machine") as task:
        script = user.jobs.write(TOGETHER + SCRIPT)
        job = user.run("srun", "-N1", "-n4", task, sys.executable, script, environ=gpus_of_every_node)
    run = check_one_run(tracker, job, ranks=4)
    metadata = run["systemMetadata"]
    (node,) = metadata["nodes"]
    assert node["gpus"] == [gpu_cgroups.UUID.format(gpu) for gpu in range(4)]
    assert node["gpu_of_rank"] == [3, 2, 1, 0]
    assert node["visible_of_rank"] == ["0", "0", "0", "0"]
    assert len(node["hidden"]) == 3
    assert metadata["cluster"]["gpus"] == metadata["gpu"]["nvidia"]["count"] == 4
    assert "drift" not in metadata
    assert [each["memory"]["total"] for each in metadata["gpu"]["nvidia"]["devices"]] == [85520809984] * 4
    assert len({call.pid for call in build.read_log(tmp_path / "calls.log")}) == 1
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    command = [
        sys.executable,
        "-c",
        "from pluto_dist.cli import main; main()",
        "nodes",
        "--all",
        str(tmp_path / "metadata.json"),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "4 x NVIDIA H100" in shown
    assert "a cgroup hides 3 GPUs" in shown
    print(shown)


@pytest.mark.exhaustive
def test_ranks_that_alternate_between_nodes(tracker, user, gpus_of_every_node):
    """Slurm deals ranks out to nodes in turn where it is told so; the run says which are where, and on which GPU."""
    tasks = ["srun", "-N2", "--ntasks-per-node=2", "--distribution=cyclic", "--gpus-per-node=4"]
    command = [*tasks, sys.executable, user.jobs.write(TOGETHER + SCRIPT)]
    job = user.run(*command, environ=gpus_of_every_node | {"MASTER_ADDR": "localhost"})
    check_one_run(tracker, job, ranks=4)
    first, second = nodes_of(tracker)
    assert (first["rank"], first["ranks"]) == (0, [0, 2])
    assert (second["rank"], second["ranks"]) == (1, [1, 3])
    assert first["gpu_of_rank"] == second["gpu_of_rank"] == [0, 1]
    assert first["visible"] == "0,1,2,3"


def check_steps(tracker, job: Job, launches: int = 1) -> None:
    """Two steps, two runs, each named after its step; ``launches`` of each, of which all but the first resumed."""
    assert job.returncode == 0, job.output
    runs = tracker.runs("ways")
    assert len(runs) == 2
    for step, run in enumerate(runs):
        reports = [report for report in job.reports if report["step_id"] == str(step)]
        reports.sort(key=lambda report: report["at"])
        assert {report["run_id"] for report in reports} == {run["externalId"]}
        assert run["externalId"].startswith(f"slurm-lab_{reports[0]['job_id']}.{step}-")
        assert [report["resumed"] for report in reports] == [False] * 2 + [True] * 2 * (launches - 1)
        assert (run["status"], len(run["config"]["pluto_dist"]["attempts"])) == ("COMPLETED", launches)


@pytest.mark.exhaustive
def test_steps_that_resume(tracker, user):
    """With resume, two torchruns one after the other in a batch script are two steps of the job: two runs."""
    job = user.batch(user.torchrun_step(), user.torchrun_step(), environ=RESUME)
    check_steps(tracker, job)


@pytest.mark.exhaustive
def test_a_requeued_job_that_resumes(tracker, user):
    """A job that is requeued in its second step goes on with the runs of both."""
    lines = user.torchrun_step(), user.torchrun_step("train")
    job = user.batch(*lines, environ=RESUME, meanwhile=lambda: user.requeue_after(reports=4))
    check_steps(tracker, job, launches=2)


@pytest.mark.exhaustive
def test_a_requeued_job_that_does_not_resume(tracker, user):
    """Without resume a requeued job is a new run, and its leader says once how it would have been the same."""
    job = user.batch(user.torchrun_step("train"), meanwhile=lambda: user.requeue_after(reports=2))
    assert job.returncode == 0, job.output
    assert sorted(report["number"] for report in job.reports) == [1] * 2 + [2] * 2
    assert not any(report["resumed"] for report in job.reports)
    (line,) = [line for line in job.output.splitlines() if "was requeued" in line]
    assert "PLUTO_DIST_RESUME=1" in line


@pytest.mark.exhaustive
def test_two_programs_of_one_step(tracker, user):
    """Programs that run one after the other in one step are launches of their own: two runs, none resumed."""
    job = user.run("srun", "-N1", "-n2", "sh", "-c", f"{user.python()} && {user.python()}")
    assert job.returncode == 0, job.output
    assert len(tracker.runs("ways")) == 2
    assert sorted(report["number"] for report in job.reports) == [1] * 2 + [2] * 2
    assert not any(report["resumed"] for report in job.reports)


@pytest.mark.exhaustive
@pytest.mark.parametrize("allocated_by", ["sbatch", "salloc"])
def test_no_step(tracker, user, allocated_by):
    """Python in an allocation, without srun, is one process: a run of its own, though Slurm promises two tasks."""
    lines = user.python(), user.python()
    if allocated_by == "sbatch":
        job = user.batch(*lines)
    else:
        job = user.run("salloc", "--nodes=1", "--ntasks=2", "sh", "-c", " && ".join(lines))
    assert job.returncode == 0, job.output
    assert [report["number"] for report in job.reports] == [1, 2]
    assert {(report["step_id"], report["ntasks"]) for report in job.reports} == {(None, "2")}
    assert all(run["externalId"].startswith("single-") for run in tracker.runs("ways"))
    assert not any(report["resumed"] for report in job.reports)
