"""The key-value store that the ranks of a launch share, with the methods of ``torch.distributed.Store``.

It holds strings. A client of its own is opened for the life of the run: torch serialises the calls of one client, so a
wait on torch's would delay torch, and a second client under a prefix of its own does not (torch 2.13). The keys outlive
the client, in the agent or in rank 0.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from pluto_dist.environments.process_facts import STORE_NAME
from pluto_dist.errors import ExchangeError
from pluto_dist.log import logger
from pluto_dist.rendezvous.torch_guard import torch_call

if TYPE_CHECKING:
    import torch.distributed

PREFIX = "pluto_dist"
LOCK_SECONDS = 5.0  # how long another process may hold the lock of a file, for microseconds as a rule
_BATCH = 100  # keys in one request


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


class FileStore:
    """The store of a process without a launcher, and of the ranks that it may start on its node: a file in memory.

    Each change is one line of JSON, appended under a lock. The file has no name and no place on a disk; the other
    processes open it through the descriptor of the one that made it, and it ends with the last of them. If it cannot be
    used any more (a script has closed all descriptors), each process goes on with what it knows.

    Args:
        descriptor: of the file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        self._file = _identity(descriptor)
        self._values: dict[str, str] = {}
        self._offset = 0
        self._lock = threading.Lock()

    @classmethod
    def create(cls) -> FileStore | None:
        """An empty store; ``None`` if this system has no files in memory, or no descriptor is left."""
        try:
            return cls(os.memfd_create(STORE_NAME))
        except (OSError, AttributeError):
            return None

    @classmethod
    def open(cls, path: str) -> FileStore:
        """The store of the process that started this one.

        Raises:
            ExchangeError: that process has ended.
        """
        try:
            return cls(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            raise ExchangeError(f"the process that started this one has ended, and its run with it: {error}") from error

    @property
    def path(self) -> str:
        """What :meth:`open` takes; "" if the file cannot be used any more."""
        return "" if self._descriptor is None else f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def compare_set(self, key: str, expected: str, desired: str) -> str:
        with self._locked():
            if self._values.get(key, "") == expected:
                self._append(key, desired)
            return self._values.get(key, "")

    def set(self, key: str, value: str) -> None:
        with self._locked():
            self._append(key, value)

    def get(self, key: str, seconds: float = 0.0) -> str | None:
        until = time.monotonic() + seconds
        while (value := self.get_all([key])[0]) is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(0.02, left))
        return value

    def get_all(self, keys: Sequence[str]) -> list[str | None]:
        with self._locked():
            return [self._values.get(key) for key in keys]

    def add(self, key: str, amount: int) -> int:
        with self._locked():
            total = int(self._values.get(key, "0")) + amount
            if amount:
                self._append(key, str(total))
            return total

    def close(self) -> None:
        """Nothing to close: the process's next run uses it again."""

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """A block in which no other thread or process changes the store, and all of their changes are known."""
        with self._lock:
            self._read_news()
            try:
                yield
            finally:
                if self._descriptor is not None:
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _read_news(self) -> None:
        descriptor, until = self._descriptor, time.monotonic() + LOCK_SECONDS
        try:
            while descriptor is not None and _identity(descriptor) == self._file:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.001)
                    continue
                news = os.pread(descriptor, os.fstat(descriptor).st_size - self._offset, self._offset)
                whole = news[: news.rfind(b"\n") + 1]  # a process may have been killed while it wrote
                self._values.update(json.loads(line) for line in whole.splitlines())
                self._offset += len(whole)
                return
        except (OSError, ValueError):
            logger.debug("the store of the ranks on this node is lost", exc_info=True)
        self._descriptor = None

    def _append(self, key: str, value: str) -> None:
        self._values[key] = value
        if self._descriptor is None:
            return
        line = json.dumps([key, value]).encode() + b"\n"
        try:
            os.ftruncate(self._descriptor, self._offset)
            self._offset += os.pwrite(self._descriptor, line, self._offset)
        except OSError:  # no memory for the file: the other processes learn nothing more
            logger.debug("the store of the ranks on this node is lost", exc_info=True)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self._descriptor = None


def _identity(descriptor: int) -> tuple[int, int]:
    """Of the open file: a script may close every descriptor, and open files of its own under the same numbers."""
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


class TorchStore:
    """A torch store under this package's prefix, its errors translated.

    Args:
        store: the client to use.
        world_size: number of ranks that may poll at once; the more there are, the less often each of them polls.
    """

    def __init__(self, store: torch.distributed.Store, world_size: int) -> None:
        with torch_call():
            import torch.distributed as dist

            self._store: torch.distributed.Store | None = dist.PrefixStore(PREFIX, store)
        # The store answers some 40,000 checks a second (2 cores); ranks that wait may use up a quarter of that.
        self._longest_pause = min(2.0, max(0.02, world_size / 10_000))
        self._waited_for, self._pause = "", 0.0

    def compare_set(self, key: str, expected: str, desired: str) -> str:
        value: bytes = self._call("compare_set", key, expected, desired)
        return value.decode(errors="replace")

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
        value: bytes = self._call("get", key)
        return value.decode(errors="replace")

    def get_all(self, keys: Sequence[str]) -> list[str | None]:
        found: list[str | None] = []
        for start in range(0, len(keys), _BATCH):
            batch = list(keys[start : start + _BATCH])
            if self._call("check", batch):
                found += [value.decode(errors="replace") for value in self._call("multi_get", batch)]
            else:  # one of them is missing, and multi_get would wait for it
                found += [self.get(key) for key in batch]
        return found

    def add(self, key: str, amount: int) -> int:
        return int(self._call("add", key, amount))

    def close(self) -> None:
        self._store = None  # torch closes the connection when the last reference goes

    def _call(self, method: str, *arguments: Any) -> Any:
        store = self._store
        if store is None:
            raise ExchangeError("this rank has left the store that the ranks share")
        try:
            with torch_call():
                return getattr(store, method)(*arguments)
        except RuntimeError as error:  # torch.distributed.DistError and all below it
            raise ExchangeError(f"the store that the ranks share is gone: {error}") from error
