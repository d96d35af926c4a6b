"""Children of a rank have no part in its run, however they came about; trials of a sweep have runs of their own."""

from __future__ import annotations

import json
import sys

import pytest

pytestmark = pytest.mark.multiprocess

WAYS = ("fork", "spawn", "forkserver", "executor", "loky", "subprocess")
SCRIPT = """
import concurrent.futures, json, multiprocessing, os, subprocess, sys
import pluto_dist

WHEN, RUN_ID = sys.argv[1:3]
if WHEN == "top":
    run = pluto_dist.init(project="children")  # again in every child that imports this file

def child(way):
    run = pluto_dist.init(project="children", run_id=RUN_ID + way if RUN_ID else None)
    os.write(1, f"CHILD {json.dumps([way, run.mode, run.run_id])}\\n".encode())
    run.finish()

def start(way):
    if way in ("fork", "spawn", "forkserver"):
        process = multiprocessing.get_context(way).Process(target=child, args=(way,))
        process.start()
        process.join()
        assert process.exitcode == 0
    elif way == "executor":
        spawn = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
            pool.submit(child, way).result()
    elif way == "loky":
        from joblib.externals.loky import ProcessPoolExecutor
        with ProcessPoolExecutor(1) as pool:
            pool.submit(child, way).result()
    else:
        subprocess.run([sys.executable, __file__, "child", RUN_ID], check=True)

if __name__ == "__main__":
    if WHEN == "child":
        child("subprocess")
    else:
        multiprocessing.get_context("forkserver").Process(target=int).start()  # its environment is of before init()
        if WHEN == "open":
            run = pluto_dist.init(project="children")
        for way in sys.argv[3:]:
            start(way)
        if WHEN == "after":
            pluto_dist.init(project="children").finish()
            start("forkserver")
        if WHEN in ("open", "top"):
            run.finish()
"""


def children(torchrun, tracker, launcher: list[str], when: str, run_id: str = "", ways: tuple[str, ...] = WAYS):
    """What each child saw: way, mode and id of its run; and what the job printed."""
    script = torchrun.write(SCRIPT)
    job = torchrun.finish(torchrun.start_command([*launcher, script, when, run_id, *ways], tracker.environ()))
    assert job.returncode == 0, job.output
    return [json.loads(line[6:]) for line in job.output.splitlines() if line.startswith("CHILD ")], job.output


PYTHON = [sys.executable]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1"]


@pytest.mark.parametrize(
    ("launcher", "when"),
    [
        pytest.param(PYTHON, "open", marks=pytest.mark.exhaustive),
        (PYTHON, "top"),
        (TORCHRUN, "open"),
        pytest.param(TORCHRUN, "never", marks=pytest.mark.exhaustive),
    ],
)
def test_children_of_a_rank(torchrun, tracker, launcher, when):
    """A child of a rank, or of a process with an open run, creates nothing and attaches to nothing."""
    ways = WAYS if when != "never" else WAYS[:-1]  # torchrun itself may start the script through another process
    seen, output = children(torchrun, tracker, launcher, when, ways=ways)
    assert output.count("init() does nothing in a child") == len(ways)
    assert sorted(seen) == sorted([way, "disabled", None] for way in ways)
    runs = tracker.runs("children")
    assert [(run["status"], len(run["attaches"])) for run in runs] == [("COMPLETED", 1)] * (when != "never")


def test_trials_of_a_sweep(torchrun, tracker):
    """Children of a process that has neither a launcher nor an open run are processes as any other."""
    seen, output = children(torchrun, tracker, PYTHON, "after")
    assert [(way, mode) for way, mode, _ in seen] == [(way, "online") for way in (*WAYS, "forkserver")]
    runs = tracker.runs("children")
    assert {run["externalId"] for run in runs} > {run_id for *_, run_id in seen}
    assert len(runs) == len(WAYS) + 2
    assert output.count("it has a run of its own") == len(WAYS)  # all but the one of subprocess
    assert {run["status"] for run in runs} == {"COMPLETED"}


@pytest.mark.exhaustive
def test_a_run_id_of_its_own(torchrun, tracker):
    """A child that names a run other than its parent's is in that run, beside its parent."""
    seen, _ = children(torchrun, tracker, TORCHRUN, "open", "trial-", ("fork", "spawn", "subprocess"))
    assert seen == [[way, "online", f"trial-{way}"] for way in ("fork", "spawn", "subprocess")]
    assert [run["status"] for run in tracker.runs("children")] == ["COMPLETED"] * 4
