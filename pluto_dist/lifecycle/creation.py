"""How the leader brings the run into being: one create-run call that carries everything.

Also what must be known before it: whether a run of this id exists and may be gone on with. Functions over
``client``; what the other ranks do meanwhile is ``joining``, what an attempt's record holds ``attempts``.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import Any

from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract import attempts
from pluto_dist.contract.run_ref import Reference, RunName, resume_request
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
from pluto_dist.rendezvous.messages import AgreedId, Failure, PriorAttempt
from pluto_dist.version import __version__

TWIN_SECONDS = 2.0  # how long after its own record a launch looks for that of another one
MISSED_BEATS = 1.5  # a launch that was silent for this many of its heartbeats, and 2 s, lives no more


@dataclass(frozen=True, slots=True)
class CreationContext:
    """What the leader knows when it creates the run.

    Attributes:
        signed: the agreed id.
        launch: the launch's token.
        key: under which this attempt is recorded.
        hosts: the nodes that signed in, in order of their numbers.
        before: what an earlier attempt of this launch left.
        failure: why it ended, if a rank said so.
        metadata: the cluster document, where there is to be one.
    """

    signed: AgreedId
    launch: str
    key: str
    hosts: tuple[str, ...]
    before: PriorAttempt | None
    failure: Failure | None
    metadata: dict[str, Any] | None


def create(plan: Plan, birth: CreationContext, client: TrackerClient) -> CreateRunResponse:
    """Create the run, or go on with it.

    Raises:
        RunError: it exists, and may not be gone on with.
        TrackerError: the tracker's answer is no run.
    """
    reference = birth.signed.reference
    if reference.kind != "external id":
        return _continue(plan, birth, client)
    known = _known_state(plan, birth, client)
    request = create_request(plan, birth, known)
    if plan.fork_of:
        parent = client.number_of(plan.fork_of, request.project_name, deadline=plan.deadline)
        request = replace(request, fork_run_id=parent)
    answer = client.create(request, deadline=plan.deadline)
    if answer.resumed and birth.before is None and _goes_on(plan):
        _step_back_from_twin(plan, birth, client, answer, created_by_twin=known is None)
    return answer


def create_request(plan: Plan, birth: CreationContext, known: RunState | None = None) -> CreateRunRequest:
    """The call that carries everything; ``known`` is the run as the tracker has it, where that can be known."""
    reference = birth.signed.reference
    config = {**plan.config, "pluto_dist": _provenance(plan, birth, known)}
    return replace(
        plan.request,
        run_name=plan.request.run_name or reference.value,
        external_id=reference.value if reference.kind == "external id" else None,
        config=json.dumps(config, allow_nan=False),
        system_metadata=None if birth.metadata is None else to_text(birth.metadata),
    )


def run_name(plan: Plan, reference: Reference) -> RunName:
    """The run that ``reference`` names, of the tracker and in the project that this launch is set to."""
    return RunName(plan.settings.url_api, plan.request.project_name, reference)


def _goes_on(plan: Plan) -> bool:
    """Whether this launch goes on with a run by the name of its job, which another launch may be in."""
    return isinstance(plan.decision, Named) and plan.decision.derived


def _known_state(plan: Plan, birth: CreationContext, client: TrackerClient) -> RunState | None:
    """The run as the tracker has it, where it exists; ``None`` for a new one."""
    if birth.before is not None:
        return _own_state(plan, birth.before, client)
    if not isinstance(plan.decision, Named) or not (_goes_on(plan) or plan.settings.resume is False):
        return None
    try:
        found = client.resume(_resume_request(plan, birth), deadline=plan.deadline)
    except RequestRefusedError as error:
        if error.status == 404:
            return None
        raise
    if plan.settings.resume is False:
        raise RunExistsError(
            f"resume=False, and run {found.display_id} of project {found.project_name!r} already has the id "
            f"{birth.signed.reference.value!r}.\nPass resume=True to go on with it, or another run_id."
        )
    return _silent_state(plan, found, client, resumed_at=client.server_time)


def _own_state(plan: Plan, before: PriorAttempt, client: TrackerClient) -> RunState | None:
    """The run of this launch's earlier attempt, unless somebody cancelled it."""
    if before.run_id is None:
        return None
    state = client.details(before.run_id, deadline=plan.deadline)
    if state is not None and state.status == "CANCELLED":
        raise RunCancelledError(
            f"run {before.run_id} was cancelled in the tracker; a restart does not revive it.\n"
            "Start a new launch for a new run, or set the run's status to RUNNING in the tracker."
        )
    return state


def _silent_state(plan: Plan, found: CreateRunResponse, client: TrackerClient, resumed_at: float) -> RunState | None:
    """The run's state, once no other launch gives signs of life in it.

    A run that asking for it brought back to RUNNING had ended. Another may have been killed without a word: its
    heartbeats tell, by the tracker's own clock. Where the tracker shows none (the hosted one, 2026), only a run
    that changed a moment ago is known to be alive.
    """
    first: float | None = None
    while True:
        state = client.details(found.run_id, deadline=plan.deadline)
        if state is None or state.last_sign is None:
            return state
        woken = state.status_updated if (state.status_updated or 0.0) >= resumed_at - 1 else None
        if woken is not None and state.last_sign <= woken:
            return state  # it had ended; nobody but this launch has touched it since
        last = attempts.newest(attempts.recorded(state.config)) or {}
        beat = last.get("heartbeat")
        interval = beat if isinstance(beat, (int, float)) else plan.settings.heartbeat
        age = client.server_time - state.last_sign
        left = MISSED_BEATS * interval + 2 - age
        if left <= 0:
            return state
        first = first or state.last_sign
        if woken or state.last_sign > first or time.monotonic() + min(left, 1.0) > plan.deadline:
            raise _in_use(found, age, last)
        client.pause(min(left, 1.0))


def _in_use(found: CreateRunResponse, age: float, last: dict[str, Any]) -> RunInUseError:
    host = next(iter(last.get("hosts") or ()), "a host unknown")
    return RunInUseError(
        f"resume: another launch of this job is alive in run {found.display_id} (on {host}; its last sign of life "
        f"is {max(0.0, age):.0f} s old), and two trainings in one run cannot be told apart again.\n"
        "End that launch first, leave resume away for a run of your own, or set another PLUTO_RUN_ID."
    )


def _step_back_from_twin(
    plan: Plan, birth: CreationContext, client: TrackerClient, answer: CreateRunResponse, *, created_by_twin: bool
) -> None:
    """Leave the run to another launch of the job that came at the same moment; nothing of this one stays in it.

    Two that go on with a run within a second may each believe that it was they who woke it. Both have left a record
    by the time they look again, and the one with the later key steps back.
    """
    if not created_by_twin:
        client.pause(min(TWIN_SECONDS, max(0.0, plan.deadline - time.monotonic())))
    state = client.details(answer.run_id, deadline=plan.deadline)
    records = {} if state is None else attempts.recorded(state.config)
    mine = records.get(birth.key) or {}
    others = {
        key: record
        for key, record in records.items()
        if isinstance(record, dict)
        and record.get("launch") != birth.launch
        and (created_by_twin or (record.get("number") == mine.get("number") and key < birth.key))
    }
    if last := attempts.newest(others):
        taken_back = json.dumps({"pluto_dist": {attempts.FIELD: {birth.key: None}}})
        client.update_config(UpdateConfigRequest(answer.run_id, taken_back), deadline=plan.deadline)
        raise _in_use(answer, 0.0, last)


def _continue(plan: Plan, birth: CreationContext, client: TrackerClient) -> CreateRunResponse:
    """Attach to a run that exists by its number or display id; its metadata stays, the config is merged."""
    answer = client.resume(_resume_request(plan, birth), deadline=plan.deadline)
    known = client.details(answer.run_id, deadline=plan.deadline)
    merged = UpdateConfigRequest(answer.run_id, create_request(plan, birth, known).config)
    client.update_config(merged, deadline=plan.deadline)
    return answer


def _resume_request(plan: Plan, birth: CreationContext) -> ResumeRunRequest:
    return resume_request(run_name(plan, birth.signed.reference))


def _provenance(plan: Plan, birth: CreationContext, known: RunState | None) -> dict[str, Any]:
    """What this package writes into the run's config: where the id is from, and the record of this attempt."""
    topology = plan.context.topology
    attempt = attempts.record(
        {} if known is None else attempts.recorded(known.config),
        launch=birth.launch,
        started=time.time() - (time.monotonic() - plan.began),
        world_size=topology.world_size,
        hosts=birth.hosts,
        heartbeat=plan.settings.heartbeat,
        missing=max(0, (topology.node_count or 0) - len(birth.hosts)),
        failure=None if birth.failure is None else birth.failure.to_json(),
        gpus=_gpus(birth.metadata or {}),
    )
    return {
        "version": __version__,
        "launcher": plan.context.launcher,
        "world_size": topology.world_size,
        "run_id": birth.signed.reference.value,
        "run_id_source": birth.signed.source,
        attempts.FIELD: {birth.key: attempt},
    }


def _gpus(document: dict[str, Any]) -> dict[str, list[str]]:
    """The UUIDs of each host's GPUs in a cluster document; one that was cut has none."""
    nodes = [node for node in document.get("nodes", ()) if node.get("gpus")]
    return {node["host"]: node["gpus"] for node in nodes}
