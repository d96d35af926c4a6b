"""A plain ``init()`` without ``with``: every way out of a process, started in five ways, and what the tracker has then.

Each row prints what came of it, shown by ``pytest -rP``.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from running import Job, wait_for
from test_ways_to_start import free_port

pytestmark = [pytest.mark.multiprocess, pytest.mark.timeout(240)]

SCRIPT = """
import os, signal, sys, threading, time
import pluto_dist
def main():
    pass
run = pluto_dist.init(project="ways out")
if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
"""
CHILD = """
import multiprocessing, os
import torch.multiprocessing
def child(index=0):
    os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=os.environ["PORT"])
    import pluto_dist
    run = pluto_dist.init(project="ways out")
    if os.environ["HOW"] == "raises":
        raise ValueError("boom")
if __name__ == "__main__":
    library, method = os.environ["METHOD"].split()
    if library == "torch":
        try:
            torch.multiprocessing.start_processes(child, nprocs=1, start_method=method)
        except torch.multiprocessing.ProcessRaisedException as error:
            print("the parent:", error)
    else:
        process = multiprocessing.get_context(method).Process(target=child)
        process.start()
        process.join()
"""
STARTS = ("python", "torchrun", "torchrun, a restart left", "-m pluto_dist", "pluto-dist run")
COMPLETED, FAILED, TERMINATED = "COMPLETED ", "FAILED ", "TERMINATED "
RAISED = "FAILED ZeroDivisionError"
SIGTERM = "TERMINATED SIGTERM"
SILENT = "RUNNING "


@dataclass(frozen=True)
class Way:
    """A way out of a process.

    Attributes:
        body: the rest of the script.
        end: status and reason that the tracker has in the end.
        fails: whether the process fails, so that a restart continues the run.
        others: for the starts that know more, or other things, the same.
    """

    body: str
    end: str
    fails: bool = True
    others: tuple[tuple[str, str], ...] = ()

    def expected(self, start: str) -> str:
        default = COMPLETED if self.fails and "restart" in start else self.end
        return dict(self.others).get(start, default)


def launchers(end: str) -> tuple[tuple[str, str], ...]:
    """What the launcher sees of a death of which Python knows nothing, or less."""
    return (("pluto-dist run", end),)


def wrapped(end: str) -> tuple[tuple[str, str], ...]:
    """What is known if the script runs in our wrapper."""
    return (("-m pluto_dist", end), ("pluto-dist run", end))


HANDLED = "try:\n    1 / 0\nexcept ZeroDivisionError:\n    "
CLICK = "import click\n@click.command()\ndef cli():\n    {}\ncli([])"
UNKNOWN = "TERMINATED ended without a word" if sys.version_info < (3, 12) else "(FAILED|COMPLETED) "
WAYS = {
    "the end of the script": Way("pass", COMPLETED, fails=False),
    "finish()": Way("run.finish()", COMPLETED, fails=False),
    "an exception": Way("1 / 0", RAISED),
    "the same, excepthook replaced": Way("sys.excepthook = lambda *_: print('mine')\n1 / 0", RAISED),
    "the same in asyncio": Way("import asyncio\nasync def work():\n    1 / 0\nasyncio.run(work())", RAISED),
    "an exception in a thread": Way(
        "t = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()", COMPLETED, fails=False),
    "ctrl-C": Way(
        "raise KeyboardInterrupt", "TERMINATED KeyboardInterrupt", others=launchers("FAILED KeyboardInterrupt")),
    "sys.exit()": Way("sys.exit()", COMPLETED, fails=False),
    "sys.exit(main()), None": Way("sys.exit(main())", COMPLETED, fails=False),
    "sys.exit(3)": Way("sys.exit(3)", "FAILED SystemExit: 3"),
    "sys.exit('text')": Way("sys.exit('text')", "FAILED SystemExit: text"),
    "quit(2)": Way("quit(2)", "FAILED SystemExit: 2"),
    "exit()": Way("exit()", COMPLETED, fails=False),
    "argparse's error": Way("import argparse\nargparse.ArgumentParser().parse_args(['--x'])", "FAILED SystemExit: 2"),
    "click: an error": Way(CLICK.format("raise click.ClickException('bad')"), FAILED),
    "click: a success": Way(CLICK.format("pass"), COMPLETED, fails=False),
    "sys.exit(1) in except": Way(f"{HANDLED}sys.exit(1)", RAISED),
    "a sys.exit(3) that is caught": Way("try:\n    sys.exit(3)\nexcept SystemExit:\n    pass", COMPLETED, fails=False),
    "raise SystemExit('text')": Way("raise SystemExit('text')", UNKNOWN, others=(
        (STARTS[2], COMPLETED), *wrapped("FAILED SystemExit: text"))),
    "raise SystemExit(main()), None": Way("raise SystemExit(main())", UNKNOWN, fails=False, others=wrapped(COMPLETED)),
    "finally: run.finish()": Way("try:\n    1 / 0\nfinally:\n    run.finish()", RAISED),
    "except: run.finish()": Way(f"{HANDLED}run.finish()", "TERMINATED ZeroDivisionError", fails=False),
    "except: run.finish(); raise": Way(f"{HANDLED}run.finish()\n    raise", RAISED),
    "finish(status='FAILED')": Way("run.finish(status='FAILED')", "FAILED finish", fails=False),
    "finish(status='FAILED'), another run": Way(
        "run.finish(status='FAILED')\nrun = pluto_dist.init(project='others')", "FAILED finish", fails=False),
    "finish(exit_code=3), sys.exit(3)": Way("run.finish(exit_code=3)\nsys.exit(3)", "FAILED exit code 3", others=(
        ("pluto-dist run", FAILED),)),
    "atexit: run.finish(), sys.exit(3)": Way(
        "import atexit\natexit.register(run.finish)\nsys.exit(3)", "FAILED SystemExit: 3"),
    "os._exit(0)": Way("os._exit(0)", COMPLETED, fails=False),
    "os._exit(4)": Way("os._exit(4)", "FAILED os._exit\\(4\\)"),
    "os._exit(1) in except": Way(f"{HANDLED}os._exit(1)", RAISED),
    "SIGTERM": Way(
        "os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)", SIGTERM, others=launchers("FAILED killed by SIGTERM")),
    "SIGTERM in a call of C": Way(
        "import ctypes\nthreading.Timer(0.5, os.kill, (os.getpid(), 15)).start()\nctypes.CDLL(None).sleep(60)",
        SIGTERM, others=launchers("FAILED killed by SIGTERM")),
    "SIGTERM, a handler that exits with 0": Way(
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nos.kill(os.getpid(), 15)\ntime.sleep(60)",
        COMPLETED, fails=False),
    "SIGKILL": Way("os.kill(os.getpid(), 9)", SILENT, others=launchers("FAILED killed by SIGKILL")),
    "os.abort()": Way("os.abort()", SILENT, others=launchers("FAILED killed by SIGABRT")),
}  # fmt: skip
ALWAYS = {
    ("an exception", "python"), ("the same, excepthook replaced", "python"), ("sys.exit(3)", "python"),
    ("raise SystemExit('text')", "python"), ("finally: run.finish()", "python"), ("os._exit(4)", "python"),
    ("raise SystemExit('text')", "-m pluto_dist"), ("sys.exit(3)", STARTS[2]),
}  # fmt: skip
CHILDREN = [
    pytest.param(method, how, end, marks=() if (method, how) == ("torch fork", "raises") else pytest.mark.exhaustive)
    for method in ("python fork", "python spawn", "python forkserver", "torch fork", "torch spawn")
    for how, end in (("ends", COMPLETED), ("raises", "FAILED ValueError: boom"))
]


def command(start: str, script: str) -> list[str]:
    options = ["--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    torchrun = ["-m", "torch.distributed.run", *options]
    ours = ["-c", "from pluto_dist.cli import main; main()", "run", "--project=ways out", *options]
    words = {
        "python": [],
        "torchrun": torchrun,
        "torchrun, a restart left": [*torchrun, "--max-restarts=1"],
        "-m pluto_dist": ["-m", "pluto_dist", "--project=ways out"],
        "pluto-dist run": ours,
    }
    return [sys.executable, *words[start], script]


def play(torchrun, tracker, words: list[str], **environ: str) -> tuple[dict[str, Any], Job]:
    """The run, and the job, once that has ended."""
    job = torchrun.finish(torchrun.start_command(words, tracker.environ() | environ))
    # Where the command line names the project, the second run of a process is in it too.
    wait_for(lambda: len(tracker.runs("ways out")) in (1, 2), job.output, 10)
    return tracker.runs("ways out")[0], job


def check(name: str, start: str, run: dict[str, Any], job: Job, expected: str) -> list[str]:
    cause = run["statusMetadata"] or {}
    history = [change["to"] for change in run["statusHistory"]]
    print(f"ROW | {name} | {start} | {' -> '.join(history)} | {cause.get('reason', '')} | exit code {job.returncode}")
    status, reason = expected.split(" ", 1)
    assert re.fullmatch(status, run["status"]), (cause, job.output)
    assert re.search(reason, cause.get("reason", "")), (cause, job.output)
    return history


CASES = [
    pytest.param(name, start, id=f"{name}-{start}", marks=() if (name, start) in ALWAYS else pytest.mark.exhaustive)
    for name in WAYS
    for start in STARTS
]


@pytest.mark.parametrize(("name", "start"), CASES)
def test_a_way_out(tracker, torchrun, name, start):
    """A failure is never COMPLETED, a success never RUNNING, nothing is ended that a restart continues."""
    way = WAYS[name]
    lines = "\n".join(f"    {line}" for line in way.body.splitlines())
    run, job = play(torchrun, tracker, command(start, torchrun.write(f"{SCRIPT}{lines}\n")))
    history = check(name, start, run, job, way.expected(start))
    if history[-1] == "COMPLETED" and way.fails:
        assert "restart" in start
        assert history == ["RUNNING", "COMPLETED"] or name in ENDED_MEANWHILE, job.output


# The first may be a success, and after the second the agent stops as a rule; a restart continues the run nevertheless.
ENDED_MEANWHILE = {"raise SystemExit('text')", "ctrl-C"}


@pytest.mark.parametrize(("method", "how", "end"), CHILDREN)
def test_a_function_in_a_child(tracker, torchrun, method, how, end):
    """A function that ends, or raises, in a child of multiprocessing, which runs no atexit functions."""
    environ = {"METHOD": method, "HOW": how, "PORT": str(free_port())}
    run, job = play(torchrun, tracker, [sys.executable, torchrun.write(CHILD)], **environ)
    check(f"a function {how} in a child", method, run, job, end)
