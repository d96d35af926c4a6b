"""How this process ends, as far as Python can observe it: ``sys.excepthook``, ``atexit``.

Hooks are chained, never replaced. SIGKILL runs none of them. A forked child inherits the hooks, and is distinguished by
its pid.
"""

from __future__ import annotations

import atexit
import os
import sys
from types import TracebackType
from typing import Protocol

from pluto_dist.rendezvous import torch_guard


class ExitListener(Protocol):
    """Is called once, when this process ends."""

    def on_exception(self, error: BaseException) -> None: ...

    def on_exit(self) -> None: ...


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


_armed: list[ExitHooks] = []


@atexit.register  # once, however many runs there will be: atexit keeps the slot of what is unregistered
def _on_exit() -> None:
    for hooks in list(_armed):
        hooks.on_exit()
    torch_guard.close()
