"""A store for the processes of one node that no launcher has started: a file in memory (Linux)."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pluto_dist.environments.process_facts import STORE_NAME
from pluto_dist.errors import ExchangeError
from pluto_dist.log import logger

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_SECONDS = 5.0  # how long another process may hold the lock of a file, for microseconds as a rule


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
        if fcntl is None:
            return None
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
