"""Runs one schedule: builds its world, lets the job happen, mends what was broken, syncs, and judges."""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

import pluto_dist.run as run_module
from pluto_dist import api, background
from pluto_dist.client import tracker_client
from pluto_dist.client.offline import entry, queue
from pluto_dist.client.offline.sync import sync
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.secret import Secret
from pluto_dist.environments import ProcessFacts
from pluto_dist.inventory.probes import software
from pluto_dist.inventory.records import GpuReport, HostReport, NodeInventory, Process
from pluto_dist.lifecycle import inventory_report, participant
from pluto_dist.log import logger
from pluto_dist.rendezvous import node_state, session
from simulation import stdlib
from simulation.jobs import ExitHooks, Job, TerminationHook
from simulation.kernel import Host, World
from simulation.schedule import EXPERIMENT, Schedule
from simulation.tracker import KEY, WEB, Application, Tracker, stepped
from simulation.transport import Adapter, Network, Stores, Weather

HOSTS = 3
LONGEST = 4000.0  # seconds of virtual time for a job; a process that lives then is hung
SYNC_TRIES = 6


@dataclass
class Finished:
    """What is left of a schedule's world for the invariants.

    Attributes:
        stuck: the processes that never ended.
        messages: what the package logged: when, by which process, level and text.
        before_sync: status of each run before the last syncs.
        left: what the spools still hold, after them.
    """

    schedule: Schedule
    world: World
    tracker: Tracker
    job: Job
    stuck: list[str] = field(default_factory=list)
    messages: list[tuple[float, str, int, str]] = field(default_factory=list)
    before_sync: dict[int, str] = field(default_factory=dict)
    after_sync: dict[int, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)
    kept_before: int = 0


class Simulator:
    """Runs schedules one after the other.

    Args:
        root: a folder on a disk in memory, for the hosts' files.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._application = Application()
        self._software = software.probe()
        self._count = 0

    def run(self, schedule: Schedule, judge: Callable[[Finished], Any], *, detailed: bool = False) -> Any:
        """What ``judge`` says of the schedule's end."""
        self._count += 1
        folder = self._root / f"{os.getpid()}-{self._count}"
        world = World(schedule.seed)
        finished: Finished | None = None
        try:
            with ExitStack() as stack:
                hosts = self._hosts(world, schedule, folder)
                tracker = Tracker(world, self._application, is_hosted=schedule.hosted)
                tracker.facts.at_limit = schedule.limit
                weather = Weather(list(schedule.weather))
                network = Network(world, tracker, weather)
                network.cut_hosts = [(begin, end, f"host-{host}") for begin, end, host in schedule.cuts]
                stores = Stores(world)
                stores.partitions = [(begin, end, f"host-{host}", how) for begin, end, host, how in schedule.partitions]
                job = Job(world, hosts, stores, schedule.launches, schedule.faults)
                finished = Finished(schedule, world, tracker, job)
                stack.enter_context(stdlib.installed(world, schedule.seed))
                stack.enter_context(stepped())
                stack.enter_context(self._outside(world, network, stores))
                stack.enter_context(_logged(world, finished, detailed=detailed))
                self._play(finished, network)
                return judge(finished)
        finally:
            world.finish()
            shutil.rmtree(folder, ignore_errors=True)

    def _hosts(self, world: World, schedule: Schedule, folder: Path) -> list[Host]:
        hosts = []
        for number in range(HOSTS):
            own = folder / f"host-{number}"
            for each in (own, own / "tmp"):
                each.mkdir(mode=0o700, parents=True)
            host = Host(f"host-{number}", str(own))
            lacks = [(begin, end) for begin, end, which in schedule.threadless if which == number]
            if lacks:
                host.has_threads = lambda lacks=lacks: not any(begin <= world.now < end for begin, end in lacks)  # type: ignore[misc]
            wrong = [(by, step) for which, by, step in schedule.clocks if which == number]
            if wrong:
                (by, step) = wrong[0]
                host.clock = lambda now, by=by, step=step: now + by + (step if now > 20 else 0.0)  # type: ignore[misc]
            spells = [(begin, end) for begin, end, which in schedule.disk if which == number]
            if spells:
                host.disk_fails = lambda call, spells=spells: (  # type: ignore[misc]
                    errno.ENOSPC if any(begin <= world.now < end for begin, end in spells) else None
                )
            hosts.append(host)
        if schedule.shared_spool:
            Path(hosts[0].folder, "state").mkdir(mode=0o700)
            for host in hosts[1:]:
                Path(host.folder, "state").symlink_to(Path(hosts[0].folder, "state"))
        return hosts

    @contextmanager
    def _outside(self, world: World, network: Network, stores: Stores) -> Iterator[None]:
        """What is outside the package and not of the standard library: transports, hardware, processes."""
        Adapter.network = network

        def collect(deadline: float, sources: Any) -> NodeInventory:
            world.sleep(world.random.choice((0.01, 0.01, world.random.uniform(0, 1.5))))
            assert world.task is not None
            name = world.task.process.host.name
            return NodeInventory(name, HostReport(), self._software, GpuReport(), None, 10)

        replaced: list[tuple[Any, str, Any]] = [
            (api, "gather", lambda environ, group, began_alone: ProcessFacts(group)),
            (tracker_client, "DeadlineAdapter", Adapter),
            (requests.sessions, "get_environ_proxies", lambda url, no_proxy=None: {}),  # there is none
            (session, "connect", stores.connect),
            (participant, "hosts_a_store", stores.hosts_a_store),
            (participant, "describe", lambda sources: Process),
            (inventory_report, "collect", collect),
            (node_state, "is_supervised", lambda context: context.supervisor is not None),
            (node_state, "_agent", lambda marks: f"{world.task.process.host.name} agent" if world.task else None),
            (run_module, "ExitHooks", ExitHooks),
            (run_module, "TerminationHook", TerminationHook),
            (run_module.sdk, "export", lambda run_id, project, parent: None),
            (background, "report", _reported(world)),
            (entry, "_last_at", 0),
            (entry, "_clock", stdlib.Lock(world)),
        ]
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
        for owner, name, value in replaced:
            setattr(owner, name, value)
        try:
            yield
        finally:
            for owner, name, value in before:
                setattr(owner, name, value)

    def _play(self, finished: Finished, network: Network) -> None:
        schedule, world, tracker, job = finished.schedule, finished.world, finished.tracker, finished.job
        tracker.watch()
        if schedule.foreign:
            tracker.add(EXPERIMENT, schedule.foreign)
        job.start()
        for when in schedule.cancels:
            world.at(when, lambda: _cancel(world, tracker))
        for when, host in schedule.syncs:
            world.at(when, lambda host=host: _start_sync(world, job.hosts[host]))  # type: ignore[misc]
        for begin, end, host in schedule.frozen:
            world.at(begin, lambda host=job.hosts[host], seconds=end - begin: _freeze(world, host, seconds))  # type: ignore[misc]
        last = max(launch.start for launch in schedule.launches)
        stalled = max((end for _, end, what, _ in schedule.weather if what == "late"), default=0.0)
        end = last
        while end < last + LONGEST:
            end += 50.0
            world.run(end)
            if end > max(last + 5, stalled) and not any(process.is_alive for process in world.processes):
                break
        finished.stuck = [process.name for process in world.processes if process.is_alive]
        for process in world.processes:
            world.kill(process)
        # Everything is well again; what was kept is sent.
        network.weather.spells.clear()
        network.cut_hosts.clear()
        finished.job.stores.partitions.clear()
        for host in job.hosts:
            host.disk_fails = lambda call: None
            host.has_threads = lambda: True
        tracker.facts.at_limit = False
        finished.before_sync = {run["id"]: run["status"] for run in tracker.runs()}
        finished.kept_before = len(_left(job))
        for attempt in range(SYNC_TRIES):
            for host in job.hosts:
                _start_sync(world, host)
                world.run(world.now + 100)
            if attempt and not _left(job):
                break
        finished.after_sync = {run["id"]: run["status"] for run in tracker.runs()}
        finished.left, finished.set_aside = _left(job), _left(job, "set-aside/*")


def _freeze(world: World, host: Host, seconds: float) -> None:
    for process in world.processes:
        if process.host is host and process.is_alive:
            world.freeze(process, seconds)


def _reported(world: World) -> Callable[[Exception, str], None]:
    """What the package does with an exception that none expects: a finding, unless the system has no thread to give."""

    def report(error: Exception, lost: str) -> None:
        logger.warning("%s: %s", lost, error)
        if world.task is not None and str(error) != "can't start new thread":
            world.died(world.task, error)

    return report


def _cancel(world: World, tracker: Tracker) -> None:
    for run in tracker.runs():
        if run["status"] == "RUNNING":
            world.tell("a person", f"cancels run {run['id']}")
            tracker.cancel(run["id"])


def _left(job: Job, pattern: str = "*.json") -> list[str]:
    found = set()
    for host in job.hosts:
        for file in sorted(Path(host.folder, "state").resolve().glob(f"pluto-dist/spool/*/{pattern}")):
            found.add(str(file))
    return sorted(found)


def _start_sync(world: World, host: Host) -> None:
    process = world.process(host, f"sync on {host.name}")

    def main() -> None:
        root = Path(host.folder) / "state" / "pluto-dist" / "spool"
        client = TrackerClient(WEB, WEB, Secret(KEY), user_agent="sync")
        try:
            waiting = queue.runs(root) if root.exists() else []
            for done in sync(waiting, lambda origin: client):
                world.tell(process.name, f"{done.state} {done.why} {'; '.join(done.replayed.notes)}".strip())
        except OSError as error:
            world.tell(process.name, f"gives up: {error}")
        finally:
            if not world.is_over:
                world.kill(process, 0)

    world.spawn(process, "main", main)


class _Handler(logging.Handler):
    def __init__(self, world: World, finished: Finished) -> None:
        super().__init__()
        self._world, self._finished = world, finished

    def emit(self, record: logging.LogRecord) -> None:
        world = self._world
        who = world.task.process.name if world.task else "tracker"
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f" [{type(record.exc_info[1]).__name__}: {record.exc_info[1]}]"
        self._finished.messages.append((world.now, who, record.levelno, text))
        world.tell(who, f"{record.levelname}: {text}")


@contextmanager
def _logged(world: World, finished: Finished, *, detailed: bool) -> Iterator[None]:
    handlers, propagates, level = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = [_Handler(world, finished)], False
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagates
        logger.setLevel(level)


def with_seed(schedule: Schedule, seed: int) -> Schedule:
    return dataclasses.replace(schedule, seed=seed)
