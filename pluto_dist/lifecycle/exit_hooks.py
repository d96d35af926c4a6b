"""How this process ends, as far as Python can observe it: ``sys.excepthook``, ``atexit``, SIGTERM.

Hooks are chained, never replaced. SIGKILL runs none of them. A forked child inherits the hooks, and is distinguished by
its pid.

SIGTERM is handled only if nobody else handles it, and the process dies of it all the same. Python runs a handler when
the main thread returns to the interpreter, which it does not while it waits in a collective. So a thread learns of the
signal through ``signal.set_wakeup_fd``, and ends the process itself if the main thread does not.
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


class ExitListener(Protocol):
    """Is called once, when this process ends."""

    def on_exception(self, error: BaseException) -> None: ...

    def on_exit(self) -> None: ...

    def on_sigterm(self) -> None: ...


class ExitHooks:
    """Calls ``listener`` when this process ends by an exception or at its end; hooks set before are called too."""

    def __init__(self, listener: ExitListener) -> None:
        self._listener = listener
        self._pid = os.getpid()
        self._before = sys.excepthook
        sys.excepthook = self._on_exception
        _armed.append(self)

    def remove(self) -> None:
        """Remove the hooks; if another excepthook was set on top of ours, ours only calls the one before."""
        self._pid = -1
        if self in _armed:
            _armed.remove(self)
        if getattr(sys, "excepthook", None) == self._on_exception:  # a script may have deleted it
            sys.excepthook = self._before

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        self._before(kind, error, trace)  # first the traceback, then what may take a while
        if os.getpid() == self._pid:
            self._listener.on_exception(error)

    def on_exit(self) -> None:
        """This process has reached its end."""
        if os.getpid() == self._pid:
            self._listener.on_exit()


class TerminationHook:
    """Calls ``listener`` on a SIGTERM that nobody else handles; then the process dies of it.

    To be made and removed on the main thread; on another thread it does nothing.
    """

    def __init__(self, listener: ExitListener) -> None:
        self._listener = listener
        self._handled = threading.Event()
        self._pipe: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None
        if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "set_wakeup_fd"):
            return
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        if (before := signal.set_wakeup_fd(writer, warn_on_full_buffer=False)) != -1:
            signal.set_wakeup_fd(before)  # an event loop's
            os.close(reader)
            os.close(writer)
            return
        self._pipe = (reader, writer)
        signal.signal(signal.SIGTERM, self._on_signal)
        _terminations.append(self)
        self._thread = threading.Thread(target=self._listen, args=(reader,), name="pluto_dist SIGTERM", daemon=True)
        self._thread.start()

    def remove(self) -> None:
        """Restore the signal's default effect, unless another handler has been set since."""
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
        if self._thread is not None:
            self._thread.join(_LISTENER_SECONDS)  # it takes that long only if a signal has just come

    def _listen(self, reader: int) -> None:
        with suppress(OSError):  # closed in a forked child
            while signals := os.read(reader, 64):
                if signal.SIGTERM in signals:
                    self._listener.on_sigterm()
                    self._handled.set()
                    threading.Event().wait(_MAIN_THREAD_SECONDS)
                    _die_of_sigterm()
        os.close(reader)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._pipe is not None:
            self._handled.wait(_HANDLED_SECONDS)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def _die_of_sigterm() -> None:
    """Die of SIGTERM from a thread; Python lets only the main one restore the default effect."""
    import ctypes

    ctypes.CDLL(None).signal(int(signal.SIGTERM), None)  # SIG_DFL is a null pointer
    os.kill(os.getpid(), signal.SIGTERM)


def _in_child() -> None:
    """A forked child has SIGTERM's default effect again."""
    for hook in list(_terminations):
        hook.remove()


_HANDLED_SECONDS = 20.0  # how long the main thread waits for the listener; torchrun gives it 30
_LISTENER_SECONDS = 0.5  # how long the main thread waits for the listener to end
_MAIN_THREAD_SECONDS = 0.5  # how long the listener waits for the main thread to die
_terminations: list[TerminationHook] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
_armed: list[ExitHooks] = []


@atexit.register  # once, however many runs there will be: atexit keeps the slot of what is unregistered
def _on_exit() -> None:
    for hooks in list(_armed):
        hooks.on_exit()
    torch_guard.close()
