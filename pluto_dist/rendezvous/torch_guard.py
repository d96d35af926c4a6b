"""Calls of torch by background threads, which must be over before the interpreter ends.

A thread that returns from C++ while Python finalises is unwound by CPython (3.10 to 3.13). pybind11's destructors do
not allow that: "terminate called without an active exception", and a process that ctrl-C had ended dies of SIGABRT
(torch 2.13; one in 150 of those that were waiting for other ranks). So from the end of the interpreter on no thread
may begin a call, and calls in progress are waited for. The main thread is the one that finalises, and always may.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pluto_dist.errors import ExchangeError

CLOSE_SECONDS = 0.5  # how long the end waits for calls in progress: one returns in milliseconds, or hangs


class _Gate:
    """Counts the calls in progress."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._is_closed = False

    def enter(self) -> None:
        with self._changed:
            if self._is_closed:
                raise ExchangeError("this process is ending, and no thread of it may call torch any more")
            self._inside += 1

    def leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self, seconds: float) -> bool:
        with self._changed:
            self._is_closed = True
            return self._changed.wait_for(lambda: self._inside == 0, timeout=seconds)


_gate = _Gate()


@contextmanager
def torch_call() -> Iterator[None]:
    """A context for calls and imports of torch, in any thread.

    Raises:
        ExchangeError: the interpreter is ending.
    """
    if threading.current_thread() is threading.main_thread():
        yield
        return
    gate = _gate
    gate.enter()
    try:
        yield
    finally:
        gate.leave()


def close(seconds: float = CLOSE_SECONDS) -> bool:
    """Refuse calls from now on; whether those in progress ended within ``seconds``. For the end of the process."""
    return _gate.close(seconds)


def _in_child() -> None:
    """A forked child has none of its parent's threads: no call is in progress, and the lock is free."""
    global _gate  # noqa: PLW0603
    _gate = _Gate()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
