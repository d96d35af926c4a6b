"""The thread in which the ranks' store is called, so that no other thread waits for the store's host in C++.

A call of torch's store, once that is connected, has no limit and runs no signal handler (torch 2.13): it lasts as long
as the store's host is frozen, or cut off. Here the caller waits in Python, and gives up if the store has not answered

- for the seconds of :func:`answers_within`, in such a block;
- for HURRIED_SECONDS, in any thread, once this rank's part in the run is over.

All other callers, which are threads of this package, wait until the store answers again.

>>> store = StoreThread(threading.Event())
>>> store.call(max, 1, 2)
2
>>> with answers_within(0.2):
...     store.call(time.sleep, 1)
Traceback (most recent call last):
    ...
pluto_dist.rendezvous.store_thread.StoreSilentError: the store that the ranks share has not answered for 0.2 s
>>> store.close()
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pluto_dist.background import start_thread
from pluto_dist.errors import ExchangeError
from pluto_dist.rendezvous.torch_guard import torch_call

ANSWER_SECONDS = 3.0  # how long the training, or its success, waits for an answer of the store
HURRIED_SECONDS = 1.0  # the same of what is interrupted, fails or is over
_SLICE = 0.1  # how often a caller that waits checks whether to give up; a call takes some 0.1 ms

_limit: ContextVar[float] = ContextVar("seconds", default=math.inf)


class StoreSilentError(ExchangeError):
    """The store has not answered for too long: its host is frozen or cut off, and may execute the call later."""


@contextmanager
def answers_within(seconds: float) -> Iterator[None]:
    """A block whose calls of a store raise StoreSilentError once that has not answered anybody for ``seconds``."""
    before = _limit.set(min(_limit.get(), seconds))
    try:
        yield
    finally:
        _limit.reset(before)


def patience(stop: threading.Event) -> float:
    """How many seconds the current thread waits for a store; ``stop`` is set when this rank's part in the run is over.

    >>> patience(threading.Event())
    inf
    """
    return min(_limit.get(), HURRIED_SECONDS if stop.is_set() else math.inf)


class StoreThread:
    """Makes the calls of one store, one after the other, as torch does.

    Args:
        stop: set when this rank's part in the run is over.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._calls: queue.Queue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = queue.Queue()
        self._began: float | None = None  # the call in progress
        self._is_closed = False
        self._thread = start_thread(
            self._work, "pluto_dist store", lost="calls of the store that the ranks share have no bound"
        )

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What ``function(*arguments)`` returns or raises.

        Raises:
            StoreSilentError: the store has not answered for too long.
            ExchangeError: it is closed.
        """
        if self._thread is None:  # the system has no thread to give
            return _called(function, *arguments)
        future: Future[Any] = Future()
        self._calls.put((future, function, arguments))
        while True:
            try:
                return future.result(timeout=_SLICE)
            except FutureTimeoutError:
                if future.done():  # by now, or it was the function that raised this
                    continue
                if self._is_closed or (silent := self._silence()) > patience(self._stop):
                    future.cancel()  # else it would be made once the store answers again
                    if self._is_closed:
                        raise ExchangeError("the store that the ranks share is closed") from None
                    told = f"the store that the ranks share has not answered for {silent:.1f} s"
                    raise StoreSilentError(told) from None

    def close(self) -> None:
        """Make no more calls; whoever waits for one raises."""
        self._is_closed = True
        self._calls.put(None)

    def _silence(self) -> float:
        """How long the call in progress has lasted."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function, arguments = call
            if future.set_running_or_notify_cancel():
                self._began = time.monotonic()
                try:
                    future.set_result(_called(function, *arguments))
                except Exception as error:  # noqa: BLE001  # the caller raises it
                    future.set_exception(error)
                self._began = None
            del call, future, function, arguments  # torch closes a connection when the last reference goes


def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    with torch_call():
        return function(*arguments)
