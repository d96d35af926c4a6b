"""Creation of the run: one create-run call that carries the config and the metadata of all nodes.

Before it, whether a run of this id exists and may be continued; after it, whether another launch came at the same time.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import Any

from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract import attempts
from pluto_dist.contract.failure import Failure
from pluto_dist.contract.run_ref import resume_request
from pluto_dist.contract.run_requests import (
    CreateRunRequest,
    CreateRunResponse,
    ResumeRunRequest,
    RunState,
    UpdateConfigRequest,
)
from pluto_dist.errors import RequestRefusedError, RunCancelledError, RunExistsError, RunInUseError
from pluto_dist.identity import Named
from pluto_dist.inventory.report.document import to_text
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.rendezvous.messages import AgreedId, PriorAttempt
from pluto_dist.version import __version__

TWIN_SECONDS = 2.0  # how long after its own record a launch looks for another launch's
MISSED_HEARTBEATS = 1.5  # a launch that was silent for so many of its heartbeats, and 2 s, has ended


@dataclass(frozen=True, slots=True)
class CreationContext:
    """What the rank that creates the run knows.

    Attributes:
        agreed: the run's id.
        launch: the launch's token.
        key: of this attempt's record in the config.
        hosts: of the nodes that have registered, in order of their numbers.
        prior: what an earlier attempt of this launch recorded.
        failure: why that attempt ended; ``None`` if no rank recorded it.
        metadata: the cluster document; ``None`` if the user wants none.
    """

    agreed: AgreedId
    launch: str
    key: str
    hosts: tuple[str, ...]
    prior: PriorAttempt | None
    failure: Failure | None
    metadata: dict[str, Any] | None


def create(plan: Plan, creation: CreationContext, client: TrackerClient) -> CreateRunResponse:
    """Create the run, or continue it.

    Raises:
        RunError: it exists, and may not be continued.
        TrackerError: the tracker's answer is not a run.
    """
    reference = creation.agreed.reference
    if reference.kind != "external id":
        return _attach_by_reference(plan, creation, client)
    known = _known_state(plan, creation, client)
    request = create_request(plan, creation, known)
    if plan.fork_of:
        parent = client.number_of(plan.fork_of, request.project_name, deadline=plan.deadline)
        request = replace(request, fork_run_id=parent)
    answer = client.create(request, deadline=plan.deadline)
    if answer.resumed and creation.prior is None and _continues(plan):
        _yield_to_twin(plan, creation, client, answer, created_by_twin=known is None)
    return answer


def create_request(plan: Plan, creation: CreationContext, known: RunState | None = None) -> CreateRunRequest:
    """The create-run call with everything; ``known`` is the run as the tracker has it, if that is known."""
    reference = creation.agreed.reference
    config = {**plan.config, "pluto_dist": _provenance(plan, creation, known)}
    return replace(
        plan.request,
        run_name=plan.request.run_name or reference.value,
        external_id=reference.value if reference.kind == "external id" else None,
        config=json.dumps(config, allow_nan=False),
        system_metadata=None if creation.metadata is None else to_text(creation.metadata),
    )


def _continues(plan: Plan) -> bool:
    """Whether this launch continues the run of its job, in which another launch may be alive."""
    return isinstance(plan.decision, Named) and plan.decision.derived


def _known_state(plan: Plan, creation: CreationContext, client: TrackerClient) -> RunState | None:
    """The run as the tracker has it; ``None`` for a new one."""
    if creation.prior is not None:
        return _own_state(plan, creation.prior, client)
    if not isinstance(plan.decision, Named) or not (_continues(plan) or plan.settings.resume is False):
        return None
    try:
        found = client.resume(_resume_request(plan, creation), deadline=plan.deadline)
    except RequestRefusedError as error:
        if error.status == 404:
            return None
        raise
    if plan.settings.resume is False:
        raise RunExistsError(
            f"resume=False, and run {found.display_id} of project {found.project_name!r} already has the id "
            f"{creation.agreed.reference.value!r}.\nPass resume=True to go on with it, or another run_id."
        )
    return _silent_state(plan, found, client, resumed_at=client.server_time)


def _own_state(plan: Plan, prior: PriorAttempt, client: TrackerClient) -> RunState | None:
    """The run of this launch's earlier attempt, unless it was cancelled."""
    if prior.run_id is None:
        return None
    state = client.details(prior.run_id, deadline=plan.deadline)
    if state is not None and state.status == "CANCELLED":
        raise RunCancelledError(
            f"run {prior.run_id} was cancelled in the tracker; a restart does not revive it.\n"
            "Start a new launch for a new run, or set the run's status to RUNNING in the tracker."
        )
    return state


def _silent_state(plan: Plan, found: CreateRunResponse, client: TrackerClient, resumed_at: float) -> RunState | None:
    """The run's state, once no other launch sends heartbeats for it.

    A run that the resume request brought back to RUNNING had ended. In another, a launch may have been killed without
    ending the run: its heartbeats show that, by the tracker's own clock. If the tracker shows none (the hosted one,
    2026), only a run that has just changed is known to be alive.
    """
    first: float | None = None
    while True:
        state = client.details(found.run_id, deadline=plan.deadline)
        if state is None or state.last_sign is None:
            return state
        woken = state.status_updated if (state.status_updated or 0.0) >= resumed_at - 1 else None
        if woken is not None and state.last_sign <= woken:
            return state  # it had ended; only this launch has changed it since
        last = attempts.newest(attempts.recorded(state.config)) or {}
        beat = last.get("heartbeat")
        interval = beat if isinstance(beat, (int, float)) else plan.settings.heartbeat
        age = client.server_time - state.last_sign
        left = MISSED_HEARTBEATS * interval + 2 - age
        if left <= 0:
            return state
        first = first or state.last_sign
        if woken or state.last_sign > first or time.monotonic() + min(left, 1.0) > plan.deadline:
            raise _in_use(found, age, last)
        client.pause(min(left, 1.0))


def _in_use(found: CreateRunResponse, age: float, last: dict[str, Any]) -> RunInUseError:
    host = next(iter(last.get("hosts") or ()), "an unknown host")
    return RunInUseError(
        f"resume: another launch of this job is alive in run {found.display_id} (on {host}; its last sign of life "
        f"is {max(0.0, age):.0f} s old), and two trainings in one run cannot be told apart again.\n"
        "End that launch first, omit resume for a run of its own, or set another PLUTO_RUN_ID."
    )


def _yield_to_twin(
    plan: Plan, creation: CreationContext, client: TrackerClient, answer: CreateRunResponse, *, created_by_twin: bool
) -> None:
    """Leave the run to another launch of the job that came at the same time, and remove this one's record from it.

    Two launches that continue a run within a second may each conclude that the run had ended. Both have recorded an
    attempt by the time they check again, and the one with the later key leaves.
    """
    if not created_by_twin:
        client.pause(min(TWIN_SECONDS, max(0.0, plan.deadline - time.monotonic())))
    state = client.details(answer.run_id, deadline=plan.deadline)
    records = {} if state is None else attempts.recorded(state.config)
    mine = records.get(creation.key) or {}
    others = {
        key: record
        for key, record in records.items()
        if isinstance(record, dict)
        and record.get("launch") != creation.launch
        and (created_by_twin or (record.get("number") == mine.get("number") and key < creation.key))
    }
    if last := attempts.newest(others):
        taken_back = json.dumps({"pluto_dist": {attempts.FIELD: {creation.key: None}}})
        client.update_config(UpdateConfigRequest(answer.run_id, taken_back), deadline=plan.deadline)
        raise _in_use(answer, 0.0, last)


def _attach_by_reference(plan: Plan, creation: CreationContext, client: TrackerClient) -> CreateRunResponse:
    """Attach to a run by its number or display id; its metadata stays, the config is merged."""
    answer = client.resume(_resume_request(plan, creation), deadline=plan.deadline)
    known = client.details(answer.run_id, deadline=plan.deadline)
    merged = UpdateConfigRequest(answer.run_id, create_request(plan, creation, known).config)
    client.update_config(merged, deadline=plan.deadline)
    return answer


def _resume_request(plan: Plan, creation: CreationContext) -> ResumeRunRequest:
    return resume_request(plan.run_name(creation.agreed.reference))


def _provenance(plan: Plan, creation: CreationContext, known: RunState | None) -> dict[str, Any]:
    """What this package writes into the run's config: the source of the id, and the record of this attempt."""
    topology, earlier = plan.topology, {} if known is None else attempts.recorded(known.config)
    attempt = attempts.Attempt(
        launch=creation.launch,
        started=time.time() - (time.monotonic() - plan.started),
        world_size=topology.world_size,
        hosts=creation.hosts,
        heartbeat=plan.settings.heartbeat,
        missing=max(0, (topology.node_count or 0) - len(creation.hosts)),
        failure=None if creation.failure is None else creation.failure.summary(),
        gpus=_gpus(creation.metadata or {}),
    )
    return {
        "version": __version__,
        "launcher": plan.context.launcher,
        "world_size": topology.world_size,
        "run_id": creation.agreed.reference.value,
        "run_id_source": creation.agreed.source,
        attempts.FIELD: {creation.key: attempts.record(earlier, attempt)},
    }


def _gpus(document: dict[str, Any]) -> dict[str, list[str]]:
    """The UUIDs of each host's GPUs in a cluster document; a truncated one has none."""
    nodes = [node for node in document.get("nodes", ()) if node.get("gpus")]
    return {node["host"]: node["gpus"] for node in nodes}
