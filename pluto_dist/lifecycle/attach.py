"""Attaches: every rank but the owner sends one create-run call with the id alone, which the tracker dedupes."""

from __future__ import annotations

import time

from pluto_dist.client import rate_limit
from pluto_dist.client.tracker_client import REQUEST_SECONDS, TrackerClient
from pluto_dist.contract.run_ref import resume_request
from pluto_dist.contract.run_requests import CreateRunRequest, CreateRunResponse, ResumeRunRequest
from pluto_dist.errors import RequestRefusedError, TrackerError, TrackerUnavailableError
from pluto_dist.lifecycle.belief import contradicted
from pluto_dist.lifecycle.context import RankContext
from pluto_dist.rendezvous.messages import Outcome

LONGEST_WAIT_SECONDS = 1e6  # slots are numbers from the store; no thread waits for more than 292 years
LATE_ATTACH_SECONDS = 5.0  # how long finish() waits for this rank's slot


def attach(context: RankContext, outcome: Outcome, client: TrackerClient) -> CreateRunResponse | None:
    """Send this rank's own create-run call; the answer, or ``None`` if it was dropped.

    All ranks keep the schedule of ``rate_limit``, each from when it learnt of the run: no clock of another one counts.
    None attaches to a run that has ended.

    Raises:
        RunIdMismatchError: the project that the store names has no such run.
    """
    channel, topology, rate = context.channel, context.plan.topology, context.plan.settings.attach_rate
    start = time.monotonic()
    slot = topology.rank
    for _ in range(rate_limit.TRIES):
        known = _await_slot(context, start, slot)
        if known is None:
            return None
        try:
            with channel.attaching() as is_open:
                return _attach_once(context, outcome, client) if is_open else None
        except TrackerUnavailableError as error:
            now = time.monotonic() - start
            if rate_limit.is_news(now, rate, known):
                channel.slow_down(len(known), max(slot, rate_limit.slot_at(now, rate, known)))
            slot = topology.world_size + channel.count("attach again")
            start += error.retry_after
        except RequestRefusedError as error:
            if error.status == 404 and outcome.answer is not None:
                raise contradicted(context, outcome.answer.run_id) from error
            return None
        except TrackerError:
            return None  # the run exists without it: the owner created it
    return None


def _await_slot(context: RankContext, start: float, slot: int) -> tuple[int, ...] | None:
    """Wait until ``slot`` is due; the slowdowns known by then, or ``None`` if the rank's part ends before."""
    rate = context.plan.settings.attach_rate
    known: tuple[int, ...] = ()
    while True:
        left = start + rate_limit.due(slot, rate, known) - time.monotonic()
        if context.stop.wait(min(max(0.0, left), LONGEST_WAIT_SECONDS)):
            if (left := start + rate_limit.due(slot, rate, known) - time.monotonic()) > LATE_ATTACH_SECONDS:
                return None
            time.sleep(max(0.0, left))
            return known
        if (now_known := context.channel.slowdowns()) == known:
            return known
        known = now_known


def _attach_once(context: RankContext, outcome: Outcome, client: TrackerClient) -> CreateRunResponse:
    """One try; the next one has a slot of its own."""
    deadline, reference, request = time.monotonic() + REQUEST_SECONDS, context.agreed.reference, context.plan.request
    if reference.kind != "external id":
        return client.resume(resume_request(context.run_name), deadline=deadline, retry=False)
    name = request.run_name or reference.value
    project = outcome.answer.project_name if outcome.answer else request.project_name
    if project != request.project_name:  # from the store: a run that exists there, but no new one
        return client.resume(
            ResumeRunRequest(external_id=reference.value, project_name=project), deadline=deadline, retry=False
        )
    return client.create(CreateRunRequest(name, project, reference.value), deadline=deadline, retry=False)
