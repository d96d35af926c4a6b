"""Election of the rank that creates the run: its owner, which sends the heartbeats and ends it.

Rank 0 as a rule. Another rank if that stays silent or does not reach the tracker. The call itself is ``creation``.

One rank creates and the others attach, because (measured on the open-source server) ranks that race to create burn run
numbers, make a new project answer 500 to some of them, and keep the metadata of an arbitrary rank; an attach that
carries a config costs five times one without.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.errors import ExchangeError, PlutoDistError, TrackerUnavailableError, UnexpectedAnswerError
from pluto_dist.identity import Named
from pluto_dist.inventory.records import Process
from pluto_dist.lifecycle.context import RankContext
from pluto_dist.lifecycle.creation import CreationContext, create, create_request
from pluto_dist.lifecycle.inventory_gather import GATHER_SECONDS, cluster_document, gather, warn_of_drift
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.lifecycle.supervision import report_begin
from pluto_dist.rendezvous.membership import AttemptOverError
from pluto_dist.rendezvous.messages import Outcome
from pluto_dist.rendezvous.run_channel import LEADER
from pluto_dist.settings.settings import Settings

TAKE_OVER_AT, TAKE_OVER_EVERY = 0.6, 0.1  # parts of the timeout after which another rank takes over from rank 0
LATE_TURN_SECONDS = 10.0  # the timeout that counts for this once init() has returned
ACKNOWLEDGE_SECONDS = 3.0  # how long a late node waits for rank 0 of its own attempt
_SLICE = 0.25  # how often a rank that waits for the acknowledgement checks whether the attempt is over
_LONG_SLICE = 1.0  # the same for the many ranks that wait for the outcome


@dataclass(frozen=True, slots=True)
class Election:
    """How the run was created.

    Attributes:
        outcome: equal on every rank, unless this rank went offline beside a rank 0 that has not.
        is_owner: whether this rank sends the heartbeats and ends the run.
        gathered: the nodes whose inventory is in the run's metadata.
    """

    outcome: Outcome
    is_owner: bool = False
    gathered: frozenset[str] = frozenset()


def elect(context: RankContext, process: Callable[[], Process] = Process) -> Election:
    """Create the run, or wait for the rank that does.

    Args:
        context: this rank.
        process: waits for the description of this process, for the run's metadata.

    Raises:
        AttemptOverError: the attempt in which this rank registered turns out to be over.
    """
    if not context.plan.is_rank_zero:
        return _follow(context, process)
    if not context.channel.lead():
        context.membership.leave()
    if context.channel.outcome() is not None:
        _await_acknowledgement(context)
    return _gather_and_create(context, process)


def _follow(context: RankContext, process: Callable[[], Process]) -> Election:
    """Wait for the outcome, and create the run if rank 0 stays silent."""
    channel = context.channel
    turns, next_turn = 0, _turn(context, 0)
    outcome = channel.outcome()
    was_there = outcome is not None
    while outcome is None:
        outcome = channel.outcome(max(0.01, min(_LONG_SLICE, next_turn - time.monotonic())))
        if outcome is not None:
            break
        context.membership.stay()
        if context.stop.is_set():
            raise ExchangeError("this rank's part in the run is over, and no rank has created it so far")
        if time.monotonic() > next_turn:
            turns, next_turn = turns + 1, _turn(context, turns + 1)
            if channel.claim(f"taker {turns}"):
                election = _gather_and_create(context, process)
                if election.outcome.kind != "offline" or not channel.claimed(LEADER):
                    return election
    if was_there:
        _await_acknowledgement(context)
    channel.remember(outcome, in_store=False)
    return Election(outcome)


def _turn(context: RankContext, turn: int) -> float:
    """When a rank next takes over from a rank 0 that is silent (monotonic clock).

    A rank whose ``init()`` has returned before it was connected has no hurry: the run is on disk, and rank 0 is as
    slow as it was itself.
    """
    plan, now = context.plan, time.monotonic()
    # The node of rank 0 last: what keeps rank 0 from the tracker may keep all of its node.
    late = TAKE_OVER_EVERY / 2 if plan.topology.node_rank == 0 else 0.0
    if now > plan.deadline:
        return now + max(plan.settings.timeout, LATE_TURN_SECONDS) * (TAKE_OVER_AT + late)
    return plan.started + plan.settings.timeout * (TAKE_OVER_AT + late + turn * TAKE_OVER_EVERY)


def _await_acknowledgement(context: RankContext) -> None:
    """Wait, bounded, until it is known that an outcome that was there before this rank is of its own attempt.

    A node that registers before any other node of a new attempt finds the messages of the old one. The rank that
    created the run acknowledges every node. Launches whose store ends with the attempt need no acknowledgement.
    """
    plan, membership = context.plan, context.membership
    if plan.context.store_address is None:
        return
    until = min(time.monotonic() + ACKNOWLEDGE_SECONDS, plan.deadline)
    while not membership.await_acknowledgement(_SLICE) and time.monotonic() < until:
        membership.stay()


def _gather_and_create(context: RankContext, process: Callable[[], Process]) -> Election:
    nodes = gather(context, min(time.monotonic() + GATHER_SECONDS, context.plan.deadline))
    context.membership.stay()
    return create_as_owner(context, nodes, process)


def create_as_owner(
    context: RankContext, nodes: Mapping[str, dict[str, Any]], process: Callable[[], Process] = Process
) -> Election:
    """Create the run with the inventories of ``nodes``, and publish the outcome.

    Requests that the tracker does not take are kept in the outbox. Only rank 0, if it is there, publishes that the job
    is offline: it keeps the run's requests, and no rank goes on before it has. The outcome of another rank is then its
    own.
    """
    plan, channel, membership = context.plan, context.channel, context.membership
    document = cluster_document(plan.topology, nodes, process()) if plan.settings.metadata else None
    creation = CreationContext.of(context, document)
    context.outbox.attempt = creation.key
    mine: Outcome | None = None
    told = channel.outcome()  # another rank was faster, or found that the ranks disagree
    if told is None:
        report_begin(context)
        mine = replace(_try_to_create(context, creation), at=time.time())
        is_for_rank_zero = mine.kind == "offline" and not _is_owner(context, mine, mine)
        told = mine if is_for_rank_zero else _publish(context, creation, mine)
    is_owner = _is_owner(context, mine, told)
    if is_owner and document is not None:
        warn_of_drift(document, told.answer)
    if is_owner and told.is_to_be_kept(plan.settings.on_error) and not context.outbox.has_pending:
        _enqueue(context, creation)
    membership.acknowledge_nodes()
    return Election(told, is_owner, frozenset(nodes))


def _try_to_create(context: RankContext, creation: CreationContext) -> Outcome:
    """The outcome of this rank's try."""
    plan, outbox, client = context.plan, context.outbox, context.client
    joined = creation.prior is not None and creation.prior.joined
    if client is None:
        return Outcome("offline", resumed=joined, message=_why_offline(plan.settings))
    try:
        if joined and outbox.check():  # requests of an earlier attempt, whose run the tracker does not have
            _enqueue(context, creation)
            done = outbox.flush(client, plan.deadline, attach_anyway=True)
            answer = None if done is None else done.answer
        else:
            answer = create(context, creation, client)
    except AttemptOverError:
        raise
    except (TrackerUnavailableError, UnexpectedAnswerError) as error:
        return Outcome("offline", resumed=joined, message=str(error))
    except PlutoDistError as error:
        return Outcome("error", error=type(error).__name__, message=str(error))
    if answer is None:
        return Outcome("offline", resumed=joined, message="the tracker did not take the requests of an earlier attempt")
    # An id that this launch generated can only have been created by this launch, in an attempt that may have ended
    # before init() returned on any rank.
    return Outcome("online", answer, resumed=joined or (answer.resumed and isinstance(plan.decision, Named)))


def _why_offline(settings: Settings) -> str:
    if settings.mode == "offline":
        return "mode is offline"
    return "no API key: set PLUTO_API_KEY to record the run in a tracker"


def _publish(context: RankContext, creation: CreationContext, mine: Outcome) -> Outcome:
    """Publish this rank's outcome; the one that was published first.

    Requests are kept before: a rank that learns of an outage may end at once, and its launcher then ends this one,
    while a disk takes its time.
    """
    outbox, on_error = context.outbox, context.plan.settings.on_error
    keeps_early = mine.is_to_be_kept(on_error) and not outbox.has_pending and _is_owner(context, mine, mine)
    if keeps_early:
        _enqueue(context, creation)
    told = context.channel.publish_outcome(mine)
    if keeps_early and not (told.is_to_be_kept(on_error) and _is_owner(context, mine, told)):
        outbox.retract()
    context.channel.remember(told, in_store=True)
    return told


def _enqueue(context: RankContext, creation: CreationContext) -> None:
    if creation.prior is None:
        context.channel.begin()
    enqueue_create(context.plan, creation, context.outbox)


def enqueue_create(plan: Plan, creation: CreationContext, outbox: Outbox) -> None:
    """Keep the create-run call, with the time at which ``init()`` was called as the run's start."""
    started = round(1000 * (time.time() - (time.monotonic() - plan.started)))
    request = create_request(plan, creation)
    given = request.created_at
    request = replace(request, created_at=started if given is None else given)
    outbox.enqueue(request, creation.key, plan.fork_of)


def _is_owner(context: RankContext, mine: Outcome | None, told: Outcome) -> bool:
    """Whether this rank owns the run, now that ``told`` was published first.

    Rank 0 does, unless another rank reached the tracker in its place. Another rank does if its outcome was the first,
    but not beside a rank 0 that is offline like itself.
    """
    if context.plan.is_rank_zero:
        return told == mine or told.kind != "online"
    return told == mine and (told.kind == "online" or not context.channel.claimed(LEADER))
