"""``python -m simulation``, called by ``scripts/simulate``: simulate schedules, tell one as a story, keep a tally."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from simulation.invariants import sentence, violations
from simulation.scenes import draw
from simulation.schedule import PROFILES, SPELLS, Schedule
from simulation.shrink import shrunk
from simulation.simulate import Finished, Simulator

_CHUNK = 100  # schedules that one process runs before it reports
_simulators: list[Simulator] = []

Violation = tuple[int, str, str]


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulate", description="Simulate whole jobs: one seed is one schedule.")
    parser.add_argument("--seeds", required=True, metavar="A:B", help="the seeds from A to B - 1, or A,B,...")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="default", help="settings of the jobs")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--first", action="store_true", help="stop at the first violation")
    parser.add_argument("--story", action="store_true", help="tell what happened under the first seed")
    parser.add_argument(
        "--shrink", action="store_true", help="make the first seed's schedule as small as it still fails"
    )
    parser.add_argument("--tally", type=Path, metavar="FILE", help="append the result to this file, a JSON line")
    given = parser.parse_args()
    _be_reproducible()
    seeds = _seeds(given.seeds)
    if given.story or given.shrink:
        return _tell(draw(seeds[0], PROFILES[given.profile]), shrinks=given.shrink)
    found, began = [], time.time()
    for violation in _simulate(seeds, given.profile, given.jobs, is_short=given.first):
        seed, name, what = violation
        print(f"seed {seed}: {name}: {what}", flush=True)
        found.append(violation)
        if given.first:
            return 1
    counts = Counter(name for _, name, _ in found)
    failing = len({seed for seed, _, _ in found})
    print(f"{len(seeds)} schedules in {time.time() - began:.0f} s: {failing} with violations {dict(counts) or ''}")
    if given.tally is not None:
        _append(given.tally, given.seeds, given.profile, failing, counts)
    return 1 if found else 0


def _seeds(text: str) -> list[int]:
    first, colon, last = text.partition(":")
    return list(range(int(first), int(last))) if colon else [int(seed) for seed in text.split(",")]


def _be_reproducible() -> None:
    """Start again with a fixed order of sets, which Python otherwise draws for each process."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        again = [sys.executable, "-m", "simulation", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, "PYTHONHASHSEED": "0"})


def _simulate(seeds: Sequence[int], profile: str, jobs: int, *, is_short: bool) -> Iterator[Violation]:
    size = 20 if is_short else _CHUNK
    chunks = [seeds[start : start + size] for start in range(0, len(seeds), size)]
    if jobs == 1:
        for chunk in chunks:
            yield from _chunk(chunk, profile)
        return
    with ProcessPoolExecutor(jobs) as pool:
        for found in pool.map(_chunk, chunks, [profile] * len(chunks)):
            yield from found


def _chunk(seeds: Sequence[int], profile: str) -> list[Violation]:
    simulator = _simulator()
    return [
        (seed, name, what) for seed in seeds for name, what in simulator.run(draw(seed, PROFILES[profile]), violations)
    ]


def _simulator() -> Simulator:
    if not _simulators:
        memory = Path("/dev/shm")
        folder = memory if memory.is_dir() else Path(tempfile.gettempdir())
        _simulators.append(Simulator(folder / f"pluto-dist-simulation-{os.getuid()}"))
    return _simulators[0]


def _tell(schedule: Schedule, *, shrinks: bool) -> int:
    simulator = _simulator()
    broken = {name for name, _ in simulator.run(schedule, violations)}
    if shrinks and broken:
        schedule = shrunk(schedule, lambda smaller: bool(broken & {n for n, _ in simulator.run(smaller, violations)}))
    story, found = simulator.run(schedule, _story)
    print("\n".join([*_described(schedule), "", *story, ""]))
    for name, what in found:
        print(f"violated: {name}: {what}\n  {sentence(name)}")
    return 1 if found else 0


def _story(finished: Finished) -> tuple[list[str], list[tuple[str, str]]]:
    lines = [f"{when:9.3f}  {who:18} {_one_line(what)}" for when, who, what in finished.world.story]
    for run in finished.tracker.runs():
        lines.append(f"the tracker has run {run['id']} ({run['external_id']}): {run['status']}")
        for change in finished.tracker.changes(run["id"]):
            lines.append(f"    {change['from_status']} -> {change['to_status']} by {change['source']}")
    return lines, violations(finished)


def _one_line(text: str) -> str:
    return " / ".join(text.splitlines())[:240]


def _described(schedule: Schedule) -> list[str]:
    manners = "hosted" if schedule.hosted else "embedded"
    lines = [f"seed {schedule.seed}, the {manners} tracker"]
    for number, launch in enumerate(schedule.launches):
        settings = " ".join(f"{name}={value}" for name, value in (*launch.variables, *launch.options))
        lines.append(
            f"launch {number} at {launch.start:.1f} s: {launch.launcher}, {launch.nodes} x {launch.per_node} ranks, "
            f"{launch.restarts} restarts, trains {launch.work:.1f} s, ends by {launch.ending}; {settings}"
        )
        lines += [f"    rank {rank} starts {seconds:.1f} s late" for rank, seconds in launch.late]
        lines += [f"    rank {rank} never calls init()" for rank in launch.absent]
    for fault in schedule.faults:
        when = f"at operation {fault.operation}" if fault.operation else f"after {fault.at:.1f} s"
        when = f"{'during' if fault.is_sent else 'before'} request {fault.request}" if fault.request else when
        who = f"rank {fault.rank}, attempt {fault.attempt} of launch {fault.launch}"
        lines.append(f"fault: {fault.what} of {who}, {when}")
    for begin, end, what, part in schedule.weather:
        lines.append(f"from {begin:.1f} to {end:.1f} s, {part:.0%} of the requests: {what}")
    for name in (*SPELLS, "shared_spool", "limit", "foreign"):
        if value := getattr(schedule, name):
            lines.append(f"{name}: {value}")
    return lines


def _append(file: Path, seeds: str, profile: str, failing: int, counts: Counter[str]) -> None:
    root = Path(__file__).parents[2]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=True
    ).stdout.strip()
    changed = subprocess.run(
        ["git", "status", "--porcelain", "pluto_dist", "tests/simulation/*.py", "tests/hosted"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    line: dict[str, Any] = {
        "commit": commit + ("+" if changed else ""),
        "profile": profile,
        "seeds": seeds,
        "failing": failing,
        "violations": dict(counts),
    }
    with file.open("a") as out:
        out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    sys.exit(main())
