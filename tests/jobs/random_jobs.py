"""Random short jobs: how long each waits, what its tracker does meanwhile, how its ranks end, and what must be left.

A job is made from its seed alone, so one that fails can be run again: ``python tests/jobs/random_jobs.py SEED...``
prints the table.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults import FaultyTracker, faulty_tracker
from offline import kept, sync
from running import Torchrun, Tracker

DEATHS = (
    "none", "none", "raises", "sys.exit(3)", "SIGTERM to the agent", "SIGTERM to one rank", "SIGKILL of one rank"
)  # fmt: skip
WAYS = ("with", "finish", "neither")
FAULTS = ("", "refuses", "503", "accepts and stalls")

SCRIPT = """
import atexit, os, sys, time
from pathlib import Path
here, rank = Path(os.environ["REPORTS"]), os.environ["RANK"]
def mark(word):
    (here / f"{word} {rank}").write_text(str(os.getpid()))
atexit.register(mark, "over")  # the first to be registered is the last to be called
way, death, victim, seconds = os.environ["HOW"].split(",")
mark("started")
import pluto_dist
mark("calls")
def train():
    mark("returned")
    time.sleep(float(seconds))
    if rank == victim and death == "raises":
        raise ValueError("boom")
    if rank == victim and death == "sys.exit(3)":
        sys.exit(3)
if way == "with":
    with pluto_dist.init(project="lost", config={"lr": 1}) as run:
        train()
else:
    run = pluto_dist.init(project="lost", config={"lr": 1})
    train()
    if way == "finish":
        run.finish()
mark("ended")
"""


@dataclass(frozen=True)
class RandomJob:
    """One job.

    Attributes:
        seed: makes it.
        ranks: number of ranks.
        timeout: PLUTO_DIST_TIMEOUT.
        way: how the script ends its run.
        death: how the job dies, if it does, and ``victim`` the rank that does.
        seconds: of training.
        kill_after: seconds from when every rank can be killed to the signal.
        faults: of the tracker, each with the time when it begins.
    """

    seed: int
    ranks: int
    timeout: float
    way: str
    death: str
    victim: int
    seconds: float
    kill_after: float
    faults: tuple[tuple[float, str], ...]

    def __str__(self) -> str:
        faults = ", ".join(f"{fault or 'up'} at {at:.1f}" for at, fault in self.faults)
        who = f" {self.victim}" if "rank" in self.death or "(" in self.death or self.death == "raises" else ""
        return f"{self.seed} | {self.ranks} ranks | {self.timeout} s | {self.way} | {self.death}{who} | {faults}"


def random_job(seed: int) -> RandomJob:
    """The job of ``seed``."""
    pick = random.Random(seed)
    ranks = pick.randint(1, 4)
    first = (0.0, pick.choice(FAULTS))
    later = [(pick.uniform(0.5, 8.0), pick.choice(FAULTS)) for _ in range(pick.randint(0, 3))]
    return RandomJob(
        seed, ranks, pick.choice((0.5, 3.0, 8.0)), pick.choice(WAYS), pick.choice(DEATHS), pick.randrange(ranks),
        round(pick.choice((0.0, pick.uniform(0, 4))), 1), pick.choice((0.0, pick.uniform(0, 6))),
        (first, *sorted(later)),
    )  # fmt: skip


@dataclass
class Left:
    """What a job left.

    Attributes:
        returncode: of the agent.
        returned: ranks in which ``init()`` returned.
        over: ranks that came to the end of their interpreter, and ``over_before``, those before the signal.
        requests: how many requests were kept on disk.
        before: the statuses of the runs that were in the tracker when the job had ended.
        runs: the runs after `sync`.
        synced: what `sync` printed.
        output: of the job.
    """

    returncode: int
    returned: list[int]
    over: list[int]
    over_before: list[int]
    requests: int
    before: list[str]
    runs: list[dict[str, Any]]
    synced: subprocess.CompletedProcess[str] | None
    output: str

    @property
    def statuses(self) -> list[str]:
        return [run["status"] for run in self.runs]


def run(job: RandomJob, torchrun: Torchrun, tracker: FaultyTracker, folder: Path) -> Left:
    """Run ``job`` to its end, and then `sync`."""
    how = f"{job.way},{job.death},{job.victim},{job.seconds}"
    environ = {
        **tracker.environ(folder / "authority.pem"), "PLUTO_DIR": str(folder / "state"),
        "PLUTO_DIST_TIMEOUT": str(job.timeout), "PLUTO_DIST_HEARTBEAT": "0.5", "HOW": how,
    }  # fmt: skip
    tracker.fault = job.faults[0][1]
    timers = [threading.Timer(at, _set_fault, (tracker, fault)) for at, fault in job.faults[1:]]
    for timer in timers:
        timer.start()
    process = torchrun.start(SCRIPT, environ=environ, nproc=job.ranks)
    reports = torchrun.folder / f"reports{torchrun.started.index(process)}"
    over_before = _kill(job, process, reports) if job.death.startswith("SIG") else []
    done = torchrun.finish(process, 120)
    for timer in timers:
        timer.join(30)
    tracker.fault = ""
    before = [each["status"] for each in Tracker(tracker.behind).runs("lost")]
    requests = len(kept(folder / "state"))
    synced = sync(environ) if requests else None
    runs = Tracker(tracker.behind).runs("lost")
    returned, over = _ranks(reports, "returned"), _ranks(reports, "over")
    return Left(done.returncode, returned, over, over_before, requests, before, runs, synced, done.output)


def _set_fault(tracker: FaultyTracker, fault: str) -> None:
    if tracker.fault != fault:
        tracker.fault = fault


def _ranks(reports: Path, word: str) -> list[int]:
    return sorted(int(file.name.split(" ")[1]) for file in reports.glob(f"{word} *"))


def _kill(job: RandomJob, process: subprocess.Popen[str], reports: Path) -> list[int]:
    """Send the job's signal; the ranks that were over by then."""
    until = time.monotonic() + 90
    while not all(_can_be_killed(reports, rank) for rank in range(job.ranks)):
        assert time.monotonic() < until, "the ranks do not call init()"
        if process.poll() is not None:
            break
        time.sleep(0.02)
    time.sleep(job.kill_after)
    over = _ranks(reports, "over")
    number = signal.SIGKILL if "KILL" in job.death else signal.SIGTERM
    pid = process.pid if "agent" in job.death else int((reports / f"started {job.victim}").read_text())
    if process.poll() is None and ("agent" in job.death or job.victim not in over):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return over


def _can_be_killed(reports: Path, rank: int) -> bool:
    """Whether the rank is over, or in init() or past it: from then on it handles SIGTERM."""
    if (reports / f"over {rank}").exists() or (reports / f"returned {rank}").exists():
        return True
    with suppress(OSError, ValueError):
        status = Path(f"/proc/{int((reports / f'calls {rank}').read_text())}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def ends(job: RandomJob, left: Left) -> set[str] | None:
    """The statuses that are right for the end that the job had; ``None`` if nothing need be left."""
    others_over = set(range(job.ranks)) - {job.victim} <= set(left.over_before)
    if job.death == "raises":
        return {"FAILED"}
    if job.death == "sys.exit(3)":
        return {"FAILED"} if job.way == "with" else {"COMPLETED", "TERMINATED"}
    if job.death == "none" or left.returncode == 0:
        return {"COMPLETED"}
    if job.death == "SIGKILL of one rank" and others_over:  # nobody is left who could say how it ended
        return {"RUNNING", "COMPLETED"} if left.returned else None
    return {"TERMINATED", "COMPLETED"} if left.over else {"TERMINATED"}


def faults_of(job: RandomJob, left: Left) -> list[str]:
    """What is wrong with what is left; empty if nothing is."""
    wanted, found = ends(job, left), []
    if job.death == "none" and left.returncode != 0:
        found.append(f"the job failed with {left.returncode}")
    if left.synced is not None and left.synced.returncode != 0:
        found.append(f"sync kept something: {left.synced.stdout}{left.synced.stderr}")
    if wanted is None and not left.runs:
        return found
    if len(left.runs) != 1:
        found.append(f"{len(left.runs)} runs, {left.requests} requests were kept")
    if wanted is not None and not set(left.statuses) <= wanted:
        found.append(f"the end is {left.statuses}, not {wanted}")
    if left.requests and "kept in" not in left.output:
        found.append("no line says that something is kept")
    return found


def row(job: RandomJob, left: Left, seconds: float) -> str:
    """One line of the table."""
    wrong = "; ".join(faults_of(job, left)).replace("\n", " ")[:150]
    told = f"exit {left.returncode} | {left.before} | {left.requests} kept | {left.statuses} | {seconds:.0f} s"
    return f"| {job} | {told} | {wrong or 'ok'} |"


def main() -> None:
    """Print the table of the seeds in the command line; exits 1 if one is wrong."""
    wrong = 0
    for seed in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as name, faulty_tracker() as tracker:
            jobs, job, began = Torchrun(Path(name)), random_job(seed), time.monotonic()
            try:
                left = run(job, jobs, tracker, Path(name))
            finally:
                jobs.end_all()
            print(row(job, left, time.monotonic() - began), flush=True)
            if faults_of(job, left):
                wrong += 1
                print(left.output, flush=True)
    print(f"{len(sys.argv) - 1} jobs, {wrong} wrong")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
