"""Threads that a process can do without, and the one place for an exception that none expects."""

from __future__ import annotations

import ast
import functools
import logging
import os
import signal
import threading
import time
from pathlib import Path

import pytest

import pluto_dist
from pluto_dist import background
from pluto_dist.background import border, new_thread, start_thread, start_timer
from pluto_dist.client.deadline import DeadlineAdapter
from pluto_dist.contract.secret import Secret
from pluto_dist.settings.keychain import stored_key

OTHER_THREADS = {
    "doctor/examination.py": "a check that hangs or fails is its result",
    "server/local.py": "the embedded tracker, whose start is waited for",
}


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch):
    """The next thread cannot be started: its stack is larger than what can be mapped."""
    monkeypatch.setattr(background, "_reported", set())
    before = threading.stack_size(1 << 47)
    yield
    threading.stack_size(before)


def messages(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


def test_a_thread():
    """It is started, and a daemon."""
    done: list[int] = []
    thread = start_thread(done.append, "pluto_dist test", 7, lost="nothing")
    assert thread is not None and thread.daemon
    thread.join(30)
    timer = start_timer(0.0, done.append, "pluto_dist test", 8, lost="nothing")
    timer.join(30)
    assert done == [7, 8]


@pytest.mark.usefixtures("no_thread")
def test_no_thread_to_be_had(caplog: pytest.LogCaptureFixture):
    """Nothing is raised; what needs a thread does without it, and one warning says what is lost."""
    assert start_thread(print, "pluto_dist test", lost="nothing is printed") is None
    start_timer(0.0, print, "pluto_dist test", lost="nothing is printed")
    with DeadlineAdapter(Secret("mlps_k")).within(5):
        pass
    assert stored_key() is None
    told = [line for line in messages(caplog, logging.WARNING) if line.startswith("nothing is printed")]
    assert told == ["nothing is printed; the training goes on: RuntimeError: can't start new thread"]


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "Too many open files"), ValueError("two\nlines")])
def test_a_thread_that_fails(error: Exception, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    """One warning in plain words, of one line, the traceback at debug level; the thread ends, and raises nothing."""
    monkeypatch.setattr(background, "_reported", set())
    with caplog.at_level(logging.DEBUG, "pluto_dist"):
        for _ in range(2):
            thread = new_thread(fail, "pluto_dist test", error, lost="nothing is measured")
            thread.start()
            thread.join(30)
    (told,) = messages(caplog, logging.WARNING)
    assert told.startswith(f"nothing is measured; the training goes on: {type(error).__name__}")
    assert "\n" not in told
    traced = [record for record in caplog.records if record.levelno == logging.DEBUG]
    assert [record.exc_info[1] for record in traced if record.exc_info] == [error, error]


class WordlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_an_error_without_a_text(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    """It is reported by its type, and goes no further."""
    monkeypatch.setattr(background, "_reported", set())
    with border("nothing is measured"):
        raise WordlessError
    (told,) = messages(caplog, logging.WARNING)
    assert told == "nothing is measured; the training goes on: WordlessError: it has no text"


class Callable:
    def __call__(self, number: int, frame: object) -> None:
        raise TimeoutError("the script's own")

    def method(self, number: int, frame: object) -> None:
        self(number, frame)


@pytest.mark.parametrize("kind", ["function", "partial", "method", "object"])
def test_what_a_signal_handler_raises_is_the_scripts_own(kind: str):
    """An alarm of the script that goes off while this package works is not swallowed, whatever its handler is."""
    own = Callable()

    def function(number: int, frame: object) -> None:
        own(number, frame)

    handlers = {
        "function": function,
        "partial": functools.partial(own.method),
        "method": own.method,
        "object": own,
    }
    before = signal.signal(signal.SIGUSR1, handlers[kind])
    try:
        with pytest.raises(TimeoutError, match="own"), border("nothing"):
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(30)
        with border("nothing"):
            raise TimeoutError("of this package")
        with pytest.raises(KeyboardInterrupt), border("nothing"):
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_every_thread_goes_through_here():
    """No other module makes a thread or a timer of its own, but those with a reason."""
    root = Path(pluto_dist.__file__).parent
    makers = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
            if called in ("Thread", "Timer", "ThreadPoolExecutor"):
                makers.add(path.relative_to(root).as_posix())
    assert makers == {"background.py", *OTHER_THREADS}
