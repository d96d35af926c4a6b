"""How ranks come into one run: they agree which it is, one of them creates it, the others follow and attach.

Functions, not state: each takes the :class:`Plan` of one ``init()`` and does one step over ``exchange`` and
``client``. They run in the run's own thread; what the one that creates does is ``leading``, what happens after
``lifecycle``.

Why one create and then attaches (measured on the open-source server): ranks that race to create burn run
numbers, make a new project answer 500 to some of them, and keep the metadata of an arbitrary rank; an attach
that carries a config costs five times one without.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pluto_dist import pacing
from pluto_dist.client import REQUEST_SECONDS, Client
from pluto_dist.creating import run_name
from pluto_dist.errors import RunIdMismatchError, TrackerError, TrackerUnavailableError
from pluto_dist.exchange import Exchange, Outcome, RunExchange, SignedId
from pluto_dist.identity import NeedsLaunchToken, Reference
from pluto_dist.plan import Plan
from pluto_dist.replay import resume_request
from pluto_dist.wire import CreateRunRequest, CreateRunResponse

ROLL_CALL_SECONDS = 5.0  # how long a node without memory waits to hear from the others
WELCOME_SECONDS = 3.0  # how long a late node waits to hear that the leader is of its own attempt
LATE_ATTACH_SECONDS = 5.0  # how long finish() waits for this rank's turn to attach
TAKE_OVER_AT, TAKE_OVER_EVERY = 0.6, 0.1  # parts of the timeout after which a silent leader is stood in for
LATEST_START = 30.0  # who seems to hear of the run later than this has a clock that is wrong
_SLICE = 0.25  # how often one who waits for the welcome looks whether the attempt is over
_LONG_SLICE = 2.0  # the same for the many who wait for the leader


def agree(plan: Plan, run: RunExchange, token: str) -> SignedId:
    """The id that every rank of the launch uses.

    Args:
        plan: what this rank set out to do.
        run: where the ranks say which run they mean.
        token: the launch's.

    Raises:
        RunIdMismatchError: this rank derived another one than the first rank to speak.
    """
    decision = plan.decision
    if isinstance(decision, NeedsLaunchToken):
        mine = Reference("external id", decision.external_id(token, plan.nth))
    else:
        mine = decision.reference_of(plan.nth)
    signed = run.sign_id(mine, decision.source, plan.variables)
    if signed.reference == mine:
        return signed
    error = RunIdMismatchError(
        "ranks of one launch name different runs:\n"
        f"  rank {signed.rank} on {signed.host}: {signed.reference.value!r} from {signed.source}\n"
        f"  rank {plan.context.topology.rank} on {plan.host}: {mine.value!r} from {decision.source}\n"
        f"{_differing(signed.variables, plan.variables)}"
        "Give every rank the same run_id and PLUTO_RUN_ID (or none), and every node the same --rdzv-id."
    )
    run.publish_outcome(Outcome("error", error=type(error).__name__, message=str(error)))
    raise error


def _differing(theirs: tuple[tuple[str, str], ...], mine: tuple[tuple[str, str], ...]) -> str:
    """One line for each variable that the two ranks have different values of."""
    there, here = dict(theirs), dict(mine)
    names = [name for name in dict.fromkeys((*there, *here)) if there.get(name) != here.get(name)]
    return "".join(f"  {name} is {_shown(there.get(name))} there and {_shown(here.get(name))} here\n" for name in names)


def _shown(value: str | None) -> str:
    return "not set" if value is None else repr(value[:80])


def follow(plan: Plan, exchange: Exchange, run: RunExchange, take_over: Callable[[], Outcome]) -> Outcome | None:
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


def _is_of_this_attempt(plan: Plan, exchange: Exchange) -> bool:
    """Whether an outcome that was there before this rank is no earlier attempt's.

    A node that signs in before any other node of a new attempt meets the old attempt's words. The leader's own
    node, and launches whose store ends with the attempt, are sure without being told.
    """
    if plan.context.store_address is None or plan.context.topology.node_rank == 0:
        return True
    until = min(time.monotonic() + WELCOME_SECONDS, plan.deadline)
    while not exchange.await_welcome(_SLICE) and time.monotonic() < until:
        if exchange.is_over():
            return False
    return True


def attach(
    plan: Plan, run: RunExchange, signed: SignedId, outcome: Outcome, client: Client, stop: threading.Event
) -> CreateRunResponse | None:
    """This rank's own create-run call, with the id alone; the answer, or ``None`` where it was dropped.

    All ranks keep the one queue of ``pacing``. An attach to a finished run would revive it, so each is counted
    before it looks whether the run is closed; who closes waits for the count.
    """
    topology, rate = plan.context.topology, plan.settings.attach_rate
    born = time.monotonic() - min(max(0.0, time.time() - outcome.at), LATEST_START)
    ticket = topology.rank
    for _ in range(pacing.TRIES):
        known = _await_turn(born, ticket, rate, run, stop)
        if known is None:
            return None
        run.count("attach begun")
        try:
            if run.claimed("closed"):
                return None
            return _attach_once(plan, signed, outcome, client)
        except TrackerUnavailableError as error:
            now = time.monotonic() - born
            if pacing.is_news(now, rate, known):
                run.slow_down(len(known), max(ticket, pacing.ticket_at(now, rate, known)))
            ticket = topology.world_size + run.count("attach again")
            born += error.retry_after
        except TrackerError:
            return None  # the run is there without it: the leader created it
        finally:
            run.count("attach over")
    return None


def _await_turn(
    born: float, ticket: int, rate: float, run: RunExchange, stop: threading.Event
) -> tuple[int, ...] | None:
    """Wait until ``ticket`` is due; the slowdowns known by then, or ``None`` where the rank's part ends before."""
    known: tuple[int, ...] = ()
    while True:
        left = born + pacing.due(ticket, rate, known) - time.monotonic()
        if stop.wait(max(0.0, left)):
            if (left := born + pacing.due(ticket, rate, known) - time.monotonic()) > LATE_ATTACH_SECONDS:
                return None
            time.sleep(max(0.0, left))
            return known
        if (now_known := run.slowdowns()) == known:
            return known
        known = now_known


def _attach_once(plan: Plan, signed: SignedId, outcome: Outcome, client: Client) -> CreateRunResponse:
    """One try: the next one has a ticket of its own."""
    deadline = time.monotonic() + REQUEST_SECONDS
    if signed.reference.kind != "external id":
        return client.resume(resume_request(run_name(plan, signed.reference)), deadline=deadline, retry=False)
    name = plan.request.run_name or signed.reference.value
    project = outcome.answer.project_name if outcome.answer else plan.request.project_name
    return client.create(CreateRunRequest(name, project, signed.reference.value), deadline=deadline, retry=False)
