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

from pluto_dist.client import rate_limit
from pluto_dist.client.tracker_client import REQUEST_SECONDS, TrackerClient
from pluto_dist.contract.run_ref import resume_request
from pluto_dist.contract.run_requests import CreateRunRequest, CreateRunResponse
from pluto_dist.errors import TrackerError, TrackerUnavailableError
from pluto_dist.lifecycle.creation import run_name
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.rendezvous.messages import AgreedId, Outcome
from pluto_dist.rendezvous.run_channel import RunChannel

ROLL_CALL_SECONDS = 5.0  # how long a node without memory waits to hear from the others
LATE_ATTACH_SECONDS = 5.0  # how long finish() waits for this rank's turn to attach
LATEST_START = 30.0  # who seems to hear of the run later than this has a clock that is wrong


def attach(
    plan: Plan, run: RunChannel, signed: AgreedId, outcome: Outcome, client: TrackerClient, stop: threading.Event
) -> CreateRunResponse | None:
    """This rank's own create-run call, with the id alone; the answer, or ``None`` where it was dropped.

    All ranks keep the one queue of ``pacing``. An attach to a finished run would revive it, so each is counted
    before it looks whether the run is closed; who closes waits for the count.
    """
    topology, rate = plan.context.topology, plan.settings.attach_rate
    born = time.monotonic() - min(max(0.0, time.time() - outcome.at), LATEST_START)
    ticket = topology.rank
    for _ in range(rate_limit.TRIES):
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
            if rate_limit.is_news(now, rate, known):
                run.slow_down(len(known), max(ticket, rate_limit.ticket_at(now, rate, known)))
            ticket = topology.world_size + run.count("attach again")
            born += error.retry_after
        except TrackerError:
            return None  # the run is there without it: the leader created it
        finally:
            run.count("attach over")
    return None


def _await_turn(
    born: float, ticket: int, rate: float, run: RunChannel, stop: threading.Event
) -> tuple[int, ...] | None:
    """Wait until ``ticket`` is due; the slowdowns known by then, or ``None`` where the rank's part ends before."""
    known: tuple[int, ...] = ()
    while True:
        left = born + rate_limit.due(ticket, rate, known) - time.monotonic()
        if stop.wait(max(0.0, left)):
            if (left := born + rate_limit.due(ticket, rate, known) - time.monotonic()) > LATE_ATTACH_SECONDS:
                return None
            time.sleep(max(0.0, left))
            return known
        if (now_known := run.slowdowns()) == known:
            return known
        known = now_known


def _attach_once(plan: Plan, signed: AgreedId, outcome: Outcome, client: TrackerClient) -> CreateRunResponse:
    """One try: the next one has a ticket of its own."""
    deadline = time.monotonic() + REQUEST_SECONDS
    if signed.reference.kind != "external id":
        return client.resume(resume_request(run_name(plan, signed.reference)), deadline=deadline, retry=False)
    name = plan.request.run_name or signed.reference.value
    project = outcome.answer.project_name if outcome.answer else plan.request.project_name
    return client.create(CreateRunRequest(name, project, signed.reference.value), deadline=deadline, retry=False)
