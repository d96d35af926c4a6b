"""Nothing is lost because it was slow: once ``init()`` has returned, or a rank has ended by itself, a run is recorded.

It is in the tracker or on disk, and after `sync` there is one run with the end that the job had. The table over random
jobs: ``python tests/jobs/random_jobs.py SEED...``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import FaultyTracker, faulty_tracker
from offline import kept, sync
from random_jobs import faults_of, random_job, row, run
from running import Torchrun, Tracker

pytestmark = [pytest.mark.multiprocess, pytest.mark.timeout(240)]

SEEDS = (5,)

# torch is imported by pluto_dist's thread, or never; here that takes as long as on a machine that is busy.
SLOW_TORCH = """
import importlib.machinery, os, sys, time
from pathlib import Path
here = Path(os.environ["REPORTS"])
class Slow(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        found = super().find_spec(name, path, target) if name == "torch" else None
        if found is not None:
            execute = found.loader.exec_module
            found.loader.exec_module = lambda module: (cls.wait(), execute(module))
        return found
    @staticmethod
    def wait():
        until = time.monotonic() + float(os.environ["TORCH_SECONDS"])
        while time.monotonic() < until and not (here / "go").exists():
            time.sleep(0.05)
sys.meta_path.insert(0, Slow)
import pluto_dist
"""


@pytest.fixture
def tracker() -> Iterator[FaultyTracker]:
    with faulty_tracker() as faulty:
        yield faulty


@pytest.fixture
def environ(tracker: FaultyTracker, tmp_path: Path) -> dict[str, str]:
    own = {"PLUTO_DIR": str(tmp_path / "state"), "PLUTO_DIST_TIMEOUT": "1", "TORCH_SECONDS": "60"}
    return {**tracker.environ(tmp_path / "authority.pem"), **own, "PLUTO_DIST_HEARTBEAT": "0.5"}


def the_run(tracker: FaultyTracker) -> dict[str, Any]:
    """The one run that there is."""
    tracker.fault = ""
    (found,) = Tracker(tracker.behind).runs("slow")
    return found


def wait_for(folder: Path, pattern: str, count: int) -> list[Path]:
    until = time.monotonic() + 90
    while len(found := list(folder.glob(pattern))) < count:
        assert time.monotonic() < until, f"{len(found)} of {count} {pattern}"
        time.sleep(0.05)
    return found


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(seed, marks=() if seed in SEEDS else pytest.mark.exhaustive)
        for seed in sorted({*SEEDS, *range(1, 51)})
    ],
)
def test_a_random_job(torchrun: Torchrun, tracker: FaultyTracker, tmp_path: Path, seed: int):
    """Whatever happens to ranks and tracker: one run, in the tracker or kept, and after `sync` with its right end."""
    job, began = random_job(seed), time.monotonic()
    left = run(job, torchrun, tracker, tmp_path)
    print(row(job, left, time.monotonic() - began))
    assert faults_of(job, left) == [], left.output


ENDS = {
    "finish": ("run.finish()", "COMPLETED"),
    "neither": ("", "COMPLETED"),
    "an exception": ("if os.environ['RANK'] == '1': raise ValueError('boom')", "FAILED"),
}


@pytest.mark.parametrize("ranks", [2, pytest.param(16, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(
    ("end", "status"),
    [pytest.param(*ENDS[name], id=name, marks=() if name == "finish" else pytest.mark.exhaustive) for name in ENDS],
)
@pytest.mark.parametrize("fault", ["refuses", pytest.param("", marks=pytest.mark.exhaustive, id="up")])
def test_ranks_that_end_before_they_are_connected(
    torchrun: Torchrun, tracker: FaultyTracker, environ: dict[str, str], tmp_path: Path,
    ranks: int, end: str, status: str, fault: str,
):  # fmt: skip
    """They keep one run for all of them, say so, and it has the job's end; no rank waits for torch."""
    tracker.fault = fault
    script = f"{SLOW_TORCH}\nrun = pluto_dist.init(project='slow', config={{'lr': 1}})\n{end}\n"
    began = time.monotonic()
    job = torchrun(script, environ=environ, nproc=ranks)
    assert time.monotonic() - began < 55, "a rank waited for torch"
    assert (job.returncode == 0) == (status == "COMPLETED"), job.output
    assert job.output.count("the run may still come") == 1, job.output
    assert "kept in" in job.output
    assert len(kept(tmp_path / "state")) <= 3
    tracker.fault = ""
    assert sync(environ).returncode == 0
    found = the_run(tracker)
    assert (found["status"], found["config"]["lr"]) == (status, 1)
    assert [record["number"] for record in found["config"]["pluto_dist"]["attempts"].values()] == [1]


def test_all_ranks_are_killed_after_init_has_returned(
    torchrun: Torchrun, tracker: FaultyTracker, environ: dict[str, str], tmp_path: Path
):
    """What init() has not sent by then is on disk before it returns."""
    script = f"{SLOW_TORCH}\npluto_dist.init(project='slow')\n(here / str(os.getpid())).touch()\ntime.sleep(90)\n"
    process = torchrun.start(script, environ=environ)
    for file in wait_for(torchrun.folder / "reports0", "[0-9]*", 2):
        os.kill(int(file.name), signal.SIGKILL)
    torchrun.finish(process)
    assert len(kept(tmp_path / "state")) == 1
    assert sync(environ).returncode == 0
    assert the_run(tracker)["status"] == "RUNNING"


def test_a_run_that_comes_late(torchrun: Torchrun, tracker: FaultyTracker, environ: dict[str, str], tmp_path: Path):
    """The run is created once the ranks are connected; what was kept until then is removed, changes included."""
    script = (
        f"{SLOW_TORCH}\nrun = pluto_dist.init(project='slow')\nrun.update_config({{'early': 1}})\n"
        "(here / ('returned ' + os.environ['RANK'])).touch()\n"
        "until = time.monotonic() + 60\n"
        "while run.id is None and time.monotonic() < until: time.sleep(0.05)\n"
        "(here / ('online ' + os.environ['RANK'])).touch()\n"
        "while not (here / 'end').exists(): time.sleep(0.05)\n"
        "run.finish()\n"
    )
    process = torchrun.start(script, environ=environ)
    reports = torchrun.folder / "reports0"
    wait_for(reports, "returned *", 2)
    assert len(kept(tmp_path / "state")) == 1
    (reports / "go").touch()
    wait_for(reports, "online *", 2)
    until = time.monotonic() + 60
    while kept(tmp_path / "state") and time.monotonic() < until:
        time.sleep(0.1)
    assert kept(tmp_path / "state") == []
    (reports / "end").touch()
    job = torchrun.finish(process)
    assert job.returncode == 0, job.output
    assert kept(tmp_path / "state") == []
    found = the_run(tracker)
    assert (found["status"], found["config"]["early"]) == ("COMPLETED", 1)


@pytest.mark.parametrize("fault", ["", pytest.param("refuses", marks=pytest.mark.exhaustive)], ids=["up", "away"])
def test_another_rank_is_killed_while_rank_0_finishes(
    torchrun: Torchrun, tracker: FaultyTracker, environ: dict[str, str], tmp_path: Path, fault: str
):
    """The agent stops rank 0, which waits for the others in finish(): the run is TERMINATED, not left RUNNING."""
    script = (
        "import os, time, pluto_dist\nfrom pathlib import Path\nhere = Path(os.environ['REPORTS'])\n"
        "run = pluto_dist.init(project='slow', timeout=60)\n"
        "(here / ('joined ' + os.environ['RANK'])).write_text(str(os.getpid()))\n"
        "if os.environ['RANK'] == '1': time.sleep(90)\n"
        "while not (here / 'joined 1').exists(): time.sleep(0.05)\n"
        "(here / 'finishing').touch()\n"
        "run.finish()\n"
    )
    process = torchrun.start(script, environ=environ)
    reports = torchrun.folder / "reports0"
    wait_for(reports, "finishing", 1)
    tracker.fault = fault
    time.sleep(1)
    os.kill(int((reports / "joined 1").read_text()), signal.SIGKILL)
    job = torchrun.finish(process)
    assert job.returncode != 0, job.output
    tracker.fault = ""
    assert sync(environ).returncode == 0
    assert the_run(tracker)["status"] == "TERMINATED", job.output


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.exhaustive), 1])
def test_under_our_launcher(
    torchrun: Torchrun, tracker: FaultyTracker, environ: dict[str, str], tmp_path: Path, victim: int
):
    """A rank that is killed before it is connected: the others keep the run, and the launcher ends it as FAILED."""
    tracker.fault = "refuses"
    slow = "import os\nif 'RANK' in os.environ:\n" + "".join(f"    {line}\n" for line in SLOW_TORCH.splitlines()[:-1])
    (tmp_path / "sitecustomize.py").write_text(slow)
    cli = [sys.executable, "-c", "from pluto_dist.cli import main; main()", "run", "--nproc-per-node=2"]
    script = "import os, time\nfrom pathlib import Path\nhere = Path(os.environ['REPORTS'])\n"
    script += "(here / os.environ['RANK']).write_text(str(os.getpid()))\ntime.sleep(90)\n"
    path = f"{tmp_path}{os.pathsep}{Path(__file__).parent}"
    own = {"PLUTO_PROJECT": "slow", "PYTHONPATH": path}
    process = torchrun.start_command([*cli, torchrun.write(script)], {**environ, **own})
    reports = torchrun.folder / "reports0"
    wait_for(reports, "[01]", 2)
    os.kill(int((reports / str(victim)).read_text()), signal.SIGKILL)
    job = torchrun.finish(process)
    tracker.fault = ""
    done = sync(environ)
    assert done.returncode == 0, done.stdout + done.stderr
    found = the_run(tracker)
    assert (found["status"], found["statusMetadata"]["rank"]) == ("FAILED", victim), job.output
