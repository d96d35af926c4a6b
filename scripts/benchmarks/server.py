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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from init import serving
from measuring import Report, console, load, middle, ms
from rich.table import Table
from server_tracker import Cost, Tracker

ATTACHES, ATTACHES_WITH_CONFIG = 910, 190  # a second
RUNS, GROWTH = 10_000, 1.25
FEW, MANY, LENGTH_RATIO = 1_000, 10_000, 1.1

Requests = Callable[[Tracker], Iterator[bytes]]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", default=5, type=int, metavar="N", help="(default 5)")
    parser.add_argument("--seconds", default=1.0, type=float, metavar="S", help="of each kind in a round (default 1)")


def run(report: Report, rounds: int = 5, seconds: float = 1.0) -> None:
    began = time.monotonic()
    base = {key: value for key, value in os.environ.items() if not key.startswith(("PLUTO_", "MLOP_"))}
    with tempfile.TemporaryDirectory(prefix="pluto-dist-bench-") as folder, serving(Path(folder), base) as server:
        tracker = Tracker(server)
        at_start = tracker.memory
        kinds = _kinds()
        for _ in range(rounds):
            for kind in kinds:
                kind.costs.append(tracker.ask(kind.requests(tracker), kind.at_once, kind.keep_alive, seconds))
        _show(kinds, f"{rounds} rounds of {seconds:g} s each")
        _judge(report, kinds)
        _many_runs(report, tracker, at_start)
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


def _many_runs(report: Report, tracker: Tracker, at_start: float) -> None:
    before = tracker.memory
    tracker.ask(itertools.islice(map(tracker.create, tracker.names()), RUNS))
    after = tracker.memory
    console.print(
        f"\nserver memory, MiB: {at_start:.1f} at the start, {before:.1f} after the rounds, {after:.1f} after {RUNS:,} "
        f"more runs"
    )
    report.at_most(f"server memory, {RUNS:,} runs more / before", after / before, GROWTH)


def _many_attaches(report: Report, tracker: Tracker) -> None:
    """Does what is told of a run grow with every attach?"""
    name = next(tracker.names())
    run = tracker.made(name)
    shown = {"details": f"/api/runs/details/{run['runId']}", "page": urlsplit(str(run["url"])).path}
    costs: dict[str, list[Cost]] = {what: [] for what in shown}
    table = Table("attaches of the run", *(f"{what}: {each}" for what in shown for each in ("KiB", "p50 ms", "CPU ms")))
    count = 0
    for wanted in (1, FEW, MANY):
        tracker.ask(itertools.repeat(tracker.create(name), wanted - count))
        count = wanted
        row = []
        for what, path in shown.items():
            cost = tracker.ask(itertools.repeat(tracker.get(path), 50), at_once=1)
            costs[what].append(cost)
            row += [f"{cost.length / 1024:.1f}", ms(cost.answers.within(0.5)), f"{1000 * cost.cpu_each:.1f}"]
        table.add_row(f"{wanted:,}", *row)
    console.print(table)
    for what, each in costs.items():
        ratio = each[-1].length / each[-2].length
        report.at_most(f"a run's {what}, bytes: {MANY:,} attaches / {FEW:,}", ratio, LENGTH_RATIO)
