"""One key-value store that the ranks of a launch share, in torch's words.

It carries strings; what the ranks say to each other is ``exchange``, where they find the store is ``meeting``. A
client of its own is opened and held for the life of the run: torch serialises the calls of one client, so waiting
on torch's would hold up torch, and a second client under a prefix of its own disturbs nothing (torch 2.13). What
the ranks wrote outlives it, in the agent or in rank 0.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from pluto_dist.errors import ExchangeError

if TYPE_CHECKING:
    import torch.distributed

PREFIX = "pluto_dist"


class Store(Protocol):
    """What ``exchange`` needs of a store. All methods raise ExchangeError when the store is lost."""

    def compare_set(self, key: str, expected: str, desired: str) -> str:
        """Set ``key`` if it holds ``expected`` ("" where it is missing); the value it then holds."""

    def set(self, key: str, value: str) -> None:
        """Set ``key``, whatever it holds."""

    def get(self, key: str, seconds: float = 0.0) -> str | None:
        """The value of ``key``, waiting up to ``seconds`` for it; ``None`` where it is missing."""

    def add(self, key: str, amount: int) -> int:
        """Add to the counter ``key`` (0 where it is missing); its new value."""

    def close(self) -> None:
        """Leave the store; every later call raises."""


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

    def add(self, key: str, amount: int) -> int:
        with self._changed:
            total = int(self._values.get(key, "0")) + amount
            self._values[key] = str(total)
            self._changed.notify_all()
            return total

    def close(self) -> None:
        """Nothing to leave: the store is this process's own."""


class TorchStore:
    """A torch store under this package's prefix, its errors translated.

    Args:
        store: the client to use.
        world_size: how many ranks may ask at once; the more there are, the less often each of them asks.
    """

    def __init__(self, store: torch.distributed.Store, world_size: int) -> None:
        import torch.distributed as dist

        self._store: torch.distributed.Store | None = dist.PrefixStore(PREFIX, store)
        self._longest_pause = min(0.5, max(0.02, world_size / 40_000))  # the store answers 40,000 checks a second

    def compare_set(self, key: str, expected: str, desired: str) -> str:
        value: bytes = self._call("compare_set", key, expected, desired)
        return value.decode(errors="replace")

    def set(self, key: str, value: str) -> None:
        self._call("set", key, value)

    def get(self, key: str, seconds: float = 0.0) -> str | None:
        # Store.wait would do, but prints two warnings from C++ whenever it runs out (torch 2.13), and lets no
        # signal handler run meanwhile.
        until, pause = time.monotonic() + seconds, 0.002
        while not self._call("check", [key]):
            left = until - time.monotonic()
            if left <= 0:
                return None
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, self._longest_pause)
        value: bytes = self._call("get", key)
        return value.decode(errors="replace")

    def add(self, key: str, amount: int) -> int:
        return int(self._call("add", key, amount))

    def close(self) -> None:
        self._store = None  # torch closes the connection when the last reference goes

    def _call(self, method: str, *arguments: Any) -> Any:
        store = self._store
        if store is None:
            raise ExchangeError("this rank has left the store that the ranks share")
        try:
            return getattr(store, method)(*arguments)
        except RuntimeError as error:  # torch.distributed.DistError and all below it
            raise ExchangeError(f"the store that the ranks share is gone: {error}") from error
