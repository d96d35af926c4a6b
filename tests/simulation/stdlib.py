"""The standard library as a simulated process sees it: time, threads, chance, the process's identity, the disk's calls.

Modules of the package take these from the standard library's modules (``time.monotonic()``), so replacing the names
there replaces them everywhere, and no module of the package is changed for it. Outside a simulated thread, and outside
:func:`installed`, everything is as it was.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from simulation.kernel import Process, Task, World

_FILE_CALLS = ("open", "link", "unlink", "replace", "rename", "mkdir", "rmdir", "scandir", "listdir", "fsync")


class Lock:
    """``threading.Lock``."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_held = False
        self._waiting: list[Callable[..., None]] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        world = self._world
        until = None if timeout < 0 else world.now + timeout
        while self._is_held:
            left = None if until is None else until - world.now
            if not blocking or (left is not None and left <= 0):
                return False
            self._waiting.append(world.waker())
            world.block(left)
        self._is_held = True
        return True

    def release(self) -> None:
        self._is_held = False
        waiting, self._waiting = self._waiting, []
        if not self._world.is_over:
            for wake in waiting:
                wake()

    def locked(self) -> bool:
        return self._is_held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class RLock(Lock):
    """``threading.RLock``."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._owner: Task | None = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._depth and self._owner is self._world.task:
            self._depth += 1
            return True
        if not super().acquire(blocking, timeout):
            return False
        self._owner, self._depth = self._world.task, 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if self._depth <= 0:
            self._owner, self._depth = None, 0
            super().release()

    def release_all(self) -> int:
        depth, self._depth = self._depth, 1
        self.release()
        return depth

    def acquire_again(self, depth: int) -> None:
        self.acquire()
        self._depth = depth


class Condition:
    """``threading.Condition``."""

    def __init__(self, world: World, lock: Lock | None = None) -> None:
        self._world = world
        self._lock = lock or RLock(world)
        self._waiting: list[Callable[..., None]] = []
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        self._waiting.append(self._world.waker())
        depth = self._lock.release_all() if isinstance(self._lock, RLock) else self._lock.release()
        try:
            return bool(self._world.block(timeout))
        finally:
            if not self._world.is_over:
                self._lock.acquire_again(depth) if isinstance(self._lock, RLock) else self._lock.acquire()

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        until = None if timeout is None else self._world.now + timeout
        while not (result := predicate()):
            left = None if until is None else until - self._world.now
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def notify(self, n: int = 1) -> None:
        woken, self._waiting = self._waiting[:n], self._waiting[n:]
        if not self._world.is_over:
            for wake in woken:
                wake(True)

    def notify_all(self) -> None:
        self.notify(len(self._waiting))


class Event:
    """``threading.Event``."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_set = False
        self._waiting: list[Callable[..., None]] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        waiting, self._waiting = self._waiting, []
        if not self._world.is_over:
            for wake in waiting:
                wake(True)

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        if not self._is_set:
            self._waiting.append(self._world.waker())
            self._world.block(timeout)
        return self._is_set


class Thread:
    """``threading.Thread``, in the process of the thread that starts it."""

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self.name, self.daemon = name or "thread", bool(daemon)
        self._call = lambda: None if target is None else target(*args, **(kwargs or {}))
        self._world = current()
        self._task: Task | None = None

    def start(self) -> None:
        assert self._world.task is not None
        process = self._world.task.process
        if not process.host.has_threads():
            raise RuntimeError("can't start new thread")
        self._task = self._world.spawn(process, self.name, self._call)

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.is_done

    def join(self, timeout: float | None = None) -> None:
        if self._task is None or self._task.is_done:
            return
        self._task.joiners.append(self._world.waker())
        self._world.block(timeout)


_worlds: list[World] = []


def current() -> World:
    """The world that is running."""
    return _worlds[-1]


def process_of(world: World) -> Process | None:
    return None if world.task is None else world.task.process


@contextmanager
def installed(world: World, seed: int) -> Iterator[None]:
    """Replace the names of the standard library while ``world`` runs."""
    chance = random.Random(f"library {seed}")
    before: list[tuple[object, str, Any]] = []

    def replace(owner: object, name: str, made: Any) -> None:
        before.append((owner, name, getattr(owner, name)))
        setattr(owner, name, made)

    replace(time, "monotonic", lambda: world.monotonic)
    replace(time, "time", lambda: world.wall)
    replace(time, "time_ns", lambda: int(world.wall * 1000) * 1_000_000)
    replace(time, "sleep", world.sleep)
    replace(threading, "Lock", lambda: Lock(world))
    replace(threading, "RLock", lambda: RLock(world))
    replace(threading, "Condition", lambda lock=None: Condition(world, lock))
    replace(threading, "Event", lambda: Event(world))
    replace(threading, "Thread", Thread)
    replace(random, "uniform", chance.uniform)
    replace(random, "random", chance.random)
    replace(random, "randint", chance.randint)
    replace(random.SystemRandom, "random", lambda _: chance.random())
    replace(secrets, "token_hex", lambda size=16: chance.randbytes(size).hex())
    replace(secrets, "choice", chance.choice)
    real = {name: getattr(os, name) for name in ("getpid", *_FILE_CALLS)}
    replace(os, "getpid", lambda: world.task.process.pid if world.task else real["getpid"]())
    replace(socket, "gethostname", lambda: world.task.process.host.name if world.task else "tracker")
    replace(tempfile, "gettempdir", lambda: f"{world.task.process.host.folder}/tmp" if world.task else "/nowhere")
    for name in _FILE_CALLS:
        replace(os, name, _file_call(world, name, real[name]))
    replace(fcntl, "flock", _Locks(world).flock)
    _worlds.append(world)
    try:
        yield
    finally:
        _worlds.pop()
        for owner, name, value in reversed(before):
            setattr(owner, name, value)


def _file_call(world: World, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        if world.task is not None and not world.is_over:
            host = world.task.process.host
            target = str(args[0]) if args else ""
            if name == "fsync" or target.startswith(host.folder):
                world.operation(f"{name} {target.removeprefix(host.folder)}" if name != "fsync" else name)
                is_player = world.task.name == "main" and "node" in world.task.process.state  # of an agent
                if not is_player and (number := host.disk_fails(name)) is not None:
                    raise OSError(number, os.strerror(number), target)
        if name == "fsync":
            return None
        return call(*args, **kwargs)

    return called


class _Locks:
    """``fcntl.flock``: which process holds the lock on which file; it ends with the process."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._held: dict[tuple[int, int], tuple[Process, int]] = {}

    def flock(self, descriptor: int, operation: int) -> None:
        process = process_of(self._world)
        found = os.fstat(descriptor)
        file = (found.st_dev, found.st_ino)
        holder = self._held.get(file)
        if operation & fcntl.LOCK_UN:
            if holder is not None and holder[1] == descriptor:
                del self._held[file]
            return
        if holder is not None and holder[0].is_alive and holder[1] != descriptor:
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
        if process is not None:
            self._held[file] = (process, descriptor)
