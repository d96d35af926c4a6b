"""Whose SIGTERM it is: a script's handler has it as without a run; else the run is told, and the process dies of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

START = """
import asyncio, os, signal, sys, threading, time
from pluto_dist.lifecycle.termination import TerminationHook
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
class Listener:
    def on_sigterm(self):
        say("TOLD")
def send(seconds=0.3):
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM)).start()
"""
HOOK = "hook = TerminationHook(Listener())\n"
TERM = -signal.SIGTERM
# The script after START and HOOK: what it prints, and its exit code.
TOLD = {
    "nothing else": ("send()\ntime.sleep(60)", "TOLD", TERM),
    "a call of C that never returns to Python": ("import ctypes\nsend()\nctypes.CDLL(None).sleep(60)", "TOLD", TERM),
    "a busy loop": ("send()\nwhile True: pass", "TOLD", TERM),
    "a handler that is gone again": (
        "before = signal.signal(signal.SIGTERM, print)\nsignal.signal(signal.SIGTERM, before)\nsend()\ntime.sleep(60)",
        "TOLD",
        TERM,
    ),
    "a handler that restores ours and sends the signal on": (
        "def handler(number, frame):\n    say('saved')\n"
        "    signal.signal(number, before)\n    os.kill(os.getpid(), number)\n"
        "before = signal.signal(signal.SIGTERM, handler)\nsend()\ntime.sleep(60)",
        "saved TOLD",
        TERM,
    ),
    "the default effect, set by hand": (
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\nsend(3)\ntime.sleep(60)",
        "TOLD",
        TERM,
    ),
    "an event loop's handler that is removed": (
        "async def work():\n    loop = asyncio.get_running_loop()\n"
        "    loop.add_signal_handler(signal.SIGTERM, say, 'never')\n    loop.remove_signal_handler(signal.SIGTERM)\n"
        "asyncio.run(work())\nsend(3)\ntime.sleep(60)",
        "TOLD",
        TERM,
    ),
    "an event loop's handler of another signal": (
        "async def work():\n    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, say, 'USR1')\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n    await asyncio.sleep(0.2)\n    send()\n"
        "    import ctypes\n    ctypes.CDLL(None).sleep(60)\nasyncio.run(work())",
        "USR1 TOLD",
        TERM,
    ),
    "a wakeup fd of the script": (
        "import socket\nours, theirs = socket.socketpair()\ntheirs.setblocking(False)\n"
        "signal.set_wakeup_fd(theirs.fileno())\nsend()\nimport ctypes\nctypes.CDLL(None).sleep(60)",
        "TOLD",
        TERM,
    ),
}
OWNED = {
    "a handler that takes its time": (
        "def handler(number, frame):\n    time.sleep(2)\n    say('saved')\n    sys.exit(7)\n"
        "signal.signal(signal.SIGTERM, handler)\nsend()\ntry:\n    time.sleep(60)\nfinally:\n    say('finally')",
        "saved finally",
        7,
    ),
    "a handler that goes on": (
        "signal.signal(signal.SIGTERM, lambda *_: say('flag'))\nsend()\ntime.sleep(2)\nsay('end', hook.was_called)",
        "flag end False",
        0,
    ),
    "a handler that calls the one before": (
        "def handler(number, frame):\n    if callable(before):\n        before(number, frame)\n    say('saved')\n"
        "before = signal.signal(signal.SIGTERM, handler)\nsend()\ntime.sleep(2)\nsay('end', hook.was_called)",
        "saved end True",
        0,
    ),
    "an event loop's handler": (
        "async def work():\n    done = asyncio.Event()\n"
        "    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)\n    send()\n"
        "    await done.wait()\n    await asyncio.sleep(2)\n    say('saved')\nasyncio.run(work())",
        "saved",
        0,
    ),
    "an ignored signal": ("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsend()\ntime.sleep(2)\nsay('end')", "end", 0),
    "a signal that comes after the run": ("hook.remove()\nsend()\ntime.sleep(60)", "", TERM),
    "a handler that outlives the run": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\nhook.remove()\nsend()\ntime.sleep(60)",
        "",
        7,
    ),
}


EXHAUSTIVE = {
    "a busy loop",
    "a handler that is gone again",
    "the default effect, set by hand",
    "an event loop's handler of another signal",
    "an ignored signal",
    "a handler that outlives the run",
}


def cases(rows: dict[str, tuple[str, str, int]]) -> list[Any]:
    marks = {name: pytest.mark.exhaustive if name in EXHAUSTIVE else () for name in rows}
    return [pytest.param(*row, id=name, marks=marks[name]) for name, row in rows.items()]


def run(folder: Path, script: str, *before: str) -> tuple[str, int, float]:
    """What ``script`` printed, its exit code, and how long it took."""
    (folder / "script.py").write_text(script + "\n")
    began = time.monotonic()
    done = subprocess.run(
        [*before, sys.executable, "script.py"],
        cwd=folder,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr
    return " ".join(done.stdout.split()), done.returncode, time.monotonic() - began


@pytest.mark.parametrize(("body", "printed", "code"), cases(TOLD))
def test_nobody_takes_the_signal(tmp_path, body, printed, code):
    """The run is told, once, and the process is dead of the signal within seconds."""
    told, returncode, seconds = run(tmp_path, START + HOOK + body)
    assert (told, returncode) == (printed, code)
    assert seconds < 30


@pytest.mark.parametrize(("body", "printed", "code"), cases(OWNED))
def test_the_script_takes_the_signal(tmp_path, body, printed, code):
    """A handler that was installed after ``init()`` runs to its end, and nothing is told meanwhile."""
    assert run(tmp_path, START + HOOK + body)[:2] == (printed, code)


def test_a_handler_from_before(tmp_path):
    """A handler that was there first stays, and the wakeup fd is never touched."""
    script = f"""{START}
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
before = signal.getsignal(signal.SIGTERM)
{HOOK}
say(signal.getsignal(signal.SIGTERM) is before, signal.set_wakeup_fd(-1))
send()
time.sleep(60)"""
    assert run(tmp_path, script)[:2] == ("True -1", 7)


@pytest.mark.parametrize("where", ["a thread", "the main thread"])
def test_from_any_thread(tmp_path, where):
    """The signal is heard if ``init()`` was called in a thread, in which Python installs no handler."""
    in_thread = "threading.Thread(target=TerminationHook, args=(Listener(),)).start()\n"
    make = HOOK if where == "the main thread" else in_thread
    assert run(tmp_path, f"{START}{make}time.sleep(0.5)\nsend()\ntime.sleep(60)")[:2] == ("TOLD", TERM)


def test_a_forked_child(tmp_path):
    """A child has the default effect of the signal, and its signal is not its parent's."""
    script = f"""{START}{HOOK}
child = os.fork()
if child == 0:
    time.sleep(60)
time.sleep(0.5)
os.kill(child, signal.SIGTERM)
say("child", os.waitstatus_to_exitcode(os.wait()[1]))
time.sleep(2)
say("parent", signal.getsignal(signal.SIGTERM) == hook._on_signal)"""
    assert run(tmp_path, script)[:2] == (f"child {TERM} parent True", 0)


def test_process_1(tmp_path):
    """Process 1 of a container does not die of the signal, so nobody is told that it did."""
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None:
        pytest.skip("a PID namespace needs root and unshare")
    script = f"{START}{HOOK}send()\ntime.sleep(2)\nsay('process', os.getpid(), 'goes on')"
    before = (unshare, "--pid", "--fork", "--mount-proc", "--kill-child")
    assert run(tmp_path, script, *before)[:2] == ("process 1 goes on", 0)


def test_what_is_left(tmp_path):
    """After the run the signal's handler, the threads and the open files are what they were."""
    script = f"""{START}
def state():
    return signal.getsignal(signal.SIGTERM), threading.active_count(), len(os.listdir("/proc/self/fd"))
before = state()
for _ in range(3):
    {HOOK}    inside = state()
    hook.remove()
say(state() == before, inside == before)"""
    assert run(tmp_path, script)[:2] == ("True False", 0)
