"""The official SDK on every rank of a job, after `pluto_dist.init()`: one run, and one end of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from offline import ended
from running import Job, Torchrun, Tracker

import pluto_dist
from server.sdk_venv import python_with_sdk

pytestmark = [pytest.mark.multiprocess, pytest.mark.timeout(300)]

TRAIN = """
import os, time, torch.distributed as dist
import pluto, pluto_dist
from reporting import report
dist.init_process_group("gloo")
run = pluto_dist.init(project="handed", name="ours", config={{"lr": 0.1}})
rank = dist.get_rank()
op = {attach}
for step in range(50):
    op.log({{f"loss/rank{{rank}}": 1 / (step + 1)}}, step=step)
time.sleep(6)  # the SDK samples the system every 4 s
dist.barrier()
report(run, op=op.id, resumed_op=op.resumed, env=os.environ.get("PLUTO_RUN_ID"))
{finish}
dist.destroy_process_group()
"""


@pytest.fixture
def with_sdk(torchrun: Torchrun, tracker: Tracker) -> Callable[..., Job]:
    """Starts torchrun in the SDK's environment, which borrows torch and this package from ours."""
    python = str(python_with_sdk())
    paths = (Path(__file__).parent, Path(pluto_dist.__file__).parents[1], sysconfig.get_path("purelib"))

    def go(script: str, *options: str, nproc: int = 4, **variables: str) -> Job:
        agent = [python, "-m", "torch.distributed.run", f"--nproc-per-node={nproc}", *options]
        command = [*agent, torchrun.write(script)]
        environ = {**tracker.environ(), "PYTHONPATH": os.pathsep.join(map(str, paths)), **variables}
        return torchrun.finish(torchrun.start_command(command, environ), 200)

    return go


def names_of(tracker: Tracker, run: dict[str, Any]) -> list[str]:
    """The names of the run's metrics."""
    names: list[str] = tracker._get("/api/runs/metric-names", projectName="handed", runIds=str(run["id"]))[
        "metricNames"
    ]
    return names


def test_attached_on_every_rank(with_sdk: Callable[..., Job], tracker: Tracker):
    """One run with the metrics of all ranks, the system's once per node under its label, and COMPLETED once, last."""
    job = with_sdk(TRAIN.format(attach="run.attach_sdk()", finish="op.finish()\nrun.finish()"), nproc=2)
    assert job.returncode == 0, job.output
    (run,) = tracker.runs("handed")
    assert {(report["id"], report["op"]) for report in job.reports} == {(run["id"], run["id"])}
    names = names_of(tracker, run)
    assert {f"loss/rank{rank}" for rank in range(2)} <= set(names)
    labels = {name.split("/")[1] for name in names if name.startswith("sys/")}
    assert labels == {os.uname().nodename}
    assert ended(run) == ["RUNNING", "COMPLETED"]
    assert run["config"]["lr"] == 0.1
    for rank in range(2):
        points = tracker._get(
            "/api/runs/metrics", runId=str(run["id"]), projectName="handed", logName=f"loss/rank{rank}"
        )["metrics"]
        assert len(points) == 50, rank
    sampled = tracker._get("/api/runs/metrics", runId=str(run["id"]), projectName="handed", logName=min(
        name for name in names if name.startswith("sys/")))["metrics"]  # fmt: skip
    assert len({point["time"] for point in sampled}) == len(sampled), "more than one rank samples"
    print(f"{len(names)} names, {sorted(labels)}, {ended(run)}")


@pytest.mark.exhaustive
def test_a_plain_init_on_every_rank(with_sdk: Callable[..., Job], tracker: Tracker):
    """No argument, no error, one run with everybody's metrics; whatever the SDK posts, COMPLETED is the last word."""
    job = with_sdk(TRAIN.format(attach="pluto.init()", finish="op.finish()\nrun.finish()"))
    assert job.returncode == 0, job.output
    (run,) = tracker.runs("handed")
    assert {(report["id"], report["op"], report["env"]) for report in job.reports} == {
        (run["id"], run["id"], run["externalId"])
    }
    assert {f"loss/rank{rank}" for rank in range(4)} <= set(names_of(tracker, run))
    assert ended(run)[-1] == "COMPLETED"
    print(ended(run))


@pytest.mark.exhaustive
@pytest.mark.parametrize("run_id", ["123", "job-7", "HAN-1"])
def test_ids_as_the_user_gave_them(with_sdk: Callable[..., Job], tracker: Tracker, run_id: str):
    """Digits and a display id lead the SDK to the run that they lead this package to."""
    body = {"runName": "r", "projectName": "handed", "externalId": "job-7"}
    made = tracker.post("/api/runs/create", body)
    named = {"123": str(made["runId"]), "HAN-1": made["displayId"]}.get(run_id, run_id)
    script = (
        "import pluto, pluto_dist\nfrom reporting import report\n"
        f"run = pluto_dist.init(project='handed', run_id={named!r})\n"
        "op = pluto.init()\nreport(run, op=op.id)\nop.close()\nrun.finish()\n"
    )
    job = with_sdk(script, nproc=1)
    assert job.returncode == 0, job.output
    assert {(report["id"], report["op"]) for report in job.reports} == {(made["runId"], made["runId"])}
    assert len(tracker.runs("handed")) == 1


@pytest.mark.parametrize("restarts", [0, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_a_short_job_without_finish(with_sdk: Callable[..., Job], tracker: Tracker, restarts: int):
    """Metrics that are logged just before the script ends, or fails, are uploaded, in each attempt."""
    script = (
        "import os, pluto_dist\nrun = pluto_dist.init(project='handed')\nop = run.attach_sdk()\n"
        "attempt = os.environ['TORCHELASTIC_RESTART_COUNT']\nop.log({'loss' + attempt: 1.0}, step=1)\n"
        f"assert attempt == '{restarts}'\n"
    )
    job = with_sdk(script, f"--max-restarts={restarts}", nproc=2)
    assert job.returncode == 0, job.output
    (run,) = tracker.runs("handed")
    assert {f"loss{attempt}" for attempt in range(restarts + 1)} <= set(names_of(tracker, run))
    assert ended(run) == ["RUNNING", "COMPLETED"]


def test_without_the_sdk(torchrun: Torchrun, tracker: Tracker):
    """attach_sdk() says what to install; the run goes on."""
    script = (
        "import pluto_dist\nfrom reporting import report\nrun = pluto_dist.init(project='handed')\n"
        "try:\n    run.attach_sdk()\n"
        "except pluto_dist.errors.ConfigurationError as error:\n    report(run, error=str(error))\n"
    )
    job = torchrun(script, environ=tracker.environ(), nproc=1)
    assert job.returncode == 0, job.output
    assert "pip install pluto-ml" in job.reports[0]["error"]
    assert [run["status"] for run in tracker.runs("handed")] == ["COMPLETED"]


NESTED = """
import os, subprocess, sys, pluto_dist
from reporting import report
run = pluto_dist.init(project="outer")
inside = os.environ.get("PLUTO_RUN_ID")
child = "import pluto_dist; from reporting import report; report(pluto_dist.init(), child=True)"
subprocess.run([sys.executable, "-c", child], check=True)
run.finish()
report(run, inside=inside, after=os.environ.get("PLUTO_RUN_ID"))
second = pluto_dist.init(project="outer")
report(second, second=True)
"""


@pytest.mark.parametrize("own", ["", "the-users"])
def test_what_is_exported_is_nobodys_id(tracker: Tracker, tmp_path: Path, own: str):
    """A child's launch and the process's next run are runs of their own; the user's variable is back at the end."""
    reports = tmp_path / "reports"
    reports.mkdir()
    environ = {**os.environ, **tracker.environ(), "REPORTS": str(reports), "PYTHONPATH": str(Path(__file__).parent)}
    environ |= {"PLUTO_RUN_ID": own} if own else {}
    subprocess.run([sys.executable, "-c", NESTED], env=environ, check=True, timeout=100)
    told = [json.loads(file.read_text()) for file in reports.glob("*.json")]
    child = next(report for report in told if "child" in report)
    second = next(report for report in told if "second" in report)
    first = next(report for report in told if "inside" in report)
    assert (first["inside"], first["after"]) == (first["run_id"], own or None)
    if own:
        assert {first["run_id"], second["run_id"]} == {own}
    else:
        assert len({first["run_id"], second["run_id"], child["run_id"]}) == 3
        assert child["project"] == "pluto"
