"""How this process ends, as far as Python can tell: ``sys.excepthook``, ``atexit``, SIGTERM; chained, never replaced.

SIGKILL runs none of them. A forked child inherits the hooks and is told apart by its pid.

SIGTERM is heard only where nobody else handles it, and the process dies of it all the same, soon. Python runs a
handler when the main thread comes back to it, which one that sits in a collective never does; so a thread hears of
the signal through ``signal.set_wakeup_fd``, and ends the process itself where the main thread stays away.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Protocol

from pluto_dist.rendezvous import torch_guard


class Ending(Protocol):
    """What wants to know."""

    def crashed(self, error: BaseException) -> None: ...

    def survived(self) -> None: ...

    def terminated(self) -> None: ...


class ExitHooks:
    """Tells ``ending`` how this process ends, once; then whatever was hooked before."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self._pid = os.getpid()
        self._before = sys.excepthook
        sys.excepthook = self._on_exception
        _armed.append(self)

    def remove(self) -> None:
        """Take the hooks away; where another hook came on top of ours, ours only passes on."""
        self._pid = -1
        if self in _armed:
            _armed.remove(self)
        if getattr(sys, "excepthook", None) == self._on_exception:  # a script may have deleted it
            sys.excepthook = self._before

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        self._before(kind, error, trace)  # first the traceback, then what may take a while
        if os.getpid() == self._pid:
            self._ending.crashed(error)

    def on_exit(self) -> None:
        """This process has reached its end."""
        if os.getpid() == self._pid:
            self._ending.survived()


class TerminationHook:
    """Tells ``ending`` of a SIGTERM that nobody else handles; then the process dies of it.

    To be made and removed on the main thread; anywhere else it hears nothing.
    """

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self._told = threading.Event()
        self._pipe: tuple[int, int] | None = None
        if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "set_wakeup_fd"):
            return
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        if (before := signal.set_wakeup_fd(writer, warn_on_full_buffer=False)) != -1:
            signal.set_wakeup_fd(before)  # an event loop's, which needs it more
            os.close(reader)
            os.close(writer)
            return
        self._pipe = (reader, writer)
        signal.signal(signal.SIGTERM, self._on_signal)
        _terminations.append(self)
        threading.Thread(target=self._listen, args=(reader,), name="pluto_dist SIGTERM", daemon=True).start()

    def remove(self) -> None:
        """Hear no more; the signal has its default effect again, unless somebody else has set a handler since."""
        if self._pipe is None or threading.current_thread() is not threading.main_thread():
            return
        _, writer = self._pipe
        self._pipe = None
        _terminations.remove(self)
        if signal.getsignal(signal.SIGTERM) == self._on_signal:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if (now := signal.set_wakeup_fd(-1)) not in (-1, writer):
            signal.set_wakeup_fd(now)
        os.close(writer)  # the listener reads its end, and closes the other

    def _listen(self, reader: int) -> None:
        with suppress(OSError):  # closed in a forked child
            while heard := os.read(reader, 64):
                if signal.SIGTERM in heard:
                    self._ending.terminated()
                    self._told.set()
                    threading.Event().wait(_MAIN_THREAD_SECONDS)
                    _die_of_sigterm()
        os.close(reader)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._pipe is not None:
            self._told.wait(_TOLD_SECONDS)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def _die_of_sigterm() -> None:
    """Die of SIGTERM from a thread that is not the main one, which alone may ask Python for the default effect."""
    import ctypes

    ctypes.CDLL(None).signal(int(signal.SIGTERM), None)  # SIG_DFL is a null pointer
    os.kill(os.getpid(), signal.SIGTERM)


def _in_child() -> None:
    """A forked child has SIGTERM's default effect again."""
    for hook in list(_terminations):
        hook.remove()


_TOLD_SECONDS = 20.0  # how long the main thread waits for the tracker to be told; torchrun gives it 30
_MAIN_THREAD_SECONDS = 0.5  # how long the listener waits for the main thread to die
_terminations: list[TerminationHook] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
_armed: list[ExitHooks] = []


@atexit.register  # once, however many runs there will be: atexit keeps the slot of what is unregistered
def _on_exit() -> None:
    for hooks in list(_armed):
        hooks.on_exit()
    torch_guard.end()
