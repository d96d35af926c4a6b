"""The key-value store that the ranks of a launch share, with the methods of ``torch.distributed.Store``.

It holds strings. A client of its own is opened for the life of the run: torch serialises the calls of one client, so a
wait on torch's would delay torch, and a second client under a prefix of its own does not (torch 2.13). The keys outlive
the client, in the agent or in rank 0.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pluto_dist.errors import ExchangeError
from pluto_dist.rendezvous.store_thread import StoreThread
from pluto_dist.rendezvous.torch_guard import torch_call

if TYPE_CHECKING:
    import torch.distributed

PREFIX = "pluto_dist"
_BATCH = 100  # keys in one request
_NO_ANSWER = (ValueError, IndexError, OverflowError, MemoryError)  # what C++ raises that takes garbage for lengths
VALUE_LIMIT = (1 << 20) + 1  # bytes of a value that are looked at: one more than a message may have


class StoreAnswerError(ExchangeError):
    """The store answered what no store answers: what is behind its address is not the ranks' store, or not any more."""


class Store(Protocol):
    """What ``membership`` needs of a store. All methods raise ExchangeError if the store is lost."""

    def compare_set(self, key: str, expected: str, desired: str) -> str:
        """Set ``key`` if it holds ``expected`` ("" if it is missing); its value afterwards."""

    def set(self, key: str, value: str) -> None:
        """Set ``key``, whatever its value is."""

    def get(self, key: str, seconds: float = 0.0) -> str | None:
        """The value of ``key``, waiting up to ``seconds`` for it; ``None`` if it is missing."""

    def get_all(self, keys: Sequence[str]) -> list[str | None]:
        """The values of ``keys``, ``None`` for those that are missing; does not wait."""

    def add(self, key: str, amount: int) -> int:
        """Add to the counter ``key`` (0 if it is missing); its new value."""

    def close(self) -> None:
        """Close the connection; every later call raises."""


class LocalStore:
    """The store of a world of one."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._changed = threading.Condition()

    def compare_set(self, key: str, expected: str, desired: str) -> str:
        with self._changed:
            if self._values.get(key, "") == expected:
                self._values[key] = desired
                self._changed.notify_all()
            return self._values.get(key, "")

    def set(self, key: str, value: str) -> None:
        with self._changed:
            self._values[key] = value
            self._changed.notify_all()

    def get(self, key: str, seconds: float = 0.0) -> str | None:
        with self._changed:
            self._changed.wait_for(lambda: key in self._values, timeout=seconds)
            return self._values.get(key)

    def get_all(self, keys: Sequence[str]) -> list[str | None]:
        with self._changed:
            return [self._values.get(key) for key in keys]

    def add(self, key: str, amount: int) -> int:
        with self._changed:
            total = int(self._values.get(key, "0")) + amount
            self._values[key] = str(total)
            self._changed.notify_all()
            return total

    def close(self) -> None:
        """Nothing to close: the store is this process's own."""


class TorchStore:
    """A torch store under this package's prefix, its errors translated.

    Args:
        store: the client to use.
        world_size: number of ranks that may poll at once; the more there are, the less often each of them polls.
        thread: calls torch; without one the caller's own thread does.
    """

    def __init__(self, store: torch.distributed.Store, world_size: int, thread: StoreThread | None = None) -> None:
        self._thread = thread
        with torch_call():
            import torch.distributed as dist

            self._store: torch.distributed.Store | None = dist.PrefixStore(PREFIX, store)
        # The store answers some 40,000 checks a second (2 cores); ranks that wait may use up a quarter of that.
        self._longest_pause = min(2.0, max(0.02, world_size / 10_000))
        self._waited_for, self._pause = "", 0.0

    def compare_set(self, key: str, expected: str, desired: str) -> str:
        value = _text(self._call("compare_set", key, expected, desired))
        if not value and not expected and desired:
            raise StoreAnswerError(f"the store that the ranks share has not set {key!r}, and says that it is not set")
        return value

    def set(self, key: str, value: str) -> None:
        self._call("set", key, value)

    def get(self, key: str, seconds: float = 0.0) -> str | None:
        # Store.wait prints two warnings from C++ whenever it times out, and runs no signal handler meanwhile (torch
        # 2.13). A wait for one key in several calls continues with the pause that it had reached, also if another
        # key is read in between.
        until = time.monotonic() + seconds
        if seconds > 0 and key != self._waited_for:
            self._waited_for, self._pause = key, self._longest_pause / 10
        while not self._call("check", [key]):
            left = until - time.monotonic()
            if left <= 0:
                return None
            time.sleep(min(self._pause, left))
            self._pause = min(self._pause * 1.5, self._longest_pause)
        return _text(self._call("get", key)) or None  # nothing here is set to ""

    def get_all(self, keys: Sequence[str]) -> list[str | None]:
        found: list[str | None] = []
        for start in range(0, len(keys), _BATCH):
            batch = list(keys[start : start + _BATCH])
            if self._call("check", batch):
                found += [_text(value) for value in self._call("multi_get", batch)]
            else:  # one of them is missing, and multi_get would wait for it
                found += [self.get(key) for key in batch]
        return found

    def add(self, key: str, amount: int) -> int:
        return int(self._call("add", key, amount))

    def close(self) -> None:
        self._store = None  # torch closes the connection when the last reference goes
        if self._thread is not None:
            self._thread.close()

    def _call(self, method: str, *arguments: Any) -> Any:
        store = self._store
        if store is None:
            raise ExchangeError("this rank has left the store that the ranks share")
        try:
            if self._thread is not None:
                return self._thread.call(getattr(store, method), *arguments)
            with torch_call():
                return getattr(store, method)(*arguments)
        except _NO_ANSWER as error:
            raise StoreAnswerError(f"the store that the ranks share answers garbage: {error}") from error
        except RuntimeError as error:  # torch.distributed.DistError and all below it
            raise ExchangeError(f"the store that the ranks share is gone: {error}") from error


def _text(value: bytes) -> str:
    """A value as text; of one that is longer than any message the rest is left out.

    torch's server takes values of up to 8 MiB (TCPStore with libuv, 2.5 to 2.13), which a client reads whole.
    """
    return value[:VALUE_LIMIT].decode(errors="replace")
