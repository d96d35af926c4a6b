"""How jobs end, each for real, and what the tracker is told: with our launcher, with the wrapper, with init() alone.

Each row prints what came of it, shown by ``pytest -rP``.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from running import wait_for

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers, pytest.mark.timeout(240)]

SCRIPT = """
import os, resource, signal, sys, time
from pathlib import Path
from reporting import report
{init}
rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
folder = Path(os.environ["REPORTS"])

def everybody_is_there(count):
    while len(list(folder.glob("*.json"))) < count:
        time.sleep(0.02)

report(attempt=attempt, pid=os.getpid())
everybody_is_there(2 * (attempt + 1))
time.sleep(0.5)  # for the attaches
how = os.environ["HOW"]
if how == "waits":
    until = time.monotonic() + 40
    while not (folder / "go").exists() and time.monotonic() < until:
        time.sleep(0.05)
elif rank == 1 and (attempt == 0 or how.endswith(", always")):
    what = how.partition(",")[0]
    if what == "raises":
        raise ValueError("boom")
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "memory":
        resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
        hog = bytearray(2**33)
    if what == "cgroup":
        (Path(os.environ["CGROUP"]) / "cgroup.procs").write_text(str(os.getpid()))
        hog = bytearray(2**28)
        for n in range(0, len(hog), 4096):
            hog[n] = 1
    if what == "exits 3":
        sys.exit(3)
    if what == "exits 0":
        sys.exit(0)
elif how != "succeeds":
    time.sleep(20 if how.partition(",")[0] not in ("exits 0",) and attempt == 0 else 1)
"""
INIT = 'import pluto_dist\npluto_dist.init(project="endings")'
WAYS = ("run", "-m", "init")
TERMINATED = (["RUNNING", "TERMINATED"], "SIGTERM")


@dataclass(frozen=True)
class Ending:
    """What happens, with how many restarts, and what must come of it for each way of starting.

    Attributes:
        how: what rank 1 does.
        restarts: --max-restarts.
        fails: whether the job's exit code is not 0.
        expected: for each way the status history, and what the reason says.
    """

    how: str
    restarts: int
    fails: bool
    expected: dict[str, tuple[list[str], str | None]]


def each(history: list[str], reason: str | None = None, **others: Any) -> dict[str, Any]:
    """The same for every way, but for ``others``."""
    return dict.fromkeys(WAYS, (history, reason)) | {name.replace("m", "-m"): value for name, value in others.items()}


COMPLETED, FAILED = ["RUNNING", "COMPLETED"], ["RUNNING", "FAILED"]
ENDINGS = {
    "success": Ending("succeeds", 0, False, each(COMPLETED)),
    "an exception": Ending("raises", 0, True, each(FAILED, "ValueError: boom")),
    "an exception, a restart left": Ending("raises", 1, False, each(COMPLETED)),
    "an exception at each attempt": Ending("raises, always", 1, True, each(FAILED, "ValueError: boom")),
    "SIGKILL": Ending(
        "killed", 0, True, {"run": (FAILED, "^killed by SIGKILL$"), "-m": TERMINATED, "init": TERMINATED}
    ),
    "SIGKILL, a restart left": Ending("killed", 1, False, each(COMPLETED)),
    "a segmentation fault": Ending(
        "segfault", 0, True, {"run": (FAILED, "killed by SIGSEGV"), "-m": TERMINATED, "init": TERMINATED}
    ),
    "no memory, by rlimit": Ending("memory", 0, True, each(FAILED, "MemoryError")),
    "sys.exit(3)": Ending("exits 3", 0, True, each(FAILED, "SystemExit: 3")),
    "sys.exit(0) on one rank": Ending("exits 0", 0, False, each(COMPLETED)),
}
ALWAYS = {
    ("SIGKILL, a restart left", "run"),
    ("SIGKILL", "init"),
}


def start(torchrun, tracker, way: str, how: str, restarts: int = 0, **environ: str) -> subprocess.Popen[str]:
    """The job in the background."""
    script = torchrun.write(SCRIPT.replace("{init}", INIT if way == "init" else ""))
    agent = [sys.executable, "-m", "torch.distributed.run"]
    if way == "run":
        agent = [sys.executable, "-c", "from pluto_dist.cli import main; main()", "run", "--project=endings"]
    options = ["--nproc-per-node=2", f"--max-restarts={restarts}", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    wrapped = ["-m", "pluto_dist", "--project=endings"] if way == "-m" else []
    own = {"HOW": how, "PLUTO_DIST_HEARTBEAT": "1"}
    return torchrun.start_command([*agent, *options, *wrapped, script], tracker.environ() | own | environ)


def pids(torchrun, count: int) -> list[int]:
    """The workers' pids, once ``count`` of them have reported."""
    folder, until = torchrun.folder / f"reports{len(torchrun.started) - 1}", time.monotonic() + 60
    while len(files := list(folder.glob("*.json"))) < count:
        assert time.monotonic() < until, "the workers did not report"
        time.sleep(0.05)
    return [int(re.search(r'"pid": (\d+)', file.read_text())[1]) for file in files]


def row(name: str, way: str, run: dict[str, Any], code: int, seconds: float) -> tuple[list[str], str]:
    """Status history and reason; printed for the table."""
    history = [change["to"] for change in run["statusHistory"]]
    cause = run["statusMetadata"] or {}
    told = f"{cause.get('reason', '')} (rank {cause.get('rank')})" if cause else ""
    print(f"ROW | {name} | {way} | {' -> '.join(history)} | {told} | exit code {code} | {seconds:.1f} s")
    return history, cause.get("reason", "")


CASES = [
    pytest.param(name, way, id=f"{name}-{way}", marks=() if (name, way) in ALWAYS else pytest.mark.exhaustive)
    for name in ENDINGS
    for way in WAYS
]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_the_workers_end(tracker, torchrun, name, way):
    """Whatever a worker ends of: one run, its status and reason as the row says, no status in between."""
    ending = ENDINGS[name]
    began = time.monotonic()
    job = torchrun.finish(start(torchrun, tracker, way, ending.how, ending.restarts))
    assert (job.returncode != 0) == ending.fails, job.output
    (run,) = tracker.runs("endings")
    history, reason = row(name, way, run, job.returncode, time.monotonic() - began)
    wanted, said = ending.expected[way]
    assert history == wanted, job.output
    if said is not None:
        assert re.search(said, reason), (reason, job.output)
    if wanted == FAILED:
        assert run["statusMetadata"]["rank"] == 1


def cgroup() -> Path | None:
    """A memory cgroup of version 1 with a small limit, where this machine lets us make one."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    mine = next((line.split(":", 2)[2] for line in lines if "memory" in line.split(":")[1].split(",")), None)
    folder = Path("/sys/fs/cgroup/memory") / (mine or "").lstrip("/") / f"pluto-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(2**26))
    except OSError:
        return None
    return folder


@pytest.mark.exhaustive
@pytest.mark.parametrize("way", WAYS)
def test_out_of_memory(tracker, torchrun, way):
    """A worker that the kernel kills for lack of memory: the launcher names it; rank 0 alone hears SIGTERM."""
    folder = cgroup()
    if folder is None:
        pytest.skip(
            "no memory cgroup of version 1 can be made here: run as root where /sys/fs/cgroup/memory is writable"
        )
    try:
        began = time.monotonic()
        job = torchrun.finish(start(torchrun, tracker, way, "cgroup", CGROUP=str(folder)))
        (run,) = tracker.runs("endings")
        history, reason = row("out of memory, by cgroup", way, run, job.returncode, time.monotonic() - began)
        assert job.returncode == 1
        assert (history, "out-of-memory killer" in reason) == (
            (FAILED, True) if way == "run" else (TERMINATED[0], False)
        )
    finally:
        folder.rmdir()


SIGNALS = [
    pytest.param("SIGTERM", "run", (["RUNNING", "TERMINATED"], "SIGTERM to the launcher")),
    pytest.param("SIGINT", "run", (["RUNNING", "TERMINATED"], "SIGINT to the launcher"), marks=pytest.mark.exhaustive),
    pytest.param("SIGTERM", "-m", TERMINATED, marks=pytest.mark.exhaustive),
    pytest.param("SIGTERM", "init", TERMINATED, marks=pytest.mark.exhaustive),
    pytest.param("SIGINT", "-m", (["RUNNING", "TERMINATED"], "KeyboardInterrupt"), marks=pytest.mark.exhaustive),
    pytest.param("SIGINT", "init", (["RUNNING", "TERMINATED"], "KeyboardInterrupt"), marks=pytest.mark.exhaustive),
]


@pytest.mark.parametrize(("name", "way", "wanted"), SIGNALS)
def test_the_agent_is_told_to_stop(tracker, torchrun, name, way, wanted):
    """Preemption and ctrl-C: the run is TERMINATED, whatever restarts are left, and the job ends soon."""
    process = start(torchrun, tracker, way, "waits", restarts=0 if way != "run" else 2)
    pids(torchrun, 2)
    time.sleep(1.5)
    began = time.monotonic()
    process.send_signal(signal.Signals[name])
    job = torchrun.finish(process)
    seconds = time.monotonic() - began
    (run,) = tracker.runs("endings")
    history, reason = row(f"{name} to the agent", way, run, job.returncode, seconds)
    assert history == wanted[0], job.output
    assert re.search(wanted[1], reason)
    assert job.returncode != 0
    assert seconds < 20


@pytest.mark.exhaustive
@pytest.mark.parametrize("way", WAYS)
def test_the_agent_is_killed(tracker, torchrun, way):
    """Workers that outlive their agent beat and end the run themselves, whoever started them."""
    process = start(torchrun, tracker, way, "waits")
    pids(torchrun, 2)
    time.sleep(1.5)
    began = time.monotonic()
    process.kill()
    before = heartbeats(tracker)
    time.sleep(3)  # three heartbeats of the worker's own
    beats = heartbeats(tracker) - before
    (torchrun.folder / "reports0" / "go").touch()
    until = time.monotonic() + 60
    while tracker.runs("endings")[0]["status"] == "RUNNING" and time.monotonic() < until:
        time.sleep(0.2)
    (run,) = tracker.runs("endings")
    process.wait(10)
    history, _ = row("SIGKILL to the agent", way, run, process.returncode, time.monotonic() - began)
    assert history == COMPLETED
    assert 2 <= beats <= 4
    process.communicate(timeout=60)


def heartbeats(tracker) -> int:
    """How many the tracker has had."""
    return sum("trigger" in line for line in tracker.log())


def cancel(tracker) -> float:
    """Cancel the run in the tracker, as its page does; when."""
    (run,) = tracker.runs("endings")
    tracker.cancel(run["id"])
    return time.monotonic()


def test_a_cancel_in_the_tracker(tracker, torchrun):
    """The job stops within seconds, with its own exit code and message; no restart revives the run."""
    process = start(torchrun, tracker, "run", "waits", restarts=3)
    pids(torchrun, 2)
    began = cancel(tracker)
    job = torchrun.finish(process)
    seconds = time.monotonic() - began
    (run,) = tracker.runs("endings")
    history, _ = row("cancelled in the tracker, restarts left", "run", run, job.returncode, seconds)
    assert (run["status"], history) == ("CANCELLED", tracker.cancelled), job.output
    assert job.returncode == 77
    assert "was cancelled in the tracker" in job.output
    assert {report["attempt"] for report in job.reports} == {0}
    assert seconds < 20


@pytest.mark.exhaustive
@pytest.mark.parametrize("way", ["-m", "init"])
def test_a_cancel_without_the_launcher(tracker, torchrun, way):
    """No training of ours is ended by us: one warning, and the run stays cancelled when the job is over."""
    process = start(torchrun, tracker, way, "waits", restarts=3)
    pids(torchrun, 2)
    began, before = cancel(tracker), heartbeats(tracker)
    wait_for(lambda: heartbeats(tracker) >= before + 3, "the heartbeats")  # an answer after the cancel is read then
    (torchrun.folder / "reports0" / "go").touch()
    job = torchrun.finish(process)
    (run,) = tracker.runs("endings")
    history, _ = row("cancelled in the tracker, restarts left", way, run, job.returncode, time.monotonic() - began)
    assert (run["status"], history) == ("CANCELLED", tracker.cancelled), job.output
    assert job.returncode == 0
    assert job.output.count("was cancelled in the tracker") == 1
