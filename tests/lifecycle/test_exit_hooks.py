"""What the run is told when a process ends, whatever way it ends; and what of it is left when the run is over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lifecycle.scripts import run_script

SCRIPT = """
import os, sys, threading, time
sys.excepthook = lambda *what: print("EARLIER HOOK", flush=True)
from pluto_dist.lifecycle.exit_hooks import ExitHooks
class Listener:
    is_over = False
    def on_end(self, ending):
        if not self.is_over:
            self.is_over = True
            error, name = ending.error, type(ending.error).__name__
            text = f"{name}: {error}" if isinstance(error, BaseException) else str(error or ending.reason)
            print("ENDING", ending.status, text or "-", ending.exitcode, flush=True)
hooks = ExitHooks(Listener())
def swallow(*what):
    pass
"""
FAILED, SUCCESS = "FAILED ", "COMPLETED - "
RAISED = "FAILED ZeroDivisionError: division by zero "
SEES_UNWINDING = sys.version_info >= (3, 12)
BARE = "FAILED SystemExit: {}" if SEES_UNWINDING else "TERMINATED ended without a word"
WAYS = {
    "the end": ("pass", SUCCESS + "None"),
    "an exception": ("1 / 0", RAISED + "None"),
    "an excepthook set later": ("sys.excepthook = swallow\n1 / 0", RAISED + "None"),
    "sys.exit()": ("sys.exit()", SUCCESS + "0"),
    "sys.exit(3)": ("sys.exit(3)", FAILED + "SystemExit: 3 3"),
    "sys.exit of an earlier import": ("exits(3)", BARE.format("3 3")),
    "raise SystemExit('text')": ("raise SystemExit('text')", BARE.format("text 1")),
    "raise SystemExit(None)": ("raise SystemExit(None)", SUCCESS + "0" if SEES_UNWINDING else BARE),
    "exit(2)": ("exit(2)", FAILED + "SystemExit: 2 2"),
    "quit('text')": ("quit('text')", FAILED + "SystemExit: text 1"),
    "sys.exit(1) in except": (
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    sys.exit(1)",
        ("FAILED ZeroDivisionError: division by zero 1" if SEES_UNWINDING else "FAILED division by zero 1"),
    ),
    "a sys.exit() that is caught": ("try:\n    sys.exit(3)\nexcept SystemExit:\n    pass", SUCCESS + "None"),
    "sys.exit(3) in a thread": (
        "thread = threading.Thread(target=sys.exit, args=(3,))\nthread.start()\nthread.join()",
        SUCCESS + "None",
    ),
    "os._exit(0)": ("os._exit(0)", SUCCESS + "0"),
    "os._exit(4)": ("os._exit(4)", FAILED + "os._exit(4) 4"),
    "os._exit(status=4)": ("os._exit(status=4)", FAILED + "os._exit(4) 4"),
    "os._exit(1) in except": ("try:\n    1 / 0\nexcept ZeroDivisionError:\n    os._exit(1)", RAISED + "1"),
    "os._exit() with the code of a sys.exit() before": (
        "try:\n    sys.exit(3)\nexcept SystemExit:\n    pass\nos._exit(3)",
        FAILED + "SystemExit: 3 3",
    ),
    "what torch's agent raises at a signal": (
        "from torch.distributed.elastic.multiprocessing.api import SignalException\n"
        "raise SignalException('got 15', 15)",
        "TERMINATED SignalException: got 15 None",
    ),
    "os._exit(4) in a thread": (
        "threading.Thread(target=os._exit, args=(4,)).start()\ntime.sleep(60)",
        FAILED + "os._exit(4) 4",
    ),
    "ctrl-C": ("raise KeyboardInterrupt", "TERMINATED KeyboardInterrupt:  None"),
}


def run(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    return run_script(folder, f"from sys import exit as exits\n{SCRIPT}{body}\n")


@pytest.mark.parametrize(("body", "told"), WAYS.values(), ids=WAYS)
def test_a_way_out(tmp_path, body, told):
    """The run is told once how the process ended, and its exit code is that of Python."""
    done = run(tmp_path, body)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ENDING")]
    assert line.startswith(f"ENDING {told}"), done.stderr
    plain = run(tmp_path, f"hooks.remove()\n{body}")
    assert (plain.returncode, "ENDING" in plain.stdout) == (done.returncode, False)
    assert plain.stdout.count("EARLIER HOOK") == done.stdout.count("EARLIER HOOK")


RAY = """
import threading, types
ray = types.ModuleType("ray.train.worker")  # whose thread calls the function, and catches what it raises
exec("def target(function):\\n    try:\\n        function()\\n    except BaseException:\\n        pass", vars(ray))
def train():
    {script}
    {body}
thread = threading.Thread(target=ray.target, args=(train,))
thread.start()
thread.join()
print("OVER", flush=True)
"""


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("pass", SUCCESS),
        ("[1 / 0]", RAISED if SEES_UNWINDING else "FAILED an exception left train() at "),
        ("hooks.on_exit()", "TERMINATED the process ended while its training function ran"),
    ],
    ids=["the end", "an exception", "the process ends first"],
)
def test_a_thread_of_ray_train(tmp_path, body, told):
    """The end of the function that trains is the worker's, told before anyone sees that its thread is over."""
    script = SCRIPT.replace("\n", "\n    ")
    done = run_script(tmp_path, RAY.format(script=script, body=body))
    ending, over = done.stdout.splitlines()
    assert ending.startswith(f"ENDING {told}"), done.stderr
    assert over == "OVER"


CHILD = """
import multiprocessing as mp, os, sys
def work(body):
    {script}
    exec(body)
if __name__ == "__main__":
    child = mp.get_context({method!r}).Process(target=work, args=({body!r},))
    child.start()
    child.join()
    print("CODE", child.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize(
    ("body", "told", "code"),
    [
        ("pass", SUCCESS + "None", 0),
        ("1 / 0", RAISED + "None", 1),
        ("sys.exit(3)", "FAILED SystemExit: 3 3", 3),
        ("try:\n    1 / 0\nexcept ZeroDivisionError:\n    sys.exit(1)", RAISED + "1", 1),
    ],
    ids=["the end", "an exception", "sys.exit(3)", "torch's wrapper"],
)
def test_a_child_of_multiprocessing(tmp_path, method, body, told, code):
    """A child that runs no atexit functions, and whose exception multiprocessing catches, ends like any process."""
    script = SCRIPT.replace("\n", "\n    ")
    done = run_script(tmp_path, CHILD.format(script=script, method=method, body=body))
    assert done.stdout.splitlines() == [f"ENDING {told}", f"CODE {code}"], done.stderr


def test_a_child_of_a_rank_says_nothing(tmp_path):
    """A forked child inherits the hooks, and its ends are not its parent's."""
    body = """
for end in (lambda: os._exit(4), lambda: sys.exit(3), lambda: 1 / 0):
    if os.fork() == 0:
        end()
    os.wait()
"""
    done = run(tmp_path, body)
    assert [line for line in done.stdout.splitlines() if "ENDING" in line] == [f"ENDING {SUCCESS}None"]


def test_what_is_left(tmp_path):
    """Without a run everything is as it was; with two, the wrappers stay until both are over."""
    body = """
def state():
    import _sitebuiltins
    return sys.exit, os._exit, _sitebuiltins.Quitter.__call__, sys.excepthook
hooks.remove()
before = state()
first, second = ExitHooks(Listener()), ExitHooks(Listener())
wrapped = state()
second.remove()
halfway = state()[:3] == wrapped[:3]
first.remove()
print(halfway, end=" ")
print(state() == before, any(a is b for a, b in zip(wrapped, before)), sys.exit.__module__, wrapped[0].__name__)
"""
    assert run(tmp_path, body).stdout == "True True False sys exit\n"


def test_an_interactive_session(tmp_path):
    """An error in one line of a session does not end it."""
    done = subprocess.run(
        [sys.executable, "-i", "-c", SCRIPT],
        input="1 / 0\nprint('still', 'here')\n",
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert [line for line in done.stdout.splitlines() if line] == [
        "EARLIER HOOK",
        "still here",
        f"ENDING {SUCCESS}None",
    ]
