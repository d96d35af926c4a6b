"""Calls the run when this process ends, by whatever way Python can observe; ``process_end`` says how it ends.

The ways: ``sys.excepthook`` (for an uncaught exception, before other threads are waited for), ``atexit``, ``os._exit``,
in a child of multiprocessing its finalizers, since it runs no ``atexit``, and in a worker of Ray Train the end of the
thread that trains, since nothing runs when Ray kills the process. ``sys.exit``, ``exit`` and ``quit`` are
wrapped to record their code. All hooks are chained, never replaced, and removed with the last run. SIGKILL runs none of
them. A forked child inherits the hooks, and is distinguished by its pid.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
import threading
from collections.abc import Callable
from types import CodeType, TracebackType
from typing import Any, Protocol

from pluto_dist.background import start_thread
from pluto_dist.lifecycle.process_end import (
    Ending,
    ending_here,
    ending_of_process,
    ending_of_thread,
    handled_exception,
    is_running,
    outermost_frame,
    training_frame,
)
from pluto_dist.rendezvous import torch_guard


class ExitListener(Protocol):
    """Is called when this process ends; more than once if it ends by several of the ways, one after the other."""

    def on_end(self, ending: Ending) -> None: ...


class ExitHooks:
    """Calls ``listener`` when this process ends; hooks set before are called too.

    Attributes:
        main: the outermost frame; of the training function in a thread of Ray Train.
        unwound: the exception that has unwound it, if that is seen.
    """

    def __init__(self, listener: ExitListener) -> None:
        self._listener = listener
        self._pid = os.getpid()
        training = training_frame()
        self._is_in_thread = training is not None
        self.main = training or outermost_frame()
        self._handled = handled_exception()
        self.unwound: BaseException | None = None
        self._before = sys.excepthook
        sys.excepthook = self._on_exception
        self._finalizer = _finalizer(self.on_exit)
        if self._is_in_thread:
            _of_thread.end = _ThreadEnd(self)
        _armed.append(self)
        _wrap_exits()
        _watch()

    def remove(self) -> None:
        """Remove the hooks; if another excepthook was set on top of ours, ours only calls the one before."""
        self._pid = -1
        self.main = self.unwound = None
        if self in _armed:
            _armed.remove(self)
        if getattr(sys, "excepthook", None) == self._on_exception:  # a script may have deleted it
            sys.excepthook = self._before
        if self._finalizer is not None:
            self._finalizer.cancel()
        if not _armed:
            _unwrap_exits()
            _watch(False)

    def end_first(self) -> None:
        """Let the run's end go before the exit functions that are registered by now."""
        atexit.register(self.on_exit)

    def ending(self) -> Ending:
        """How the process, or the code that calls this, ends."""
        if self.main is None or is_running(self.main):
            return ending_here(but=self._handled)
        return ending_of_process(self.main, self.unwound, _exited)

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        self._before(kind, error, trace)  # first the traceback, then what may take a while
        if os.getpid() == self._pid and not hasattr(sys, "ps1"):  # else a line of an interactive session failed
            self._listener.on_end(Ending.of_exception(error))

    def on_exit(self) -> None:
        """This process has reached its end."""
        if os.getpid() == self._pid:
            self._listener.on_end(self._ending_of_thread() or self.ending())

    def on_thread_end(self) -> None:
        """The thread that trains has reached its end; it is alive for those who wait for it until this returns."""
        ending = self._ending_of_thread()
        if ending is not None:
            self.on_os_exit(ending)

    def _ending_of_thread(self) -> Ending | None:
        return ending_of_thread(self.main, self.unwound) if self._is_in_thread and self.main is not None else None

    def on_os_exit(self, ending: Ending) -> None:
        """This process is about to end by ``os._exit``, perhaps in a signal handler, which may hold any lock."""
        if os.getpid() == self._pid:
            lost = "the end of the run is not reported"
            thread = start_thread(self._listener.on_end, "pluto_dist end", ending, lost=lost)
            if thread is not None:
                thread.join(_OS_EXIT_SECONDS)


class _ThreadEnd:
    """A local variable of a thread: its end is the thread's."""

    def __init__(self, hooks: ExitHooks) -> None:
        self._hooks = hooks

    def __del__(self) -> None:
        self._hooks.on_thread_end()


def record_exit(error: SystemExit) -> None:
    """``error`` is about to end the process: record its code, which the interpreter does not show at the end."""
    _record(Ending.of_exception(error))


def _record(ending: Ending) -> None:
    global _exited  # noqa: PLW0603  # of the process, as its exit code
    if threading.current_thread() is threading.main_thread():
        _exited = ending.without_frames()


def _finalizer(callback: Callable[[], None]) -> Any:
    """Calls ``callback`` at the end of a child of multiprocessing, while its exception is in flight."""
    process = sys.modules.get("multiprocessing.process")
    if process is None or process.parent_process() is None:
        return None
    from multiprocessing.util import Finalize

    return Finalize(None, callback, exitpriority=0)


# The wrapped functions: what is wrapped, and its wrapper.


def _wrapper(function: Callable[..., Any], before: Callable[..., None]) -> Callable[..., Any]:
    @functools.wraps(function, assigned=("__module__", "__name__", "__qualname__", "__doc__", "__text_signature__"))
    def wrapped(*arguments: Any, **named: Any) -> Any:
        before(*arguments, **named)
        return function(*arguments, **named)

    return wrapped


def _before_sys_exit(status: object = None, /, *_: object, **__: object) -> None:
    _record(Ending.of_exit(status, sys.exc_info()[1], f"SystemExit: {status}"))


def _before_quit(_: object, code: object = None) -> None:
    _record(Ending.of_exit(code, sys.exc_info()[1], f"SystemExit: {code}"))


def _before_os_exit(*arguments: object, **named: object) -> None:
    status = (*arguments, *named.values())
    if len(status) == 1 and isinstance(status[0], int):
        ending = Ending.of_exit(status[0], sys.exc_info()[1], f"os._exit({status[0]})")
        if ending.error is None and _exited is not None and _exited.exitcode == ending.exitcode:
            ending = _exited  # multiprocessing ends its children so, with the code of a sys.exit() before
        for hooks in list(_armed):
            hooks.on_os_exit(ending)


def _wrap_exits() -> None:
    if _wrapped:
        return
    site = sys.modules.get("_sitebuiltins")  # absent with python -S
    targets: list[tuple[Any, str, Callable[..., None]]]
    targets = [(sys, "exit", _before_sys_exit), (os, "_exit", _before_os_exit)]
    for owner, name, before in targets + ([] if site is None else [(site.Quitter, "__call__", _before_quit)]):
        function = getattr(owner, name)
        wrapper = _wrapper(function, before)
        setattr(owner, name, wrapper)
        _wrapped.append((owner, name, function, wrapper))


def _unwrap_exits() -> None:
    """Restore what was wrapped; a wrapper that was wrapped in turn stays, and records what nobody reads."""
    for owner, name, function, wrapper in _wrapped:
        if getattr(owner, name, None) is wrapper:
            setattr(owner, name, function)
    _wrapped.clear()


# The exceptions that unwind frames: Python 3.12 and later.


def _watch(on: bool = True) -> None:
    """Watch, or watch no longer, which exception unwinds the outermost frame; any unwinding takes 0.5 us more."""
    if sys.version_info >= (3, 12):
        monitoring = sys.monitoring
        used = [tool for tool in _TOOLS if monitoring.get_tool(tool) == _TOOL_NAME]  # also a parent's, in its child
        free = [tool for tool in _TOOLS if monitoring.get_tool(tool) is None]
        for tool in (used or free)[:1]:
            if not used:
                monitoring.use_tool_id(tool, _TOOL_NAME)
            monitoring.register_callback(tool, monitoring.events.PY_UNWIND, _on_unwind if on else None)
            monitoring.set_events(tool, monitoring.events.PY_UNWIND if on else monitoring.events.NO_EVENTS)
            if not on:
                monitoring.free_tool_id(tool)


def _on_unwind(code: CodeType, _offset: int, error: BaseException) -> None:
    for hooks in _armed:
        if hooks.main is not None and hooks.main.f_code is code and hooks.main is sys._getframe(1):
            hooks.unwound = error


_TOOLS, _TOOL_NAME = (4, 3), "pluto_dist"  # identifiers without a meaning of their own
_OS_EXIT_SECONDS = 60.0  # beyond what any end takes
_of_thread = threading.local()
_exited: Ending | None = None
_wrapped: list[tuple[Any, str, Callable[..., Any], Callable[..., Any]]] = []
_armed: list[ExitHooks] = []


@atexit.register  # once, however many runs there will be: atexit keeps the slot of what is unregistered
def _on_exit() -> None:
    for hooks in list(_armed):
        hooks.on_exit()
    torch_guard.close()
