"""How this process ends, as far as Python can tell: ``sys.excepthook`` and ``atexit``, chained, never replaced.

SIGKILL and an unhandled SIGTERM run neither. A forked child inherits the hooks and is told apart by its pid.
"""

from __future__ import annotations

import atexit
import os
import sys
from types import TracebackType
from typing import Protocol


class Ending(Protocol):
    """What wants to know."""

    def crashed(self, error: BaseException) -> None: ...

    def survived(self) -> None: ...


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
        if sys.excepthook == self._on_exception:
            sys.excepthook = self._before

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        self._before(kind, error, trace)  # first the traceback, then what may take a while
        if os.getpid() == self._pid:
            self._ending.crashed(error)

    def on_exit(self) -> None:
        """This process has reached its end."""
        if os.getpid() == self._pid:
            self._ending.survived()


_armed: list[ExitHooks] = []


@atexit.register  # once, however many runs there will be: atexit keeps the slot of what is unregistered
def _on_exit() -> None:
    for hooks in list(_armed):
        hooks.on_exit()
