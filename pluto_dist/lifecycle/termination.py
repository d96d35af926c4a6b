"""SIGTERM that no handler of the script takes: the run is ended, and the process dies of the signal as without us.

A handler that the script installs, before or after, owns the signal: nothing happens here when it comes, except that a
handler which calls the one that it found (ours) lets the run end as TERMINATED when the process ends.

Python runs a handler when the main thread returns to the interpreter, which it does not while it waits in a collective.
So a thread is woken by what ``faulthandler`` writes into a pipe when the signal comes: its handler is that of the
kernel, and goes as soon as the script installs another. ``signal.set_wakeup_fd``, which asyncio sets, is left alone.
The kernel delivers no such signal to a container's process 1, which goes on; so there nothing is installed.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from pluto_dist.background import report, start_thread


class SignalListener(Protocol):
    """Is called, in a thread, when this process is about to die of SIGTERM."""

    def on_sigterm(self) -> None: ...


class TerminationHook:
    """Calls ``listener`` on a SIGTERM that nobody else handles; then the process dies of it.

    Attributes:
        was_called: whether a handler of the script has called this one, and goes on.
    """

    def __init__(self, listener: SignalListener) -> None:
        self.was_called = False
        self._listener = listener
        self._handled = threading.Event()
        self._pipe: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None
        self._is_installed = self._is_chained = False
        if not hasattr(faulthandler, "register") or os.getpid() == 1:
            return
        try:
            reader, writer = self._pipe = os.pipe()
        except OSError as error:  # no file is to be had
            report(error, _LOST)
            return
        os.set_blocking(writer, False)
        self._thread = start_thread(self._listen, "pluto_dist SIGTERM", reader, writer, lost=_LOST)
        if self._thread is None:
            self._pipe = None
            os.close(reader)
            os.close(writer)
            return
        if _handler() is signal.SIG_DFL:
            self._install(writer)
        _terminations.append(self)

    def remove(self, *, in_child: bool = False) -> None:
        """Restore the signal's default effect, unless another handler has been set since.

        Args:
            in_child: whether this is a forked child, which has no such thread.
        """
        if self._pipe is None or not _in_main_thread():
            return
        (_, writer), self._pipe = self._pipe, None
        _terminations.remove(self)
        handler = _handler()
        if self._is_installed and handler is not None:  # else one that is not Python's has taken its place
            faulthandler.unregister(signal.SIGTERM)  # this restores what was there before ours
            signal.signal(signal.SIGTERM, signal.SIG_DFL if handler == self._on_signal else handler)
        os.close(writer)  # the listener reads its end, and closes the other
        if self._thread is not None and not in_child:
            self._thread.join(_LISTENER_SECONDS)  # it takes that long only if a signal has just come

    def _install(self, writer: int) -> None:
        """Let the pipe have the signal, and then Python's handler, which only the main thread can install."""
        self._is_chained = _in_main_thread()
        if self._is_chained:
            signal.signal(signal.SIGTERM, self._on_signal)
        faulthandler.register(signal.SIGTERM, writer, all_threads=False, chain=self._is_chained)
        self._is_installed = True

    def _listen(self, reader: int, writer: int) -> None:
        with suppress(OSError):  # closed in a forked child
            while True:
                if not _is_readable(reader, _LOOK_SECONDS):
                    self._look(writer)
                elif os.read(reader, _TRACEBACK_BYTES):
                    self._wake()
                else:
                    break
        os.close(reader)

    def _look(self, writer: int) -> None:
        """Install the handler once the script's, an event loop's for example, is gone."""
        if self._pipe is not None and _handler() is signal.SIG_DFL and not _is_caught():
            faulthandler.unregister(signal.SIGTERM)
            self._install(writer)

    def _wake(self) -> None:
        """The signal has come while the handler was ours."""
        if _handler() in (self._on_signal, signal.SIG_DFL):
            self._listener.on_sigterm()
            self._handled.set()
            threading.Event().wait(_MAIN_THREAD_SECONDS)
            _die_of_sigterm()
        elif not self._is_chained:  # the script has just installed its own: it has not had the signal
            faulthandler.unregister(signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Python's handler. It dies of the signal, but returns to a handler of the script that calls it."""
        if _handler() != self._on_signal:
            self.was_called = True
            return
        if self._pipe is not None:
            with suppress(BlockingIOError):  # full, so the listener is awake
                os.write(self._pipe[1], b"1")  # if the script has restored this handler, nothing else wakes it
            self._handled.wait(_HANDLED_SECONDS)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def _handler() -> Any:
    """Python's handler of SIGTERM; ``None`` if it is not Python's."""
    return signal.getsignal(signal.SIGTERM)


def _is_readable(reader: int, seconds: float) -> bool:
    """Wait for ``reader``; where threads are gevent's or eventlet's, the others go on meanwhile."""
    if not hasattr(select, "poll"):  # eventlet takes it away
        return bool(select.select([reader], [], [], seconds)[0])
    watch = select.poll()
    watch.register(reader, select.POLLIN)
    return bool(watch.poll(1000 * seconds))


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _is_caught() -> bool:
    """Whether the kernel has a handler of SIGTERM for this process; True where it does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return bool(int(status.partition("\nSigCgt:")[2].split()[0], 16) >> (signal.SIGTERM - 1) & 1)
    except (OSError, ValueError, IndexError):
        return True


def _die_of_sigterm() -> None:
    """Die of SIGTERM from a thread; Python lets only the main one restore the default effect."""
    import ctypes

    ctypes.CDLL(None).signal(int(signal.SIGTERM), None)  # SIG_DFL is a null pointer
    os.kill(os.getpid(), signal.SIGTERM)


def _in_child() -> None:
    """A forked child has SIGTERM's default effect again."""
    for hook in list(_terminations):
        pipe = hook._pipe
        hook.remove(in_child=True)
        if pipe is not None:
            os.close(pipe[0])


_LOST = "the run is not ended by SIGTERM"
_HANDLED_SECONDS = 20.0  # how long the main thread waits for the listener; torchrun gives it 30
_LISTENER_SECONDS = 0.5  # how long the main thread waits for the listener to end
_MAIN_THREAD_SECONDS = 0.5  # how long the listener waits for the main thread to die
_LOOK_SECONDS = 1.0  # between two looks at what the script has made of the signal
_TRACEBACK_BYTES = 2**16  # faulthandler writes a traceback; all of it is the one signal
_terminations: list[TerminationHook] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
