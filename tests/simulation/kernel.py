"""The simulated machine: virtual time, processes with threads, and one order of events for each seed.

A thread is a greenlet. It runs until it waits (:meth:`World.sleep`, :meth:`World.block`); what happens between two
waits is atomic. Events of one moment are ordered at random, by the seed. A process that was killed is never resumed;
one that was stopped (SIGSTOP) goes on later, as if no time had passed for it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import greenlet

BOOTED = 5000.0  # the monotonic clock when the world begins
EPOCH = 1_700_000_000.0  # the wall clock then; files of this machine are all younger, so none is a stale draft
_ON_ITS_WAY = 0.0009  # seconds after its call; it is not executed before 0.001


class Killed(greenlet.GreenletExit):
    """Ends what is left of a thread after its process, or the world, has ended."""


@dataclass(eq=False)
class Host:
    """A machine: its name, its folder on the disk, and its wall clock."""

    name: str
    folder: str = ""
    clock: Callable[[float], float] = lambda now: now
    disk_fails: Callable[[str], int | None] = lambda call: None
    has_threads: Callable[[], bool] = lambda: True


@dataclass(eq=False)
class Process:
    """A process.

    Attributes:
        strikes: what happens at a request, by its number, and whether the request is on its way by then.
        on_end: called once it is over, with its exit code (negative: a signal).
        state: what modules of the package keep for one process, by name.
    """

    host: Host
    name: str
    pid: int
    environ: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None
    frozen_until: float = 0.0
    on_end: list[Callable[[int], None]] = field(default_factory=list)
    on_sigterm: Callable[[], None] | None = None
    locks: list[int] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    operations: int = 0
    killed_at_operation: int | None = None
    requests: int = 0
    strikes: dict[int, tuple[bool, Callable[[], None]]] = field(default_factory=dict)
    is_terminating: bool = False

    @property
    def is_alive(self) -> bool:
        return self.exit_code is None


class Task:
    """A thread of a process."""

    def __init__(self, world: World, process: Process, name: str, target: Callable[[], object]) -> None:
        self.world, self.process, self.name = world, process, name
        self.is_done = False
        self.waits = 0  # how often it has waited: an event that would wake an earlier wait does nothing
        self.result: Any = None
        self.joiners: list[Callable[[], None]] = []
        self.greenlet = greenlet.greenlet(self._run, parent=world.hub)
        self._target = target

    def _run(self) -> None:
        try:
            self._target()
        except greenlet.GreenletExit:
            pass
        except BaseException as error:  # noqa: BLE001  # a thread that dies of an exception is a finding
            self.world.died(self, error)
        self.is_done = True
        for joiner in self.joiners:
            joiner()


class World:
    """One schedule's world.

    Args:
        seed: of everything that is left to chance.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"world {seed}")
        self.now = 0.0
        self.is_over = False
        self.hub = greenlet.getcurrent()
        self.task: Task | None = None
        self.tasks: list[Task] = []
        self.processes: list[Process] = []
        self.story: list[tuple[float, str, str]] = []
        self.deaths: list[tuple[Task, BaseException]] = []
        self.tracker_clock: Callable[[float], float] = lambda now: now
        self._events: list[tuple[float, float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._pids = 1000

    # Events.

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do ``action`` at a moment, in no process."""
        self._sequence += 1
        heapq.heappush(self._events, (max(when, self.now), self.random.random(), self._sequence, action))

    def at_once(self, when: float, action: Callable[[], None]) -> None:
        """As :meth:`at`, but before what else happens at that moment, in the order of the calls."""
        self._sequence += 1
        heapq.heappush(self._events, (max(when, self.now), -1.0, self._sequence, action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self.at(self.now + seconds, action)

    def run(self, until: float) -> None:
        """Let events happen until none is left, or until a moment."""
        while self._events:
            when, _, _, action = heapq.heappop(self._events)
            if when > until:
                self.at(when, action)
                self.now = until
                return
            self.now = when
            action()

    def finish(self) -> None:
        """End all threads that are left."""
        self.is_over = True
        for task in self.tasks:
            if task.greenlet and not task.greenlet.dead:
                self.task = task
                task.greenlet.throw(Killed)
        self.task = None

    # Threads.

    def spawn(self, process: Process, name: str, target: Callable[[], object], delay: float = 0.0) -> Task:
        task = Task(self, process, name, target)
        self.tasks.append(task)
        self.after(delay, lambda: self._resume(task, 0, None))
        return task

    def block(self, seconds: float | None = None) -> Any:
        """Wait until :meth:`wake` is called for this wait, or for ``seconds``; what it was woken with."""
        task = self.task
        if task is None:
            raise RuntimeError("only a simulated thread can wait")
        if self.is_over:
            raise Killed
        wait = task.waits
        if seconds is not None:
            self.after(max(0.0, seconds), lambda: self._resume(task, wait, None))
        task.result = None
        self.hub.switch()
        if self.is_over:
            raise Killed
        return task.result

    def sleep(self, seconds: float) -> None:
        self.block(seconds)

    def waker(self) -> Callable[..., None]:
        """A function that wakes this thread from its next wait, and from no later one."""
        task = self.task
        if task is None:
            raise RuntimeError("only a simulated thread can wait")
        wait = task.waits
        return lambda result=None: self.after(0.0, lambda: self._resume(task, wait, result))

    def operation(self, kind: str) -> None:
        """A point at which others may run, or this process is killed: any call of the store, HTTP, the disk."""
        task = self.task
        if task is None or self.is_over:
            return
        process = task.process
        process.operations += 1
        if process.operations == process.killed_at_operation:
            self.tell(process.name, f"SIGKILL at operation {process.operations} ({kind})")
            self.kill(process)
            self.block()
        if kind == "http":
            process.requests += 1
            if strike := process.strikes.get(process.requests):
                is_sent, action = strike
                self.after(_ON_ITS_WAY if is_sent else 0.0, action)
        self.sleep(self.random.expovariate(10_000.0))

    def _resume(self, task: Task, wait: int, result: Any) -> None:
        if task.waits != wait or task.is_done or not task.process.is_alive:
            return
        if task.process.is_terminating and task.name == "main":
            return  # the main thread is in its signal handler until the process dies
        if task.process.frozen_until > self.now:
            self.at(task.process.frozen_until, lambda: self._resume(task, wait, result))
            return
        task.waits += 1
        task.result = result
        self.task = task
        task.greenlet.switch()
        self.task = None

    def died(self, task: Task, error: BaseException) -> None:
        self.deaths.append((task, error))
        self.tell(task.process.name, f"thread {task.name} died: {type(error).__name__}: {error}")

    # Processes.

    def process(self, host: Host, name: str, environ: dict[str, str] | None = None) -> Process:
        self._pids += 1
        made = Process(host, name, self._pids, dict(environ or {}))
        self.processes.append(made)
        return made

    def kill(self, process: Process, code: int = -9) -> None:
        """End a process at once; the threads of it that wait are never resumed."""
        if not process.is_alive:
            return
        process.exit_code = code
        process.state["ended"] = self.now
        process.locks.clear()
        for called in process.on_end:
            called(code)

    def signal(self, process: Process) -> None:
        """SIGTERM."""
        if not process.is_alive:
            return
        self.tell(process.name, "SIGTERM")
        if process.on_sigterm is None:
            self.kill(process, -15)
        else:
            process.on_sigterm()

    def freeze(self, process: Process, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        process.frozen_until = max(process.frozen_until, self.now + seconds)
        process.state["thawed"] = process.frozen_until
        self.tell(process.name, f"SIGSTOP for {seconds:.1f} s")

    # What a process sees.

    @property
    def monotonic(self) -> float:
        return BOOTED + self.now

    @property
    def wall(self) -> float:
        """The wall clock of the running thread's host; the tracker's if none runs."""
        clock = self.tracker_clock if self.task is None else self.task.process.host.clock
        return EPOCH + clock(self.now)

    def tell(self, who: str, what: str) -> None:
        """Add a line to the story."""
        self.story.append((self.now, who, what))
