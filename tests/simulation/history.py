"""What a finished schedule says of its ranks, attempts and launches: when they were there, and what held them up."""

from __future__ import annotations

import json
import math

from pluto_dist.contract import attempts
from pluto_dist.lifecycle.shutdown import JOIN_GRACE
from simulation.jobs import Part, part_key
from simulation.schedule import Fault
from simulation.simulate import Finished

SET_ASIDE = "what was kept is set aside"
# What is told where an end, or what a look-up did to it, could neither be told to the tracker nor kept.
LOST = ("is lost: neither the tracker nor the disk", "may be RUNNING although it had ended")


def by_attempt(finished: Finished) -> dict[tuple[int, int], list[Part]]:
    found: dict[tuple[int, int], list[Part]] = {}
    for part in finished.job.parts:
        found.setdefault((part.launch, part.attempt), []).append(part)
    return found


def is_left_alone(finished: Finished, number: int) -> bool:
    """Whether rank 0 of a restart was on a host that was stopped or cut off before, and did not reach the others."""
    broken = {f"host-{host}" for _, _, host, *_ in (*finished.schedule.frozen, *finished.schedule.partitions)}
    for attempt in finished.job.attempts[number][1:]:
        hosts = {part.process.host.name for part in attempt.parts if part.began is not None}
        first = {part.process.name for part in attempt.parts if part.rank == 0}
        told = any(who in first and "going on without the other ranks" in text for _, who, _, text in finished.messages)
        if finished.job.launches[number].nodes > 1 and broken and (told or (len(hosts) == 1 and hosts <= broken)):
            return True
    return False


def _key(fault: Fault) -> tuple[int, int, int]:
    return fault.launch, fault.attempt, fault.rank


def ran_free(finished: Finished, part: Part) -> bool:
    """Whether nothing stopped the process itself: what it asks may be stopped."""
    own = any(fault.what == "freeze" and part_key(part) == _key(fault) for fault in finished.schedule.faults)
    return not own and not any(part.process.host.name == f"host-{host}" for *_, host in finished.schedule.frozen)


def ended_at(finished: Finished, part: Part) -> float:
    return float(part.process.state.get("ended", finished.world.now))


def life(finished: Finished, number: int) -> tuple[int, float, float] | None:
    """From when to when a launch was in the tracker's run; one that has failed tells so, and its last ranks hang."""
    parts = [part for attempt in finished.job.attempts[number] for part in attempt.parts if part.facts.get("id")]
    if not parts:
        return None
    begin = min(part.settled_at for part in parts)
    awaited = min(JOIN_GRACE, parts[0].timeout)
    is_late = any(seconds > awaited for _, seconds in finished.schedule.launches[number].late)
    processes = [part.process for part in parts] + finished.job.agents[number]
    if begin == math.inf or is_late or any(process.state.get("thawed", 0.0) > begin for process in processes):
        return None  # who is stopped answers no claim
    # In finish() nothing trains any more: the answer to the end may be late.
    ends = [(part.finishing or ended_at(finished, part), part.process.exit_code) for part in parts]
    failed = [end for end, code in ends if code and finished.schedule.launches[number].restarts == 0]
    return number, begin, min(failed, default=max(end for end, _ in ends))


def lifetime(finished: Finished, number: int) -> tuple[float, float]:
    """From when to when processes of a launch ran that called ``init()``."""
    parts = [part for attempt in finished.job.attempts[number] for part in attempt.parts if part.began is not None]
    return min(part.began or 0.0 for part in parts), max(ended_at(finished, part) for part in parts)


def is_admitted(finished: Finished, number: int) -> bool:
    """Whether a launch was in the run: it knew so, or an attempt of it is on record (concurrent changes lose some)."""
    parts = [part for attempt in finished.job.attempts[number] for part in attempt.parts]
    if any(part.facts.get("id") for part in parts):
        return True
    tokens = {token for part in parts for token in part.tokens} - {""}
    config = json.loads(finished.tracker.runs()[0]["config"] or "{}")
    return any(attempts.has_launch(attempts.recorded(config), token) for token in tokens)


def came_after_a_cancel(finished: Finished) -> bool:
    """Whether a rank of an attempt that a person cancelled came to its run later than a heartbeat."""
    return not finished.tracker.is_hosted and any(
        part.began is not None and part.began > cancel + float(part.process.environ["PLUTO_DIST_HEARTBEAT"])
        for cancel in finished.schedule.cancels
        for part in finished.job.parts
        if any((other.began or math.inf) < cancel for other in by_attempt(finished)[part.launch, part.attempt])
    )


def is_held_back(finished: Finished, at: float, seconds: float = 1.0) -> bool:
    """Whether the tracker executes late, within ``seconds`` of ``at``, what it was sent before."""
    late = [(begin, end) for begin, end, what, _ in finished.schedule.weather if what == "late"]
    return any(begin <= at <= end + 1 and end - at <= seconds for begin, end in late)
