"""``python -m simulation.refusals``: a launch that is refused, in every way, and the run before and after it.

Each row is a launch that is refused beside, or after, another one: on all ranks, in every attempt. The run is compared
with that of the same job without the refused launch.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from simulation.__main__ import _simulator
from simulation.invariants import violations
from simulation.schedule import Launch, Schedule
from simulation.simulate import Finished

KINDS = ("RunInUseError", "RunExistsError", "RunCancelledError")
TIMES = {"default": ("30", "10"), "short": ("10", "30")}  # PLUTO_DIST_TIMEOUT and PLUTO_DIST_HEARTBEAT
SLOW = {"no rank slow": (), "rank 0 slow": ((0, 8.0),), "rank 1 slow": ((1, 8.0),)}
KEPT = ("status", "status_metadata", "system_metadata", "tags", "name", "external_id", "logger_settings")


def schedules() -> Iterator[tuple[str, str, Schedule]]:
    """The name of each row, the error that its ranks get, and the job, whose second launch is refused."""
    rows = itertools.product(KINDS, (0, 1, 2), TIMES, SLOW, ("embedded", "hosted"))
    for seed, (kind, restarts, times, slow, tracker) in enumerate(rows):
        timeout, heartbeat = TIMES[times]
        common = (("PLUTO_DIST_TIMEOUT", timeout), ("PLUTO_DIST_HEARTBEAT", heartbeat), ("PLUTO_DIST_METADATA", "0"))
        named = (("SLURM_CLUSTER_NAME", "lab"), ("SLURM_JOB_ID", "4711"), ("rdzv", "my-job"))
        names = (("PLUTO_RUN_ID", "my-experiment"),) if kind == "RunExistsError" else named
        options = (("resume", True),)
        first = Launch("torchrun", per_node=2, work=200.0, options=options, variables=(*common, *names))
        second = replace(first, start=60.0, nodes=2, restarts=restarts, late=SLOW[slow], work=5.0)
        if kind == "RunExistsError":
            second = replace(second, options=(("resume", False),))
        cancels = (10.0,) if kind == "RunCancelledError" else ()
        job = Schedule(seed, hosted=tracker == "hosted", launches=(first, second), cancels=cancels)
        yield f"{kind}, {restarts} restarts, {times} timeouts, {slow}, {tracker}", kind, job


def wrong(kind: str, job: Schedule) -> list[str]:
    """What is wrong in a row."""
    broken, errors, run = _simulator().run(job, _judged)
    _, _, alone = _simulator().run(replace(job, launches=job.launches[:1]), _judged)
    expected = [{kind}] * (job.launches[1].restarts + 1)
    found = [*broken, *([] if errors == expected else [f"the ranks got {errors}"])]
    return found + [f"{name} is {run[name]}, not {alone[name]}" for name in run if run[name] != alone[name]]


def _judged(finished: Finished) -> tuple[list[str], list[set[str | None]], dict[str, Any]]:
    """What is broken, what the ranks got in each attempt of the second launch, and the run.

    The run is without times, claims and drawn names. A rank that is stopped inside ``init()``, since another one has
    failed, got nothing.
    """
    attempts = finished.job.attempts.get(1, [])
    errors = [{part.error for part in attempt.parts if part.returned is not None} for attempt in attempts]
    (run,) = finished.tracker.runs()
    config = json.loads(run["config"])
    config["pluto_dist"].pop("claims", None)
    records = config["pluto_dist"].pop("attempts").values()
    told = [{name: value for name, value in record.items() if name not in ("start", "launch")} for record in records]
    changes = [(each["from_status"], each["to_status"], each["source"]) for each in finished.tracker.changes(run["id"])]
    kept = {name: run[name] for name in KEPT if name in run}
    broken = [f"{name}: {what}" for name, what in violations(finished)]
    return broken, errors, {**kept, "config": config, "attempts": told, "changes": changes}


def main() -> int:
    count = 0
    for name, kind, job in schedules():
        found = wrong(kind, job)
        count += bool(found)
        print(f"{name}: {'; '.join(found) or 'refused, and the run is as it was'}", flush=True)
    print(f"{count} rows are wrong")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
