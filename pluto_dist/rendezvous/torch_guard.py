"""May a thread call torch? Until the interpreter ends: from then on nobody is let in, and who is in comes out.

A thread that comes back from C++ while Python finalises is unwound by CPython (3.10 to 3.13), and pybind11's
destructors do not let that pass: "terminate called without an active exception", and a process that ctrl-C had
ended dies of SIGABRT (torch 2.13; one in 150 of those that were waiting for other ranks). The main thread finalises
itself, so it always may.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pluto_dist.errors import ExchangeError

END_SECONDS = 0.5  # how long the end waits for those who are in: a call comes back in milliseconds, or hangs


class _Gate:
    """Counts who is in."""

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
    """Around what calls torch, or imports it, in whatever thread.

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


def end(seconds: float = END_SECONDS) -> bool:
    """Let no thread in from now on; whether all were out within ``seconds``. For the process's very end."""
    return _gate.close(seconds)


def _in_child() -> None:
    """A forked child has none of its parent's threads: nobody is in, and nobody holds the lock."""
    global _gate  # noqa: PLW0603
    _gate = _Gate()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
