"""Threads of this package, which a process can do without, and the one place for an exception that none expects.

A container's limit on processes counts threads too, and memory and files run out. Whatever the reason, one warning says
what is lost, the traceback is logged at debug level, and the training goes on.

>>> done = []
>>> thread = start_thread(done.append, "pluto_dist example", "in the background", lost="nothing is done")
>>> thread.join()
>>> done
['in the background']
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

from pluto_dist.log import logger

_TEXT_LIMIT = 300


def start_thread(work: Callable[..., Any], name: str, *arguments: Any, lost: str) -> threading.Thread | None:
    """A daemon thread that calls ``work(*arguments)``; ``None`` if the system has no thread to give.

    Args:
        work: what it does; an exception of it is reported.
        name: of the thread.
        arguments: of ``work``.
        lost: what is not done, or not any more, if there is no thread or ``work`` fails: a clause for the warning.
    """
    thread = new_thread(work, name, *arguments, lost=lost)
    return thread if _started(thread, lost) else None


def start_timer(seconds: float, work: Callable[..., Any], name: str, *arguments: Any, lost: str) -> threading.Timer:
    """The same after ``seconds``, unless it is cancelled before; it never calls ``work`` if there is no thread."""
    timer = threading.Timer(seconds, _guarded, (work, arguments, lost))
    timer.name, timer.daemon = name, True
    _started(timer, lost)
    return timer


def new_thread(work: Callable[..., Any], name: str, *arguments: Any, lost: str) -> threading.Thread:
    """The thread of :func:`start_thread`, not started: for a caller that cannot do without it."""
    return threading.Thread(target=_guarded, args=(work, arguments, lost), name=name, daemon=True)


@contextmanager
def border(lost: str) -> Iterator[None]:
    """A block that may fail: what it raises is reported, and goes no further.

    What a signal handler of the script raises while the block runs is the script's own, and goes on.

    Args:
        lost: what is not done if it fails: a clause for the warning.
    """
    try:
        yield
    except Exception as error:  # border: the training, or this thread, must survive
        if is_scripts_own(error):
            raise
        report(error, lost)


def report(error: Exception, lost: str) -> None:
    """One warning for each ``lost`` of this process; the traceback of every ``error`` at debug level."""
    logger.debug("%s", lost, exc_info=error)
    if (os.getpid(), lost) not in _reported:
        _reported.add((os.getpid(), lost))
        text = " ".join(_text_of(error).split())[:_TEXT_LIMIT]
        logger.warning("%s; the training goes on: %s", lost, f"{type(error).__name__}: {text}".removesuffix(": "))


def _text_of(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # border: an exception of a script's object, say, whose __str__ fails
        return "it has no text"


def is_scripts_own(error: BaseException) -> bool:
    """Whether ``error`` is an interrupt, or was raised by a signal handler of the script."""
    if not isinstance(error, Exception):
        return True
    handlers = {_code(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code not in handlers:
        trace = trace.tb_next
    return trace is not None


def _code(handler: Any) -> CodeType | None:
    """The code of a signal handler in Python: a function, a method, a partial function, or an object to call."""
    handler = getattr(handler, "func", handler)
    handler = getattr(handler, "__func__", handler)
    found = getattr(handler, "__code__", None) or getattr(vars(type(handler)).get("__call__"), "__code__", None)
    return found if isinstance(found, CodeType) else None


def _guarded(work: Callable[..., Any], arguments: tuple[Any, ...], lost: str) -> None:
    with border(lost):
        work(*arguments)


def _started(thread: threading.Thread, lost: str) -> bool:
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:  # "can't start new thread"
        report(error, lost)
        return False
    return True


_reported: set[tuple[int, str]] = set()
