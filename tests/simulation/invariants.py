"""What must hold of every schedule: each a function, named by its promise, with the sentence that it proves.

An invariant returns what is wrong, in words; nothing if all is well.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from pluto_dist.client.tracker_client import HEARTBEAT_PATH
from pluto_dist.contract import attempts
from pluto_dist.lifecycle.election import TAKE_OVER_EVERY
from pluto_dist.lifecycle.participant import INVENTORY_SECONDS
from pluto_dist.lifecycle.recovery import LONGEST_PAUSE
from pluto_dist.lifecycle.shutdown import JOIN_GRACE
from simulation.expected import expected_end
from simulation.history import (
    LOST,
    SET_ASIDE,
    by_attempt,
    came_after_a_cancel,
    ended_at,
    is_held_back,
    is_left_alone,
    life,
    ran_free,
)
from simulation.jobs import ODD, Part
from simulation.kernel import EPOCH
from simulation.schedule import EXPERIMENT
from simulation.simulate import Finished
from simulation.tracker import CREATED, KEY, Seen

Invariant = Callable[[Finished], Iterator[str]]
ENDED = ("COMPLETED", "FAILED", "TERMINATED", "CANCELLED")
REFUSALS = ("RunInUseError", "RunCancelledError", "RunExistsError", "RunIdMismatchError")
_LOOK = 3.0  # seconds from the last look at a run to its creation, at most
_HEARTBEAT = 12.0  # seconds within which the owner sees a cancel
_RECOVERY = 1.25 * LONGEST_PAUSE + 10.0  # seconds within which every rank attaches to a run that was recovered
_SLACK = 1.0  # seconds of latency that a bound does not count
_FINISH = {"COMPLETED": 45.0, "else": 30.0}  # beyond the timeout


def one_run(finished: Finished) -> Iterator[str]:
    """One job is one run, whatever its launches meet."""
    runs = finished.tracker.runs()
    if finished.schedule.disk and any(launch.world_size == 1 for launch in finished.schedule.launches):
        return  # a restart of a world of one knows its launch by its node's disk
    if any(len({*launch.odd, *launch.absent}) == launch.world_size for launch in finished.schedule.launches):
        return  # all ranks that call init() name another run
    if any(launch.odd and 0 in launch.odd for launch in finished.schedule.launches):
        return  # rank 0 names another run, and may have created it when the others say so
    if any(is_left_alone(finished, number) for number in finished.job.attempts):
        return  # a node that was cut off before it knew its launch has its next attempt alone
    guesses = {who.rsplit(" rank", 1)[0] for _, who, _, text in finished.messages if "its run and this one" in text}
    if len(guesses) > 1:
        return  # in two attempts only one node called init() in time, not the same one, and a warning said so
    if len(runs) > 1:
        yield f"{len(runs)} runs: {', '.join(str(run['external_id']) for run in runs)}"


def ranks_agree(finished: Finished) -> Iterator[str]:
    """All ranks of an attempt agree on the run, and on whether it was resumed."""
    for (launch, number), parts in by_attempt(finished).items():
        known = [part.facts for part in parts if part.facts]
        is_sure = not finished.schedule.disk  # by which the ranks of a node know their attempt
        for name in ("run_id", "id", *(("resumed",) if is_sure else ())):
            values = {facts[name] for facts in known if facts[name] is not None and (name != "resumed" or facts["id"])}
            if len(values) > 1:
                yield f"launch {launch}, attempt {number}: {name} is {sorted(map(str, values))}"


def a_rank_is_in_the_run_that_it_named(finished: Finished) -> Iterator[str]:
    """Ranks that name different runs are told so, and none of them is in a run that it did not name."""
    for part in finished.job.parts:
        is_odd = part.rank in finished.job.launches[part.launch].odd
        if part.facts.get("id") and (part.facts["run_id"] == ODD) != is_odd:
            yield f"rank {part.rank} of launch {part.launch} is in {part.facts['run_id']}"


def init_is_bounded(finished: Finished) -> Iterator[str]:
    """``init()`` returns within its timeout."""
    for part in finished.job.parts:
        if part.began is None or not ran_free(finished, part):
            continue
        end = part.returned if part.returned is not None else part.signalled or ended_at(finished, part)
        probes = 0.0 if part.error is None else INVENTORY_SECONDS  # which are waited for: the process may end now
        if end - part.began > part.timeout + probes + _SLACK:
            waited = f"{end - part.began:.1f} s with a timeout of {part.timeout} s"
            yield f"rank {part.rank} of launch {part.launch}: {waited}"


def the_end_is_bounded(finished: Finished) -> Iterator[str]:
    """``finish()``, and the end of a process, are bounded."""
    for part in finished.job.parts:
        if part.finishing is None or part.finished is None or not ran_free(finished, part):
            continue
        seconds, limit = part.finished - part.finishing, part.timeout + _FINISH["COMPLETED"]
        if seconds > limit:
            yield f"rank {part.rank} of launch {part.launch}: {seconds:.1f} s, more than {limit:.0f} s"


def nobody_hangs(finished: Finished) -> Iterator[str]:
    """Every process ends."""
    for name in finished.stuck:
        yield f"{name} never ended"


def no_thread_dies(finished: Finished) -> Iterator[str]:
    """No background thread dies of an exception."""
    for task, error in finished.world.deaths:
        yield f"{task.name} of {task.process.name}: {type(error).__name__}: {error}"


def training_is_unhurt(finished: Finished) -> Iterator[str]:
    """A script gets no exception of this package but a refusal."""
    for part in finished.job.parts:
        if part.error is not None and part.error not in REFUSALS:
            yield f"rank {part.rank} of launch {part.launch}: init() raised {part.error}"


def ranks_are_refused_together(finished: Finished) -> Iterator[str]:
    """A launch that is refused is refused on all ranks."""
    for (launch, number), parts in by_attempt(finished).items():
        asked = [part for part in parts if part.returned is not None and finished.job.launches[launch].waits]
        if finished.job.launches[launch].odd:
            continue  # a rank that names another run may come after the others have begun
        refused = [part for part in asked if part.error is not None]
        online = [part for part in asked if part.facts.get("id")]
        if refused and online:
            ranks = f"on rank {refused[0].rank}, not on rank {online[0].rank}"
            yield f"launch {launch}, attempt {number}: {refused[0].error} {ranks}"


def launches_do_not_overlap(finished: Finished) -> Iterator[str]:
    """Of launches that continue one run only one is alive at a time."""
    if ("PLUTO_RUN_ID", EXPERIMENT) in finished.schedule.launches[0].variables:
        return
    lives = sorted(
        (found for number in range(len(finished.schedule.launches)) if (found := life(finished, number))),
        key=lambda found: found[1],
    )
    for (first, _, end), (second, begin, _) in itertools.pairwise(lives):
        if begin < end:
            yield f"launch {second} is in the run from {begin:.1f} s on, launch {first} until {end:.1f} s"


def nothing_is_dropped(finished: Finished) -> Iterator[str]:
    """A job whose ``init()`` returned is in the tracker, once all that was kept is sent.

    One that did not wait may have been ended by a signal before anything was kept.
    """
    lost = ("not kept", "going on without a run")
    if finished.schedule.disk or finished.tracker.runs():
        return
    if any(words in text for *_, text in finished.messages for words in lost):
        return
    for part in finished.job.parts:
        launch = f"L{part.launch}."
        is_refused = any(who.startswith(launch) and SET_ASIDE in text for _, who, _, text in finished.messages)
        has_ended = finished.job.launches[part.launch].waits or part.process.exit_code not in (-9, -15)
        if part.returned is not None and part.error is None and has_ended and not is_refused:
            yield f"rank {part.rank} of launch {part.launch} joined a run, and there is none"
            return


def the_end_is_right(finished: Finished) -> Iterator[str]:
    """The final status is that of the last launch."""
    runs = finished.tracker.runs()
    if len(runs) != 1:
        return
    allowed, why = expected_end(finished)
    status = runs[0]["status"]
    if allowed is not None and status not in allowed:
        yield f"{status}, expected {' or '.join(sorted(allowed))}: {why}"


def sync_sends_all(finished: Finished) -> Iterator[str]:
    """``sync`` sends what was kept, all of it but what a refused launch kept."""
    if finished.left and not finished.schedule.disk:  # what begins it may be lost
        yield f"{len(finished.left)} requests are still kept"
    refused = any(SET_ASIDE in text for *_, text in finished.messages)
    refused |= bool(finished.schedule.foreign)  # known to a launch that was offline only as it is sent
    if finished.set_aside and not refused:
        yield f"{len(finished.set_aside)} requests are set aside"


def nothing_stays_that_was_sent(finished: Finished) -> Iterator[str]:
    """What a job keeps until the tracker has its run is removed then; it leaves nothing for ``sync``."""
    schedule = finished.schedule
    broken = (schedule.weather, schedule.cuts, schedule.partitions, schedule.frozen, schedule.disk, schedule.threadless)
    is_offline = any(("mode", "offline") in launch.options for launch in schedule.launches)
    if any(broken) or is_offline or schedule.limit or schedule.syncs:
        return
    ends = {part.process.exit_code for part in finished.job.parts}
    said = (SET_ASIDE, "could not be reported")
    is_said = any(words in text for *_, text in finished.messages for words in said)
    if finished.kept_before and ends <= {0, 1} and not is_said:
        yield f"{finished.kept_before} requests were kept"


def all_ranks_come_to_a_recovered_run(finished: Finished) -> Iterator[str]:
    """All ranks learn that a run which began offline is in the tracker, and attach to it."""
    if finished.schedule.partitions or finished.schedule.frozen or finished.schedule.disk or finished.schedule.cuts:
        return
    recovered = {who: at for at, who, _, text in finished.messages if text.startswith("the tracker answers")}
    over = max((end for _, end, *_ in finished.schedule.weather), default=0.0)
    for parts in by_attempt(finished).values():
        at = min((recovered[part.process.name] for part in parts if part.process.name in recovered), default=math.inf)
        for part in parts:
            since = max(at, over, part.returned or math.inf) + _RECOVERY
            if (part.finishing or math.inf) > since < ended_at(finished, part) and ran_free(finished, part):
                names = (seen.who for seen in finished.tracker.requests if seen.path == CREATED and seen.at < since)
                if part.process.name not in names:
                    yield f"{part.process.name} has not attached {_RECOVERY:.0f} s after {at:.1f} s"


def sync_revives_nothing(finished: Finished) -> Iterator[str]:
    """``sync`` never leaves a run RUNNING that had ended."""
    for run, before in finished.before_sync.items():
        if before in ENDED and finished.after_sync.get(run) == "RUNNING":
            yield f"run {run} was {before}, and is RUNNING"


def attempts_are_numbered(finished: Finished) -> Iterator[str]:
    """No two attempts of a job have one number."""
    alone = ("the other ranks know is not recorded", "the run is kept without the other ranks")
    if any(words in text for *_, text in finished.messages for words in alone):
        return  # without the store several ranks keep a record of the one attempt
    if ("PLUTO_RUN_ID", EXPERIMENT) in finished.schedule.launches[0].variables:
        return  # launches with the user's own id may begin at the same moment
    for run in finished.tracker.runs():
        recorded = attempts.recorded(json.loads(run["config"] or "{}"))
        numbers = [record.get("number") for record in recorded.values() if isinstance(record, dict)]
        numbers = [number for number in numbers if number != attempts.LATE]
        if len(set(numbers)) < len(numbers):
            yield f"run {run['id']}: {sorted(map(str, numbers))}"


def the_key_is_secret(finished: Finished) -> Iterator[str]:
    """The API key is in no message, and in no store."""
    for _, who, _, text in finished.messages:
        if KEY in text:
            yield f"{who}: {text[:100]}"
    for server in finished.job.stores.servers.values():
        for key, value in server.values.items():
            if KEY in value:
                yield f"the store's {key}"


def a_cancel_stays(finished: Finished) -> Iterator[str]:
    """A run that was cancelled in the tracker stays cancelled."""
    if came_after_a_cancel(finished):
        return
    for run in finished.tracker.runs():
        if run["status"] != "CANCELLED":
            changes = finished.tracker.changes(run["id"])
            for cancelled, after in itertools.pairwise(changes):
                # An attach that comes before the owner has seen the cancel at a heartbeat revives the run; the hosted
                # tracker cancels it again.
                is_seen = finished.tracker.is_hosted or after["at"] > cancelled["at"] + 1000 * _HEARTBEAT
                moments = (*finished.schedule.cancels, after["at"] / 1000 - EPOCH)
                is_seen &= not any(is_held_back(finished, moment, math.inf) for moment in moments)
                if cancelled["to_status"] == "CANCELLED" and is_seen:
                    yield f"run {run['id']} is {run['status']}"
                    break


def a_success_waits_for_all(finished: Finished) -> Iterator[str]:
    """No rank ends the run as COMPLETED while another one that joined it trains, within the timeout."""
    for seen in finished.tracker.requests:
        if not (seen.path.endswith("status/update") and seen.body.get("status") == "COMPLETED" and seen.status == 200):
            continue
        reporter = next((part for part in finished.job.parts if part.process.name == seen.who), None)
        if reporter is None or reporter.finishing is None:
            continue  # a launcher, or sync
        if finished.schedule.disk or finished.schedule.partitions:
            continue  # the ranks of a node know their attempt by its disk; one that is cut off knows no others
        for part in by_attempt(finished)[reporter.launch, reporter.attempt]:
            # One that comes later is not waited for.
            is_awaited = (part.began or 0.0) < reporter.settled_at + JOIN_GRACE - _SLACK and ran_free(finished, part)
            trains = min(part.finishing or math.inf, ended_at(finished, part)) > seen.at and is_awaited
            if trains and part.settled_at < seen.at - 1 and seen.at < reporter.finishing + part.timeout - 1:
                yield f"rank {part.rank} of launch {part.launch} trains when {seen.who} reports COMPLETED"


def a_refusal_changes_nothing(finished: Finished) -> Iterator[str]:
    """A launch that is refused leaves the run as it was, but for its claim."""
    for number, launch_attempts in finished.job.attempts.items():
        parts = [part for attempt in launch_attempts for part in attempt.parts if part.began is not None]
        if not parts or not all(part.error in REFUSALS for part in parts):
            continue
        for seen in finished.tracker.requests:
            if seen.who.startswith(f"L{number}.") and seen.status == 200 and _is_change(seen.path, seen.body):
                yield f"{seen.who}: {seen.method} {seen.path} at {seen.at:.1f} s"
    before, parts = finished.schedule.foreign, [part for part in finished.job.parts if part.began is not None]
    is_lost = any(lost in text for *_, text in finished.messages for lost in LOST)
    if before and not finished.schedule.cancels and not is_lost and all(part.error in REFUSALS for part in parts):
        for run in finished.tracker.runs()[:1]:
            if run["status"] != before:
                yield f"run {run['id']} was {before}, and is {run['status']}"


def a_job_alone_is_never_refused(finished: Finished) -> Iterator[str]:
    """A job of one launch, however often it is restarted, is not refused its own run."""
    schedule = finished.schedule
    if len(schedule.launches) > 1 or schedule.cancels or schedule.launches[0].odd or schedule.foreign:
        return
    for part in finished.job.parts:
        if part.error in REFUSALS:
            yield f"rank {part.rank} in attempt {part.attempt}: {part.error}"


def a_cancelled_run_is_refused(finished: Finished) -> Iterator[str]:
    """A launch, or a restart, that begins after a person's cancel, or waits then, does not set the run to RUNNING."""
    is_calm = not (finished.schedule.weather or finished.schedule.frozen)
    is_calm &= not any(fault.what == "freeze" for fault in finished.schedule.faults)
    set_back = {
        (seen.who, seen.body["runId"])
        for seen in finished.tracker.requests
        if seen.body.get("status") == "CANCELLED" and "statusUpdated" in seen.body
    }
    for run in finished.tracker.runs():
        for cancelled, after in itertools.pairwise(finished.tracker.changes(run["id"])):
            if cancelled["to_status"] == "CANCELLED" and after["to_status"] == "RUNNING":
                since, until = (each["at"] / 1000 - EPOCH for each in (cancelled, after))
                for part in finished.job.parts:
                    if (part.process.name, run["id"]) in set_back:
                        continue  # it found the run by waking it, and has cancelled it again
                    began_after = [other.began for other in by_attempt(finished)[part.launch, part.attempt]]
                    is_late = min((began for began in began_after if began is not None), default=0.0) > since
                    is_late |= is_calm and until > since + _LOOK  # it has looked meanwhile
                    if is_late and any(_is_create_at(seen, part, until) for seen in finished.tracker.requests):
                        yield f"{part.process.name} sets run {run['id']} to RUNNING at {until:.1f} s"


def nothing_comes_after_the_end(finished: Finished) -> Iterator[str]:
    """No rank of an attempt creates, or attaches to, its run once the attempt's success is on record."""
    for (launch, attempt), parts in by_attempt(finished).items():
        is_whole = all(ran_free(finished, part) for part in parts) and not finished.schedule.partitions
        if finished.schedule.shared_spool and finished.schedule.weather:
            continue  # what a rank keeps that has ended is sent by one that recovers, which ends the run again
        if finished.schedule.disk or not is_whole:
            continue  # a rank that finds no store of the others any more, or no notes of its node's, goes on alone
        names = {part.process.name for part in parts}
        mine = [seen for seen in finished.tracker.requests if seen.who in names and seen.status == 200]
        began = min((part.began for part in parts if part.began is not None), default=0.0)
        ends = [seen.at for seen in mine if seen.path.endswith("status/update") and _is_success(seen, began)]
        for seen in mine:
            if ends and seen.path == CREATED and seen.sent > ends[0]:
                yield f"{seen.who} comes at {seen.sent:.1f} s; launch {launch}, attempt {attempt} ended {ends[0]:.1f} s"


def _is_success(seen: Seen, began: float) -> bool:
    """Whether a request tells the success of an attempt that ``began`` then: one set back has ended before."""
    at = seen.body.get("statusUpdated")
    return seen.body.get("status") == "COMPLETED" and (at is None or at / 1000 - EPOCH > began)


def _is_create_at(seen: Seen, part: Part, at: float) -> bool:
    is_create = seen.path == CREATED and "config" in seen.body  # an attach has none
    return seen.who == part.process.name and is_create and abs(seen.at - at) < 0.01


def _is_change(path: str, body: dict[str, Any]) -> bool:
    if path.endswith("config/update"):
        section = json.loads(body["config"]).get("pluto_dist", {})
        return set(section) != {"claims"} and set(section.get("attempts", {"": 0}).values()) != {None}
    return path.endswith("status/update") and "statusUpdated" not in body


def attaches_keep_their_rate(finished: Finished) -> Iterator[str]:
    """All ranks of a job together attach at its rate."""
    if any(what == "twice" for _, _, what, _ in finished.schedule.weather):
        return
    for number, launch in enumerate(finished.schedule.launches):
        rate = float(dict(launch.variables).get("PLUTO_DIST_ATTACH_RATE", "50"))
        times = [
            seen.at
            for seen in finished.tracker.requests
            if seen.path == CREATED and "config" not in seen.body and seen.who.startswith(f"L{number}.")
            if not is_held_back(finished, seen.at)
        ]
        for first, last in itertools.combinations(range(len(times)), 2):
            count, seconds = last - first + 1, times[last] - times[first]
            if count > rate * (seconds + 1.5) + 2:
                yield f"launch {number}: {count} attaches in {seconds:.1f} s, with {rate:g} a second"
                return


def one_rank_at_a_time_creates(finished: Finished) -> Iterator[str]:
    """Ranks take over from a silent rank 0 one after the other, so that few create-run calls are sent."""
    if finished.schedule.weather or finished.schedule.partitions or finished.schedule.disk:
        return  # a rank may be offline, and recovers
    for (launch, attempt), parts in by_attempt(finished).items():
        began = [part.began for part in parts if part.began is not None]
        senders = {part.process.name: part for part in parts if part.rank != 0 and part.returned is not None}
        sent: dict[str, float] = {}
        for seen in finished.tracker.requests:
            part = senders.get(seen.who)
            is_in_init = part is not None and seen.sent <= (part.returned or 0.0)
            if is_in_init and seen.path == CREATED and "config" in seen.body:
                sent.setdefault(seen.who, seen.sent)
        first, *others = sorted(sent.values()) or [0.0]
        pause = TAKE_OVER_EVERY * parts[0].timeout - (max(began, default=0.0) - min(began, default=0.0)) - _SLACK
        if others and others[0] - first < pause:
            yield f"launch {launch}, attempt {attempt}: {len(sent)} ranks create the run in {others[-1] - first:.1f} s"


def one_rank_sends_the_heartbeats(finished: Finished) -> Iterator[str]:
    """A run has one owner, and one sender of heartbeats."""
    is_calm = not (finished.schedule.weather or finished.schedule.partitions or finished.schedule.frozen)
    if not is_calm or any(fault.what == "freeze" and not fault.request for fault in finished.schedule.faults):
        return  # who was silent for a while, and is back, sends them beside the rank that took them over
    alone = ("going on offline", "init() took longer")
    for (launch, attempt), parts in by_attempt(finished).items():
        names, senders = {part.process.name for part in parts}, []
        if any(who in names and words in text for _, who, _, text in finished.messages for words in alone):
            continue  # ranks that are offline each recover the run, and send them
        for seen in finished.tracker.requests:
            if seen.who in names and seen.path == HEARTBEAT_PATH:
                senders.append(seen.who)
        changes = sum(one != other for one, other in itertools.pairwise(senders))
        if changes > 2:
            yield f"launch {launch}, attempt {attempt}: heartbeats of {sorted(set(senders))}"


def the_store_stays_small(finished: Finished) -> Iterator[str]:
    """A rank leaves a bounded number of keys in the store."""
    for address, server in finished.job.stores.servers.items():
        ranks = len(finished.job.parts) or 1
        if len(server.values) > 40 * ranks + 60:
            yield f"{address}: {len(server.values)} keys of {ranks} ranks"


INVARIANTS: tuple[Invariant, ...] = (
    no_thread_dies,
    one_run,
    ranks_agree,
    a_rank_is_in_the_run_that_it_named,
    ranks_are_refused_together,
    launches_do_not_overlap,
    training_is_unhurt,
    nothing_is_dropped,
    the_end_is_right,
    sync_sends_all,
    nothing_stays_that_was_sent,
    all_ranks_come_to_a_recovered_run,
    sync_revives_nothing,
    attempts_are_numbered,
    init_is_bounded,
    the_end_is_bounded,
    nobody_hangs,
    a_cancel_stays,
    a_cancelled_run_is_refused,
    a_job_alone_is_never_refused,
    nothing_comes_after_the_end,
    a_success_waits_for_all,
    a_refusal_changes_nothing,
    attaches_keep_their_rate,
    one_rank_at_a_time_creates,
    one_rank_sends_the_heartbeats,
    the_key_is_secret,
    the_store_stays_small,
)


def violations(finished: Finished) -> list[tuple[str, str]]:
    """The name of each broken invariant, and what is wrong."""
    return [(invariant.__name__, what) for invariant in INVARIANTS for what in invariant(finished)]


def sentence(name: str) -> str:
    """The promise of an invariant."""
    found: Any = next(each for each in INVARIANTS if each.__name__ == name)
    return str(found.__doc__)
