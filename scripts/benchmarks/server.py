"""The embedded tracker under load: requests a second, their latency, and the server's CPU time for each.

`pluto-dist server` is a process of its own with a new database on disk. The client, one lean thread (``traffic``),
shares the machine with it, as it did when the hosted server's code was measured: 91 attaches a second, 19 with
config and metadata, on 2 cores, with a new connection for each. The targets are ten times that.

All kinds of requests take turns within a round. CPU time for a request hardly depends on what else the machine
does; requests a second do.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from init import PROJECT, serving
from measuring import Report, console, load, middle, ms
from rich.table import Table
from server_tracker import Cost, Tracker

ATTACHES, ATTACHES_WITH_CONFIG = 910, 190  # a second
FEW, MANY = 1_000, 10_000  # runs of a project, attaches of a run
LENGTH_RATIO, CPU_RATIO, MEMORY_RATIO = 1.1, 1.5, 1.25

Requests = Callable[[Tracker], Iterator[bytes]]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", default=5, type=int, metavar="N", help="(default 5)")
    parser.add_argument("--seconds", default=1.0, type=float, metavar="S", help="of each kind in a round (default 1)")


def run(report: Report, rounds: int = 5, seconds: float = 1.0) -> None:
    began = time.monotonic()
    base = {key: value for key, value in os.environ.items() if not key.startswith(("PLUTO_", "MLOP_"))}
    with tempfile.TemporaryDirectory(prefix="pluto-dist-bench-") as folder, serving(Path(folder), base) as server:
        tracker = Tracker(server)
        console.print(f"server memory at the start: {tracker.memory:.1f} MiB")
        kinds = _kinds()
        for _ in range(rounds):
            for kind in kinds:
                kind.costs.append(tracker.ask(kind.requests(tracker), kind.at_once, kind.keep_alive, seconds))
        _show(kinds, f"{rounds} rounds of {seconds:g} s each")
        _judge(report, kinds)
        _many_runs(report, tracker)
        _many_attaches(report, tracker)
    console.print(f"\n{time.monotonic() - began:.0f} s in all;  load {load()}")


@dataclass(frozen=True)
class Kind:
    """One way of asking, and what it cost in each round."""

    name: str
    requests: Requests
    at_once: int = 16
    keep_alive: bool = False
    target: float | None = None
    costs: list[Cost] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers a second, in the middle round."""
        return middle(cost.answers.rate for cost in self.costs)


def _kinds() -> list[Kind]:
    attaches = [
        Kind(name, requests, at_once, keep_alive, None if keep_alive else target)
        for name, requests, target in (
            ("attach", _attaches, ATTACHES),
            ("attach, config + metadata", _attaches_with_config, ATTACHES_WITH_CONFIG),
        )
        for keep_alive in (False, True)
        for at_once in (16, 64)
    ]
    return [
        Kind("health (HTTP alone)", lambda tracker: itertools.repeat(tracker.get("/api/health"))),
        *attaches,
        Kind("create", lambda tracker: map(tracker.create, tracker.names())),
        Kind("create, config + metadata", _creates_with_config),
        Kind("heartbeat", _heartbeats),
        Kind("heartbeat", _heartbeats, keep_alive=True),
    ]


def _attaches(tracker: Tracker) -> Iterator[bytes]:
    name = next(tracker.names())
    tracker.made(name)
    return itertools.repeat(tracker.create(name))


def _attaches_with_config(tracker: Tracker) -> Iterator[bytes]:
    """Each changes the stored config, which the server must read, merge and write."""
    name = next(tracker.names())
    tracker.made(name)
    return (tracker.create(name, config_of=rank) for rank in itertools.count())


def _creates_with_config(tracker: Tracker) -> Iterator[bytes]:
    return (tracker.create(name, config_of=0) for name in tracker.names())


def _heartbeats(tracker: Tracker) -> Iterator[bytes]:
    run = tracker.made(next(tracker.names()))["runId"]
    return itertools.repeat(tracker.post("/api/runs/trigger", {"runId": run}))


def _show(kinds: Sequence[Kind], title: str) -> None:
    table = Table(
        "request",
        "connections",
        "at once",
        "a second: median",
        "best",
        "p50 ms",
        "p99 ms",
        "server CPU ms each",
        "client CPU ms each",
        title=f"{title}, medians;  load {load()}",
        title_justify="left",
    )
    for kind in kinds:
        answers = [cost.answers for cost in kind.costs]
        table.add_row(
            kind.name,
            "kept" if kind.keep_alive else "new",
            str(kind.at_once),
            f"{kind.rate:.0f}",
            f"{max(each.rate for each in answers):.0f}",
            *(ms(middle(each.within(share) for each in answers)) for share in (0.5, 0.99)),
            f"{1000 * middle(cost.cpu_each for cost in kind.costs):.3f}",
            f"{1000 * middle(each.cpu / each.count for each in answers):.3f}",
        )
    console.print(table)


def _judge(report: Report, kinds: Sequence[Kind]) -> None:
    for kind in kinds:
        if kind.target is not None:
            report.at_least(f"{kind.name}, new connections, {kind.at_once} at once", kind.rate, kind.target, "a second")


def _many_runs(report: Report, tracker: Tracker) -> None:
    """Does a list of runs cost more with every run, and does the server's memory grow?"""
    before = tracker.memory
    project = f"{PROJECT}-many"
    creates = (tracker.create(name, project=project) for name in tracker.names())
    paths = {"list": f"/api/runs/list?projectName={project}", "page": f"/o/local-org/projects/{project}"}
    _grow(report, tracker, "a project's runs", creates, paths)
    after = tracker.memory
    console.print(f"server memory, MiB: {before:.1f} before these runs, {after:.1f} after them")
    report.at_most(f"server memory: after {MANY:,} more runs / before", after / before, MEMORY_RATIO)


def _many_attaches(report: Report, tracker: Tracker) -> None:
    """Does what is told of a run cost more with every attach?"""
    name = next(tracker.names())
    run = tracker.made(name)
    paths = {"details": f"/api/runs/details/{run['runId']}", "page": urlsplit(str(run["url"])).path}
    _grow(report, tracker, "a run's attaches", itertools.repeat(tracker.create(name)), paths, count=1)


def _grow(
    report: Report, tracker: Tracker, what: str, requests: Iterator[bytes], paths: Mapping[str, str], count: int = 0
) -> None:
    """What the answers at ``paths`` cost as ``what`` grows with every one of ``requests`` from ``count`` on."""
    costs: dict[str, list[Cost]] = {name: [] for name in paths}
    table = Table(what, *(f"{name}: {each}" for name in paths for each in ("KiB", "p50 ms", "CPU ms")))
    for wanted in (1, FEW, MANY):
        tracker.ask(itertools.islice(requests, wanted - count))
        count = wanted
        row = []
        for name, path in paths.items():
            cost = tracker.ask(itertools.repeat(tracker.get(path), 50), at_once=1)
            costs[name].append(cost)
            row += [f"{cost.length / 1024:.1f}", ms(cost.answers.within(0.5)), f"{1000 * cost.cpu_each:.1f}"]
        table.add_row(f"{wanted:,}", *row)
    console.print(table)
    for name, (_, few, many) in costs.items():
        figure = f"{what}, {name}: {MANY:,} / {FEW:,}"
        report.at_most(f"{figure}, bytes", many.length / few.length, LENGTH_RATIO)
        report.at_most(f"{figure}, CPU", many.cpu / few.cpu, CPU_RATIO)
