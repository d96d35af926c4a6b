"""What the rank that creates the run does: creates it with everything, tells the others, keeps what was not taken.

As a rule the leader; another rank where that stays silent or does not reach the tracker. The call itself is
``creating``, what the other ranks do meanwhile ``joining``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pluto_dist import attempts
from pluto_dist.client import Client
from pluto_dist.creating import Birth, create, create_request
from pluto_dist.errors import PlutoDistError, TrackerUnavailableError, UnexpectedAnswerError
from pluto_dist.exchange import Exchange, Outcome, RunExchange, SignedId
from pluto_dist.gathering import cluster_document, in_order, warn_of_drift
from pluto_dist.identity import Named
from pluto_dist.inventory import Process
from pluto_dist.outbox import Outbox
from pluto_dist.plan import Plan
from pluto_dist.settings import Settings


def lead(
    plan: Plan,
    exchange: Exchange,
    run: RunExchange,
    signed: SignedId,
    client: Client | None,
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
    if leads and told.is_to_be_kept(plan.settings.on_error) and not outbox.waits:
        _keep(plan, birth, outbox)
    exchange.welcome_nodes()
    return told, leads


def _birth(exchange: Exchange, run: RunExchange, signed: SignedId, document: dict[str, Any] | None) -> Birth:
    return Birth(
        signed,
        launch=exchange.token,
        key=run.attempt_key(attempts.key(time.time())),
        hosts=in_order(exchange.nodes()),
        before=run.begun_before(),
        failure=exchange.last_failure(),
        metadata=document,
    )


def _keep(plan: Plan, birth: Birth, outbox: Outbox) -> None:
    """Keep what creates the run; it began when ``init()`` was called, whenever the tracker hears of it."""
    began = round(1000 * (time.time() - (time.monotonic() - plan.began)))
    request = create_request(plan, birth)
    given = request.created_at
    outbox.keep(replace(request, created_at=began if given is None else given), birth.key, plan.fork_of)


def _tell(plan: Plan, birth: Birth, run: RunExchange, mine: Outcome, outbox: Outbox) -> Outcome:
    """Tell how this rank fared; what was told first.

    What is to be kept is kept before: a rank that hears of an outage may die at once, and its launcher then ends
    this one, while a disk takes its time.
    """
    on_error = plan.settings.on_error
    keeps_early = mine.is_to_be_kept(on_error) and not outbox.waits and _leads(plan, run, mine, mine)
    if keeps_early:
        _keep(plan, birth, outbox)
    told = run.publish_outcome(mine)
    if keeps_early and not (told.is_to_be_kept(on_error) and _leads(plan, run, mine, told)):
        outbox.take_back()
    run.remember(told, tell=True)
    return told


def _leads(plan: Plan, run: RunExchange, mine: Outcome | None, told: Outcome) -> bool:
    """Whether this rank leads now that ``told`` was told first.

    The leader does, unless another rank reached the tracker in its place; another rank does where its word was the
    first, but not beside a leader that is offline like itself.
    """
    if plan.is_leader:
        return told == mine or told.kind != "online"
    return told == mine and (told.kind == "online" or not run.claimed("leader"))


def _made(plan: Plan, birth: Birth, client: Client | None, outbox: Outbox) -> Outcome:
    """What comes of this rank's try to create the run."""
    lived = birth.before is not None and birth.before.lived
    if client is None:
        return Outcome("offline", resumed=lived, message=_why_offline(plan.settings))
    try:
        if lived and outbox.look():  # an earlier attempt, which the tracker does not know of
            _keep(plan, birth, outbox)
            done = outbox.catch_up(client, plan.deadline, joins=True)
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
