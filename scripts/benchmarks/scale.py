"""Thousands of simulated ranks on one real store: how soon does the last one know the run?

Every rank has a client of its own of one real TCPStore and runs the package's code (``scale_ranks``); rank 0
creates the run at a real embedded tracker over HTTP (``scale_tracker``). In turns with it, on the same clients and
threads: the bare store, one key set by one client and looked for by all others. Then the other ranks attach.

What it is not: ranks that each have a CPU. All of them share this machine with the store and the tracker, so
ratios count, seconds do not.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from init import CONFIG, MIB, NO_RESOLVER, ROOT
from measuring import Report, console, load, middle
from ranks import Crew
from rich.table import Table

from pluto_dist.client import rate_limit

HERE = Path(__file__).parent
PER_NODE = 8
OUTCOME = "0/run/1/outcome"  # where the package publishes it, in the first run of the first attempt
CROWDS = tuple(f"crowd {n}" for n in range(16))
RANKS = ("rank 0", *CROWDS)
ATTACH_SECONDS = 20  # so much of the attaches' queue is let run
STORE_RATIO = 1.5
ANSWER = 300  # characters of the bare store's value, about as many as an outcome has
WAITING_SHARE = 0.5  # of the store's requests a second that waiting ranks may use up
SHUT, AFTER = 0.1, 4.0  # seconds that the tracker refuses, and that the queue is watched after that
BEFORE = 0.8
HALVED = 0.55  # with the noise of four seconds


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ranks", nargs="+", default=[1024, 10240], type=int, metavar="N", help="default 1024 10240")
    parser.add_argument(
        "--rounds", default=5, type=int, metavar="N", help="of the package; of the bare store two for each (default 5)"
    )
    parser.add_argument("--attach-rate", default=200.0, type=float, metavar="N", help="a second (default 200)")


def run(report: Report, ranks: Sequence[int] = (1024, 10240), rounds: int = 5, attach_rate: float = 200.0) -> None:
    for size in ranks:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if limit < size + 200:
            why = f"a process may open {limit} files (ulimit -Hn)"
            report.not_measured(f"{size} ranks: last rank has the answer / bare store", STORE_RATIO, why)
            continue
        began = time.monotonic()
        with _job(size, min(attach_rate, size / 5)) as job:
            _measure(report, job, rounds)
        console.print(f"{_named(job)}: {time.monotonic() - began:.0f} s in all;  load {load()}\n")


@dataclass
class Job:
    """The simulated job: its processes, and what they can be asked to do together.

    Attributes:
        rate: the attaches a second that are set.
        costs: by phase, the CPU seconds of each kind of process and the store's bytes, of all its rounds.
    """

    crew: Crew
    folder: Path
    size: int
    rate: float
    turn: int = 0
    costs: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def nodes(self) -> int:
        return -(-self.size // PER_NODE)

    def connect(self) -> float:
        """Open all clients; the seconds it took."""
        variables = self.crew.ask("where", only=["tracker"])["tracker"]["variables"]
        variables |= {"PLUTO_DIST_ATTACH_RATE": str(self.rate), "PLUTO_DIST_TIMEOUT": "120"}
        port = self.crew.ask("where", only=["store"])["store"]["port"]
        words = {"port": port, "size": self.size, "per_node": PER_NODE, "variables": variables, "config": CONFIG}
        # Neighbours in the attaches' queue are on other nodes than their neighbours: so they are here.
        nodes = {name: list(range(n, self.nodes, len(CROWDS))) for n, name in enumerate(CROWDS)}
        began = time.monotonic()
        told = self.crew.ask("connect", only=RANKS, nodes=nodes, **words)
        return max(each["ended"] for each in told.values()) - began

    def renew(self, *, counting: bool = False) -> None:
        self.turn += 1
        folder = str(self.folder / f"nodes of launch {self.turn}")
        self.crew.ask("renew", only=RANKS, prefix=f"pluto_dist {self.turn}", folder=folder, counting=counting)

    def sign_in(self) -> float:
        """All ranks sign in and agree; seconds from the first to the last."""
        with self._costing("sign in and agree"):
            told = self.crew.ask("sign_in", only=RANKS).values()
        return max(each["ended"] for each in told) - min(each["began"] for each in told)

    def answer(self, *, attaching: int = 0) -> Told:
        """Rank 0 creates the run while the others look for the outcome; then they read it.

        Raises:
            RuntimeError: the ranks are in several runs.
        """
        with self._costing("gather, create, tell all"):
            told = self.crew.ask("answer", only=RANKS, key=OUTCOME, attaching=attaching)
        read = self.crew.ask("read", only=CROWDS)
        rank_zero = told.pop("rank 0")
        if runs := {run for each in read.values() for run in each["runs"]} - {rank_zero["run"]}:
            raise RuntimeError(f"rank 0 is in run {rank_zero['run']}, other ranks in {runs}")
        return Told(rank_zero, list(told.values()), list(read.values()))

    def bare(self) -> tuple[float, float]:
        """Seconds from setting one key to the last client that has it; looks a second before."""
        self.turn += 1
        with self._costing("bare store"):
            told = self.crew.ask("bare", only=RANKS, key=f"bare {self.turn}", value="x" * ANSWER)
        crowds = [told[name] for name in CROWDS]
        return max(each["last"] for each in crowds) - told["rank 0"]["set"], sum(each["looks"] for each in crowds)

    def attached(self, *, stop: bool = False) -> list[list[Any]]:
        """Wait for those who set out to attach; of each the words of ``scale_ranks.Attach``.

        Raises:
            RuntimeError: some are still waiting.
        """
        told = self.crew.ask("attached", only=CROWDS, stop=stop, within=ATTACH_SECONDS + 20).values()
        if left := sum(each["left"] for each in told):
            raise RuntimeError(f"{left} ranks still wait for their turn to attach")
        return [attach for each in told for attach in each["attaches"]]

    def log(self, told: Told) -> list[tuple[float, int]]:
        """When and how the tracker answered the create-run calls that followed rank 0's."""
        return self.crew.ask("log", only=["tracker"], since=told.rank_zero["creating"])["tracker"]["creates"][1:]

    def keys(self) -> int:
        """How many keys the store holds."""
        return self.crew.ask("keys", only=["store"])["store"]["keys"]

    def memory(self) -> dict[str, float]:
        """Resident MiB of each process."""
        return {str(name): psutil.Process(pid).memory_info().rss / MIB for name, pid in self.crew.pids.items()}

    @contextmanager
    def _costing(self, phase: str) -> Iterator[None]:
        before = self.used()
        yield
        used = self.used()
        used.subtract(before)
        self.costs.setdefault(phase, Counter({"rounds": 0})).update(used + Counter({"rounds": 1}))

    def used(self) -> Counter[str]:
        """CPU seconds so far of each kind of process, and bytes that the store moved."""
        used: Counter[str] = Counter()
        for name, pid in self.crew.pids.items():
            times = psutil.Process(pid).cpu_times()
            used[_kind(name)] += times.user + times.system
        io = psutil.Process(self.crew.pids["store"]).io_counters()
        used.update({"received": io.read_chars, "sent": io.write_chars})
        return used


@dataclass(frozen=True)
class Told:
    """One round of the package: what rank 0 did when, and the others."""

    rank_zero: dict[str, Any]
    crowds: list[dict[str, Any]]
    read: list[dict[str, Any]]

    def seconds(self, since: str) -> float:
        """From a moment of rank 0's to the last rank's having the answer, and reading it on a CPU of its own."""
        return max(each["last"] for each in self.crowds) - self.rank_zero[since] + self.reading

    @property
    def reading(self) -> float:
        """CPU seconds that reading and remembering took the slowest rank."""
        return max(each["longest"] for each in self.read)


@dataclass
class Found:
    """The figures of all rounds."""

    bare: list[float] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    signed: list[float] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)

    def note(self, bare: float, looks: float) -> None:
        self.bare.append(bare)
        self.looks.append(looks)


def _measure(report: Report, job: Job, rounds: int) -> None:
    alone, connected = job.memory(), job.connect()
    _show_keys(job, *_count(job))
    demand = job.crew.ask("wait", only=CROWDS[:1], watched=2)[CROWDS[0]]["requests"] * job.size
    job.bare()
    job.costs.clear()
    found = Found()
    for _ in range(rounds):
        job.renew()
        found.signed.append(job.sign_in())
        found.note(*job.bare())
        found.told.append(job.answer())
        found.note(*job.bare())
    _show_times(job, found, connected)
    _show_costs(job, alone)
    _judge(report, job, found, demand)
    _attach(report, job)
    _refuse(report, job)


@contextmanager
def _job(size: int, rate: float) -> Iterator[Job]:
    with tempfile.TemporaryDirectory(prefix="pluto-dist-bench-") as name:
        folder = Path(name)
        base = {key: value for key, value in os.environ.items() if not key.startswith(("PLUTO_", "MLOP_"))}
        base |= {"HOME": name, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR", **NO_RESOLVER}
        with Crew(folder, "scale", len(RANKS) + 2) as crew:
            crew.start([sys.executable, str(HERE / "scale_ranks.py"), str(len(CROWDS))], base, ROOT)
            crew.start([sys.executable, str(HERE / "scale_tracker.py"), str(folder / "tracker.db")], base, ROOT)
            crew.meet(60)
            yield Job(crew, folder, size, rate)


def _count(job: Job) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """One launch, counted: keys and bytes left in the store, and requests, by kind.

    Raises:
        RuntimeError: the store holds other keys than those that were counted.
    """
    before = job.keys()
    job.renew(counting=True)
    job.sign_in()
    told = job.answer()
    kept: dict[str, int] = {}
    requests: Counter[str] = Counter()
    for each in (told.rank_zero, *told.crowds):
        requests.update(each["requests"])
        for key, size in each["kept"].items():
            kept[key] = max(size, kept.get(key, 0))  # a counter grows
    if (added := job.keys() - before) != len(kept):
        raise RuntimeError(f"the ranks wrote {len(kept)} keys, the store has {added} more")
    kinds = {key: re.sub(r"[a-z2-7]{20}", "TOKEN", re.sub(r"/\d+(?=/|$)", "/N", key)) for key in kept}
    sizes: Counter[str] = Counter()
    for key, size in kept.items():
        sizes[kinds[key]] += size
    return Counter(kinds.values()), sizes, requests


def _show_keys(job: Job, keys: Counter[str], sizes: Counter[str], requests: Counter[str]) -> None:
    title = f"{_named(job)}: what one launch leaves in the store"
    table = Table("kind of key", "keys", "bytes", "bytes a node", title=title, title_justify="left")
    shown = [kind for kind, _ in sizes.most_common(5)]
    for kind in shown:
        table.add_row(kind, f"{keys[kind]:,}", f"{sizes[kind]:,}", f"{sizes[kind] / job.nodes:,.0f}")
    left = [kind for kind in sizes if kind not in shown]
    rest, size = sum(keys[kind] for kind in left), sum(sizes[kind] for kind in left)
    table.add_row(f"{len(left)} other kinds", f"{rest:,}", f"{size:,}", f"{size / job.nodes:,.0f}")
    table.add_row("all", f"{keys.total():,}", f"{sizes.total():,}", f"{sizes.total() / job.nodes:,.0f}")
    console.print(table)
    console.print(
        f"a rank: {keys.total() / job.size:.2f} keys, {sizes.total() / job.size:.0f} bytes; "
        f"a node: {keys.total() / job.nodes:.2f} keys; requests: "
        + ", ".join(f"{count:,} {name}" for name, count in requests.most_common())
        + "\n"
    )


def _show_times(job: Job, found: Found, connected: float) -> None:
    title = f"{_named(job)}: {len(found.told)} rounds, the bare store before and after each;  load {load()}"
    table = Table("seconds", "median", "lowest-highest", "to bare store", title=title, title_justify="left")

    def row(name: str, values: Iterable[float]) -> None:
        values = list(values)
        ratio = middle(values) / middle(found.bare)
        table.add_row(name, f"{middle(values):.3f}", f"{min(values):.3f}-{max(values):.3f}", f"{ratio:.2f}")

    row("bare store: key set -> last client has it", found.bare)
    row("create answered -> last rank has the answer", (told.seconds("created") for told in found.told))
    row("create sent -> last rank has the answer", (told.seconds("creating") for told in found.told))
    row("outcome published -> last rank has the answer", (told.seconds("published") for told in found.told))
    row("of it: one rank reads and remembers, at most", (told.reading for told in found.told))
    table.add_section()
    row("all ranks sign in and agree", found.signed)
    for name, first, last in (
        ("rank 0: gathers the inventories", "began", "gathered"),
        ("rank 0: composes the document", "gathered", "creating"),
        ("rank 0: its create-run call", "creating", "created"),
        ("rank 0: acknowledges the nodes", "created", "published"),
        ("rank 0: publishes and remembers", "published", "over"),
    ):
        row(name, (told.rank_zero[last] - told.rank_zero[first] for told in found.told))
    console.print(table)
    last = found.told[-1].rank_zero
    console.print(
        f"all clients opened in {connected:.1f} s; create-run carried "
        f"{last['metadata'] / 1024:.0f} KiB of metadata of {last['nodes']} nodes\n"
    )


def _show_costs(job: Job, alone: dict[str, float]) -> None:
    kinds = ("store", "rank 0", "crowds", "tracker")
    title = f"{_named(job)}: CPU seconds a round, and what the store moved"
    table = Table("", *kinds, "MiB received", "MiB sent", title=title, title_justify="left")
    for phase, cost in job.costs.items():
        rounds = cost["rounds"]
        moved = (cost["received"] / MIB, cost["sent"] / MIB)
        table.add_row(phase, *(f"{cost[kind] / rounds:.2f}" for kind in kinds), *(f"{m / rounds:.1f}" for m in moved))
    console.print(table)
    now, added = job.memory(), Counter()
    for name, mib in now.items():
        added[_kind(name)] += mib - alone[name]
    whole = ", ".join(f"{name} {now[name]:.0f}" for name in ("store", "tracker", "rank 0"))
    console.print(
        f"memory, MiB: {whole}; added since before the clients connected: store {added['store']:.1f}, "
        f"tracker {added['tracker']:.1f}, crowds {1024 * added['crowds'] / job.size:.0f} KiB a rank\n"
    )


def _judge(report: Report, job: Job, found: Found, demand: float) -> None:
    ratio = middle(told.seconds("created") for told in found.told) / middle(found.bare)
    report.at_most(f"{job.size} ranks: last rank has the answer / bare store", ratio, STORE_RATIO)
    missing = max(job.nodes - told.rank_zero["nodes"] for told in found.told)
    report.at_most(f"{job.size} ranks: nodes missing in the metadata", missing, 0)
    answered = middle(found.looks)
    console.print(
        f"{job.size:,} ranks that wait by the package's own waiting would ask {demand:,.0f} times a second "
        f"({demand / job.size:.1f} each); the store answered {answered:,.0f} looks a second here\n"
    )
    report.at_most(f"{job.size} ranks: requests while waiting / store's looks", demand / answered, WAITING_SHARE)


def _attach(report: Report, job: Job) -> None:
    """The attaches of one launch at the set rate, all or the first ones of the queue."""
    attaching = min(job.size, int(job.rate * ATTACH_SECONDS))
    before = job.used()
    job.renew()
    job.sign_in()
    told = job.answer(attaching=attaching)
    attaches = job.attached()
    times = [moment for moment, _ in job.log(told)]
    cpu = job.used()["tracker"] - before["tracker"]
    began = [began for began, *_ in attaches]
    late = sorted(1000 * (sent - due) for _, due, sent, answered in attaches if answered)
    due, seen = _busiest_second(due for _, due, *_ in attaches), _busiest_second(times)
    spread = max(times) - min(times)
    console.print(
        f"attaches at {job.rate:g} a second: {len(late)} of {attaching - 1} answered, {job.size - attaching} later "
        f"ones left out;  load {load()}\n"
        f"  busiest second: {due} were due, {seen} seen by the tracker ({len(times)} in {spread:.1f} s)\n"
        f"  the ranks began to count within {1000 * (max(began) - min(began)):.0f} ms; "
        f"sent late by {middle(late):.0f} ms (median), {late[len(late) * 99 // 100]:.0f} ms (99 %); "
        f"CPU of the tracker {1000 * cpu / len(times):.1f} ms each"
    )
    limit = job.rate + 1
    report.at_most(f"{job.size} ranks: attaches due in any second at {job.rate:g} set", due, limit)
    report.at_most(f"{job.size} ranks: attaches seen in any second at {job.rate:g} set", seen, limit)


def _refuse(report: Report, job: Job) -> None:
    """What the queue does when the tracker answers 429 for a moment."""
    job.renew()
    job.sign_in()
    told = job.answer(attaching=min(job.size, int(job.rate * ATTACH_SECONDS)))
    time.sleep(BEFORE)
    refused = job.crew.ask("refuse", only=["tracker"], **{"for": SHUT})["tracker"]
    time.sleep(SHUT + AFTER)
    closed = job.crew.ask("close", only=["rank 0"])["rank 0"]
    log = job.log(told)
    job.attached(stop=True)
    shut, opened = refused["from"], refused["until"]
    before = sum(shut - BEFORE < moment <= shut for moment, _ in log) / BEFORE
    after = sum(opened < moment <= opened + AFTER for moment, _ in log) / AFTER
    count = sum(status == 429 for _, status in log)
    last = [rate_limit.due(job.size - 1, job.rate, slowdowns) for slowdowns in ((), tuple(closed["slowdowns"]))]
    console.print(
        f"429 for {SHUT} s: {before:.0f} attaches a second before, {count} refused, {after:.1f} a second in the "
        f"{AFTER:g} s after;  load {load()}\n"
        f"  the rate was halved {len(closed['slowdowns'])} times, so the last of {job.size:,} ranks is due after "
        f"{last[1]:,.0f} s instead of {last[0]:,.0f} s"
    )
    report.at_most(f"{job.size} ranks: attaches a second after 429 / before", after / before, HALVED)


def _busiest_second(times: Iterable[float]) -> int:
    """The most of ``times`` that lie within one second.

    >>> _busiest_second([0.0, 0.5, 0.9, 1.1])
    3
    """
    ordered, most, first = sorted(times), 0, 0
    for last, moment in enumerate(ordered):
        while moment - ordered[first] >= 1:
            first += 1
        most = max(most, last - first + 1)
    return most


def _kind(name: Any) -> str:
    return "crowds" if name in CROWDS else str(name)


def _named(job: Job) -> str:
    return f"{job.size:,} ranks on {job.nodes:,} nodes"
