"""What the rank that creates the run does: creates it with everything, tells the others, keeps what was not taken.

As a rule the leader; another rank where that stays silent or does not reach the tracker. The call itself is
``creating``, what the other ranks do meanwhile ``joining``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract import attempts
from pluto_dist.errors import PlutoDistError, TrackerUnavailableError, UnexpectedAnswerError
from pluto_dist.identity import Named
from pluto_dist.inventory.records import Process
from pluto_dist.lifecycle.creation import CreationContext, create, create_request
from pluto_dist.lifecycle.inventory_gather import cluster_document, in_order, warn_of_drift
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import AgreedId, Outcome
from pluto_dist.rendezvous.run_channel import RunChannel
from pluto_dist.settings.settings import Settings


def lead(
    plan: Plan,
    exchange: Membership,
    run: RunChannel,
    signed: AgreedId,
    client: TrackerClient | None,
    outbox: Outbox,
    gathered: dict[str, dict[str, Any]],
    describing: Callable[[], Process] = Process,
) -> tuple[Outcome, bool]:
    """Create the run and tell the others; what the tracker does not take is kept in ``outbox``.

    Args:
        gathered: the nodes' inventories.
        describing: waits for the description of this process.

    Returns:
        What was told first, and whether this rank beats and ends the run: the leader does, unless another rank
        reached the tracker in its place. That the job is offline is the leader's to tell, where there is one: it
        keeps the run, and nobody goes on before it has; what another rank returns is then its own.
    """
    document = cluster_document(plan.context.topology, gathered, describing()) if plan.settings.metadata else None
    birth = _birth(exchange, run, signed, document)
    mine: Outcome | None = None
    told = run.outcome()  # another rank was faster, or found that the ranks disagree
    if told is None:
        if birth.before is None:
            run.begin()
        mine = replace(_made(plan, birth, client, outbox), at=time.time())
        is_for_leader = mine.kind == "offline" and not _leads(plan, run, mine, mine)
        told = mine if is_for_leader else _tell(plan, birth, run, mine, outbox)
    leads = _leads(plan, run, mine, told)
    if leads and document is not None:
        warn_of_drift(document, told.answer)
    if leads and told.is_to_be_kept(plan.settings.on_error) and not outbox.has_pending:
        _keep(plan, birth, outbox)
    exchange.acknowledge_nodes()
    return told, leads


def _birth(exchange: Membership, run: RunChannel, signed: AgreedId, document: dict[str, Any] | None) -> CreationContext:
    return CreationContext(
        signed,
        launch=exchange.token,
        key=run.attempt_key(attempts.key(time.time())),
        hosts=in_order(exchange.nodes()),
        before=run.prior_attempt(),
        failure=exchange.last_failure(),
        metadata=document,
    )


def _keep(plan: Plan, birth: CreationContext, outbox: Outbox) -> None:
    """Keep what creates the run; it began when ``init()`` was called, whenever the tracker hears of it."""
    began = round(1000 * (time.time() - (time.monotonic() - plan.began)))
    request = create_request(plan, birth)
    given = request.created_at
    outbox.enqueue(replace(request, created_at=began if given is None else given), birth.key, plan.fork_of)


def _tell(plan: Plan, birth: CreationContext, run: RunChannel, mine: Outcome, outbox: Outbox) -> Outcome:
    """Tell how this rank fared; what was told first.

    What is to be kept is kept before: a rank that hears of an outage may die at once, and its launcher then ends
    this one, while a disk takes its time.
    """
    on_error = plan.settings.on_error
    keeps_early = mine.is_to_be_kept(on_error) and not outbox.has_pending and _leads(plan, run, mine, mine)
    if keeps_early:
        _keep(plan, birth, outbox)
    told = run.publish_outcome(mine)
    if keeps_early and not (told.is_to_be_kept(on_error) and _leads(plan, run, mine, told)):
        outbox.retract()
    run.remember(told, tell=True)
    return told


def _leads(plan: Plan, run: RunChannel, mine: Outcome | None, told: Outcome) -> bool:
    """Whether this rank leads now that ``told`` was told first.

    The leader does, unless another rank reached the tracker in its place; another rank does where its word was the
    first, but not beside a leader that is offline like itself.
    """
    if plan.is_rank_zero:
        return told == mine or told.kind != "online"
    return told == mine and (told.kind == "online" or not run.claimed("leader"))


def _made(plan: Plan, birth: CreationContext, client: TrackerClient | None, outbox: Outbox) -> Outcome:
    """What comes of this rank's try to create the run."""
    lived = birth.before is not None and birth.before.lived
    if client is None:
        return Outcome("offline", resumed=lived, message=_why_offline(plan.settings))
    try:
        if lived and outbox.check():  # an earlier attempt, which the tracker does not know of
            _keep(plan, birth, outbox)
            done = outbox.flush(client, plan.deadline, joins=True)
            answer = None if done is None else done.answer
        else:
            answer = create(plan, birth, client)
    except (TrackerUnavailableError, UnexpectedAnswerError) as error:
        return Outcome("offline", resumed=lived, message=str(error))
    except PlutoDistError as error:
        return Outcome("error", error=type(error).__name__, message=str(error))
    if answer is None:
        return Outcome("offline", resumed=lived, message="the tracker did not take what an earlier attempt left")
    # An id that this launch made up can only have been created by this launch, in an attempt that may have died
    # before any script heard of it.
    return Outcome("online", answer, resumed=lived or (answer.resumed and isinstance(plan.decision, Named)))


def _why_offline(settings: Settings) -> str:
    if settings.mode == "offline":
        return "mode is offline"
    return "no API key: set PLUTO_API_KEY to record the run in a tracker"


WELCOME_SECONDS = 3.0  # how long a late node waits to hear that the leader is of its own attempt


TAKE_OVER_AT, TAKE_OVER_EVERY = 0.6, 0.1  # parts of the timeout after which a silent leader is stood in for


_SLICE = 0.25  # how often one who waits for the acknowledge_node looks whether the attempt is over


_LONG_SLICE = 2.0  # the same for the many who wait for the leader


def follow(plan: Plan, exchange: Membership, run: RunChannel, take_over: Callable[[], Outcome]) -> Outcome | None:
    """The leader's word, or this rank's own where the leader stays silent.

    Returns:
        The outcome; ``None`` where the attempt that this rank signed in to turns out to be over.
    """
    turn, mine = 0, None
    # The leader's node last: what keeps the leader from the tracker may keep all of its node.
    late = TAKE_OVER_EVERY / 2 if plan.context.topology.node_rank == 0 else 0.0
    outcome = run.outcome()
    was_there = outcome is not None
    while outcome is None:
        next_turn = plan.began + plan.settings.timeout * (TAKE_OVER_AT + late + turn * TAKE_OVER_EVERY)
        outcome = run.outcome(max(0.01, min(_LONG_SLICE, min(next_turn, plan.deadline) - time.monotonic())))
        now = time.monotonic()
        if outcome is None and exchange.is_over():
            return None
        if outcome is None and now > plan.deadline:
            silent = f"no rank answered within {plan.settings.timeout:.0f} s; is rank 0 calling init()?"
            return run.publish_outcome(mine or Outcome("offline", message=silent))
        if outcome is None and now > next_turn:
            turn += 1
            if run.claim(f"taker {turn}"):
                mine = take_over()
                if mine.kind != "offline" or not run.claimed("leader"):
                    return mine
    if was_there and not _is_of_this_attempt(plan, exchange):
        return None
    run.remember(outcome, tell=False)
    return outcome


def _is_of_this_attempt(plan: Plan, exchange: Membership) -> bool:
    """Whether an outcome that was there before this rank is no earlier attempt's.

    A node that signs in before any other node of a new attempt meets the old attempt's words. The leader's own
    node, and launches whose store ends with the attempt, are sure without being told.
    """
    if plan.context.store_address is None or plan.context.topology.node_rank == 0:
        return True
    until = min(time.monotonic() + WELCOME_SECONDS, plan.deadline)
    while not exchange.await_acknowledgement(_SLICE) and time.monotonic() < until:
        if exchange.is_over():
            return False
    return True
