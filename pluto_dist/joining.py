"""How a run comes into being: the leader creates it with everything, the other ranks attach to it.

Functions, not state: each takes the :class:`Plan` of one ``init()`` and does one step over ``exchange`` and
``client``. They run in the run's own thread; what happens after is ``lifecycle``.

Why one create and then attaches (measured on the open-source server): ranks that race to create burn run
numbers, make a new project answer 500 to some of them, and keep the metadata of an arbitrary rank; an attach
that carries a config costs five times one without.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pluto_dist.client import Client
from pluto_dist.errors import (
    PlutoDistError,
    RequestRefusedError,
    RunCancelledError,
    RunExistsError,
    RunIdMismatchError,
    TrackerError,
    TrackerUnavailableError,
    UnexpectedAnswerError,
)
from pluto_dist.exchange import Exchange, Outcome, RunExchange, SignedId
from pluto_dist.gathering import cluster_document
from pluto_dist.identity import Decision, NeedsLaunchToken, Reference
from pluto_dist.inventory import to_text
from pluto_dist.launchers import LaunchContext
from pluto_dist.settings import Settings
from pluto_dist.version import __version__
from pluto_dist.wire import CreateRunRequest, CreateRunResponse, ResumeRunRequest, UpdateConfigRequest

WELCOME_SECONDS = 3.0  # how long a late node waits to hear that the leader is of its own attempt
ATTACH_SECONDS = 60.0  # how long a rank goes on trying to attach
LATE_ATTACH_SECONDS = 5.0  # how long finish() waits for this rank's turn to attach
_SLICE = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """What one ``init()`` set out to do.

    Attributes:
        settings: as the user set them.
        context: the launch.
        decision: the run's identity, or what must be agreed.
        request: the leader's create-run call, still without external id, metadata and default name.
        config: the user's config, a JSON object.
        nth: which ``init()`` of this attempt it is, counted from 1.
        host: this node's name.
        began: when ``init()`` was called, on the monotonic clock.
    """

    settings: Settings
    context: LaunchContext
    decision: Decision
    request: CreateRunRequest
    config: dict[str, Any]
    nth: int
    host: str
    began: float

    @property
    def deadline(self) -> float:
        """When every step must be over, so that ``init()`` returns within its timeout."""
        return self.began + self.settings.timeout * 0.95

    @property
    def is_leader(self) -> bool:
        return self.context.topology.is_leader


def agree(plan: Plan, exchange: Exchange, run: RunExchange) -> SignedId:
    """The id that every rank of the launch uses.

    Raises:
        RunIdMismatchError: this rank derived another one than the first rank to speak.
    """
    decision = plan.decision
    if isinstance(decision, NeedsLaunchToken):
        mine = Reference("external id", decision.external_id(exchange.token(), plan.nth))
    else:
        mine = decision.reference
    signed = run.sign_id(mine, decision.source)
    if signed.reference == mine:
        return signed
    rank = plan.context.topology.rank
    error = RunIdMismatchError(
        "ranks of one launch name different runs:\n"
        f"  rank {signed.rank} on {signed.host}: {signed.reference.value!r} from {signed.source}\n"
        f"  rank {rank} on {plan.host}: {mine.value!r} from {decision.source}\n"
        "Give every rank the same run_id and PLUTO_RUN_ID (or none), and every node the same --rdzv-id."
    )
    run.publish_outcome(Outcome("error", error=type(error).__name__, message=str(error)))
    raise error


def lead(
    plan: Plan,
    exchange: Exchange,
    run: RunExchange,
    signed: SignedId,
    client: Client | None,
    gathered: dict[str, dict[str, Any]],
) -> Outcome:
    """Create the run and tell the others; what was told first, where another rank was faster."""
    before = run.begun_before()
    if client is None:
        outcome = Outcome("offline", message=_why_offline(plan.settings))
    else:
        metadata = cluster_document(plan.context.topology, gathered)
        try:
            answer = _create(plan, run, signed, client, before, metadata)
            outcome = Outcome("online", answer, resumed=answer.resumed or bool(before))
        except (TrackerUnavailableError, UnexpectedAnswerError) as error:
            outcome = Outcome("offline", message=str(error))
        except PlutoDistError as error:
            outcome = Outcome("error", error=type(error).__name__, message=str(error))
    for node in exchange.nodes():
        exchange.welcome(node)
    outcome = run.publish_outcome(outcome)
    if outcome.answer is not None:
        run.began(outcome.answer.run_id)
    return outcome


def _create(
    plan: Plan,
    run: RunExchange,
    signed: SignedId,
    client: Client,
    before: int | None,
    metadata: dict[str, Any],
) -> CreateRunResponse:
    deadline, existing = plan.deadline, signed.reference
    if before and client.status(before, deadline=deadline) == "CANCELLED":
        raise RunCancelledError(
            f"run {before} was cancelled in the tracker; a restart does not revive it.\n"
            "Start a new launch for a new run, or set the run's status to RUNNING in the tracker."
        )
    if plan.settings.resume is False and before is None and existing.kind == "external id":
        _refuse_existing(plan, existing, client)
    if before is None:
        run.began(0)  # from here on the run may exist, whatever becomes of this rank
    if existing.kind != "external id":
        return _continue(plan, existing, client)
    config = {**plan.config, "pluto_dist": _provenance(plan, signed)}
    return client.create(
        replace(
            plan.request,
            run_name=plan.request.run_name or existing.value,
            external_id=existing.value,
            config=json.dumps(config, allow_nan=False),
            system_metadata=to_text(metadata),
        ),
        deadline=deadline,
    )


def _continue(plan: Plan, reference: Reference, client: Client) -> CreateRunResponse:
    """Attach to a run that exists by its number or display id; its metadata stays, the config is merged."""
    answer = client.resume(resume_request(plan, reference), deadline=plan.deadline)
    if plan.config:
        merged = UpdateConfigRequest(answer.run_id, json.dumps(plan.config, allow_nan=False))
        client.update_config(merged, deadline=plan.deadline)
    return answer


def _refuse_existing(plan: Plan, reference: Reference, client: Client) -> None:
    try:
        found = client.resume(resume_request(plan, reference), deadline=plan.deadline)
    except RequestRefusedError as error:
        if error.status == 404:
            return
        raise
    raise RunExistsError(
        f"resume=False, and run {found.display_id} of project {found.project_name!r} already has the id "
        f"{reference.value!r}.\nPass resume=True to go on with it, or another run_id."
    )


def resume_request(plan: Plan, reference: Reference) -> ResumeRunRequest:
    """How ``reference`` is named to ``/api/runs/resume``."""
    project = plan.request.project_name
    if reference.kind == "number":
        return ResumeRunRequest(run_id=int(reference.value))
    if reference.kind == "display id":
        return ResumeRunRequest(display_id=reference.value, project_name=project)
    return ResumeRunRequest(external_id=reference.value, project_name=project)


def follow(plan: Plan, exchange: Exchange, run: RunExchange, take_over: Callable[[], Outcome]) -> Outcome | None:
    """The leader's word, or this rank's own where the leader stays silent.

    Returns:
        The outcome; ``None`` where the attempt that this rank signed in to turns out to be over.
    """
    patience = plan.began + plan.settings.timeout * 0.6
    while (outcome := run.outcome(_SLICE)) is None:
        now = time.monotonic()
        if exchange.is_over():
            return None
        if now > plan.deadline:
            silent = f"no rank answered within {plan.settings.timeout:.0f} s; is rank 0 calling init()?"
            return run.publish_outcome(Outcome("offline", message=silent))
        if now > patience and not run.claimed("leader") and run.claim("taker"):
            return take_over()
    # A node that signed in before any other node of a new attempt may have met the old attempt's answer.
    # Only the leader's node and launches whose store ends with the attempt are sure without being told.
    if plan.context.store_address is not None and plan.context.topology.node_rank != 0:
        until = min(time.monotonic() + WELCOME_SECONDS, plan.deadline)
        while not exchange.await_welcome(_SLICE) and time.monotonic() < until:
            if exchange.is_over():
                return None
    return outcome


def attach(
    plan: Plan, run: RunExchange, signed: SignedId, outcome: Outcome, client: Client, stop: threading.Event
) -> CreateRunResponse | None:
    """This rank's own create-run call, with the id alone; the answer, or ``None`` where it was dropped.

    The whole job attaches at ``attach_rate``: each rank waits for its turn. An attach to a finished run would
    revive it, so each is counted before it looks whether the run is closed; who closes waits for the count.
    """
    due = time.monotonic() + plan.context.topology.rank / plan.settings.attach_rate
    if stop.wait(due - time.monotonic()):
        left = due - time.monotonic()
        if left > LATE_ATTACH_SECONDS:
            return None
        time.sleep(max(0.0, left))
    run.count("attach begun")
    try:
        if run.claimed("closed"):
            return None
        deadline = time.monotonic() + ATTACH_SECONDS
        if signed.reference.kind != "external id":
            return client.resume(resume_request(plan, signed.reference), deadline=deadline)
        name = plan.request.run_name or signed.reference.value
        project = outcome.answer.project_name if outcome.answer else plan.request.project_name
        return client.create(CreateRunRequest(name, project, signed.reference.value), deadline=deadline)
    except TrackerError:
        return None  # the run is there without it: the leader created it
    finally:
        run.count("attach over")


def _provenance(plan: Plan, signed: SignedId) -> dict[str, Any]:
    return {
        "version": __version__,
        "launcher": plan.context.launcher,
        "world_size": plan.context.topology.world_size,
        "run_id": signed.reference.value,
        "run_id_source": signed.source,
    }


def _why_offline(settings: Settings) -> str:
    if settings.mode == "offline":
        return "mode is offline"
    return "no API key: set PLUTO_API_KEY to record the run in a tracker"
