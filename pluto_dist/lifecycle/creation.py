"""Creation of the run: one create-run call that carries the config and the metadata of all nodes.

Before it, whether a run of this id exists and may be continued; after it, whether another launch came at the same time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pluto_dist.client.claims import host_of, in_use
from pluto_dist.client.lookup import is_run, look_up, set_back
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract import attempts, claims, hardware
from pluto_dist.contract.failure import Failure
from pluto_dist.contract.run_ref import resume_request
from pluto_dist.contract.run_requests import (
    PRECEDENCE,
    CreateRunRequest,
    CreateRunResponse,
    RunState,
    UpdateConfigRequest,
)
from pluto_dist.errors import RunExistsError, TrackerError, TrackerUnavailableError
from pluto_dist.identity import Named
from pluto_dist.inventory.report import attempt as report
from pluto_dist.inventory.report.document import to_text
from pluto_dist.lifecycle.context import RankContext
from pluto_dist.lifecycle.inventory_gather import in_order
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.lifecycle.resume import await_grant, cancelled, refuse_cancelled
from pluto_dist.log import logger
from pluto_dist.rendezvous.messages import AgreedId, PriorAttempt
from pluto_dist.version import __version__


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

    @classmethod
    def of(cls, context: RankContext, metadata: dict[str, Any] | None) -> CreationContext:
        """What the rank knows by now, without waiting for others.

        Raises:
            ExchangeError: the store is lost.
        """
        membership, channel = context.membership, context.channel
        return cls(
            context.agreed,
            launch=membership.token,
            key=channel.attempt_key(attempts.key(time.time(), context.plan.host)),
            hosts=in_order(membership.nodes()),
            prior=channel.prior_attempt(),
            failure=membership.last_failure(),
            metadata=metadata,
        )


def create(context: RankContext, creation: CreationContext, client: TrackerClient) -> CreateRunResponse:
    """Create the run, or continue it.

    Raises:
        RunError: it exists, and may not be continued.
        TrackerError: the tracker's answer is not a run.
    """
    plan = context.plan
    if creation.agreed.reference.kind != "external id":
        return _attach_by_reference(context, creation, client)
    known = _known_state(context, creation, client)
    request = create_request(plan, creation, known, client.clock_offset)
    if plan.fork_of:
        parent = client.number_of(plan.fork_of, request.project_name, deadline=plan.deadline)
        request = replace(request, fork_run_id=parent)
    with _not_after_the_end(context):
        if creation.prior is None:
            context.channel.begin()
        began = client.server_time
        answer = client.create(request, deadline=plan.deadline)
    if answer.resumed and known is None:
        _refuse_cancelled_run(plan, creation, client, answer, began)
    if answer.resumed and creation.prior is None and plan.continues_job:
        _yield_to_twin(plan, creation, client, answer, known)
    if answer.resumed and known is None:
        _record_in_existing(plan, creation, client, answer)
    return answer


@contextmanager
def _not_after_the_end(context: RankContext) -> Iterator[None]:
    """The block creates the run, unless another rank has created, refused or ended it; the end waits for the block.

    Raises:
        TrackerUnavailableError: another rank has.
        AttemptOverError: another node has opened a later attempt.
    """
    with context.channel.attaching() as is_open:
        if not is_open or context.channel.outcome() is not None:
            raise TrackerUnavailableError("another rank has created the run, or this attempt has ended")
        context.membership.stay()
        yield


def create_request(
    plan: Plan, creation: CreationContext, known: RunState | None = None, clock_offset: float = 0.0
) -> CreateRunRequest:
    """The create-run call with everything.

    Args:
        plan: what ``init()`` decided.
        creation: what this rank knows.
        known: the run as the tracker has it, if that is known.
        clock_offset: seconds by which the tracker's clock is ahead of this host's, if that is known.
    """
    reference = creation.agreed.reference
    config = {**plan.config, "pluto_dist": _provenance(plan, creation, known, clock_offset)}
    return replace(
        plan.request,
        run_name=plan.request.run_name or reference.value,
        external_id=reference.value if reference.kind == "external id" else None,
        config=json.dumps(config, allow_nan=False),
        system_metadata=None if creation.metadata is None else to_text(creation.metadata),
    )


def _known_state(context: RankContext, creation: CreationContext, client: TrackerClient) -> RunState | None:
    """The run as the tracker has it; ``None`` for a new one."""
    plan, name = context.plan, context.run_name
    if creation.prior is not None and creation.prior.run_id is not None:
        return _own_state(context, creation.prior.run_id, client)
    if creation.prior is None and not isinstance(plan.decision, Named):
        return None
    if not (plan.continues_job or plan.settings.resume is False):  # the user's own id: whoever has it shares the run
        found = client.find(name.reference.value, name.project, deadline=plan.deadline)
    else:
        with _not_after_the_end(context):  # what is found only by resuming it is RUNNING for a moment
            found = look_up(client, name, deadline=plan.deadline)
    if found is None:
        return None
    records = attempts.recorded(found.config)
    if creation.key in records or (creation.prior is not None and attempts.has_launch(records, creation.launch)):
        # Another rank of this launch created it, or an earlier attempt whose answer was lost.
        refuse_cancelled(found)
        twins = attempts.twins(records, creation.launch) if plan.continues_job else []
        if not twins:
            return found
        _take_back(plan, twins, client, found.run_id)  # it ended before it could leave the run to another launch
    if plan.settings.resume is False:
        raise RunExistsError(
            f"resume=False, and run {found.display_id} of project {name.project!r} already has the id "
            f"{name.reference.value!r}.\nPass resume=True to go on with it, or another run_id."
        )
    refuse_cancelled(found)
    return await_grant(context, client, found) if plan.continues_job else found


def _own_state(context: RankContext, run_id: int, client: TrackerClient) -> RunState | None:
    """The run of this launch's earlier attempt, unless it was cancelled; ``None`` if the store names another run."""
    state = client.details(run_id, deadline=context.plan.deadline)
    if state is None or not is_run(state, context.run_name):
        return None
    refuse_cancelled(state)
    return state


def _refuse_cancelled_run(
    plan: Plan, creation: CreationContext, client: TrackerClient, answer: CreateRunResponse, began: float
) -> None:
    """Leave a run that was cancelled, which is known only now: it was not found before, or was cancelled since.

    Raises:
        RunCancelledError: it was, and is again.
    """
    events = client.status_history(answer.run_id, deadline=plan.deadline)
    if events and (events[-1].from_status, events[-1].to_status) == ("CANCELLED", "RUNNING"):
        set_back(client, answer.run_id, began, plan.deadline)
        _take_back(plan, [creation.key], client, answer.run_id)
        raise cancelled(answer.display_id)


def _take_back(plan: Plan, keys: Iterable[str], client: TrackerClient, run_id: int) -> None:
    """Remove the records of these attempts from a run that turned out not to be their launch's."""
    taken_back = json.dumps({"pluto_dist": {attempts.FIELD: dict.fromkeys(keys)}})
    client.update_config(UpdateConfigRequest(run_id, taken_back), deadline=plan.deadline)


def _yield_to_twin(
    plan: Plan, creation: CreationContext, client: TrackerClient, answer: CreateRunResponse, known: RunState | None
) -> None:
    """Leave the run to another launch of the job that created it at the same time, and remove this one's record.

    If the run is new (``known`` is ``None``), the other launch created it; else the one with the later key leaves. A
    run that the other launch has ended by then is gone on with.
    """
    state = client.details(answer.run_id, deadline=plan.deadline)
    records = {} if state is None else attempts.recorded(state.config)
    before = {} if known is None else attempts.recorded(known.config)
    others = {
        key: record
        for key, record in records.items()
        if isinstance(record, dict)
        and key not in before
        and record.get("launch") != creation.launch
        and (known is None or key < creation.key)
    }
    if known is None and _was_woken(plan, client, answer.run_id):
        return
    if state is not None and (last := attempts.newest(others)):
        _take_back(plan, [creation.key], client, answer.run_id)
        raise in_use(state, host_of(last))


def _was_woken(plan: Plan, client: TrackerClient, run_id: int) -> bool:
    """Whether the run had ended, and is RUNNING since."""
    events = client.status_history(run_id, deadline=plan.deadline)
    return bool(events) and events[-1].to_status == "RUNNING" and events[-1].from_status in PRECEDENCE


def _record_in_existing(
    plan: Plan, creation: CreationContext, client: TrackerClient, answer: CreateRunResponse
) -> None:
    """Write the attempt's record again in a run that turned out to exist: after its earlier ones, with the hardware.

    Everything is sent again, because the hosted tracker may not have merged yet what came with the create-run call.
    """
    try:
        state = client.details(answer.run_id, deadline=plan.deadline)
        if state is not None:
            again = create_request(plan, creation, state, client.clock_offset)
            client.update_config(UpdateConfigRequest(answer.run_id, again.config or "{}"), deadline=plan.deadline)
    except TrackerError as error:
        logger.debug("the hardware of this launch is not in the record of run %s: %s", answer.run_id, error)


def _attach_by_reference(context: RankContext, creation: CreationContext, client: TrackerClient) -> CreateRunResponse:
    """Attach to a run by its number or display id; its metadata stays, the config is merged."""
    plan, reference = context.plan, creation.agreed.reference
    if reference.kind == "number":
        number = reference.number
    else:
        number = client.number_of(reference.value, context.run_name.project, deadline=plan.deadline)
    known = client.details(number, deadline=plan.deadline)
    if known is not None:
        refuse_cancelled(known)
    with _not_after_the_end(context):
        answer = client.resume(resume_request(context.run_name), deadline=plan.deadline)
        context.channel.begin()
    merged = UpdateConfigRequest(
        answer.run_id, create_request(plan, creation, known, client.clock_offset).config or "{}"
    )
    client.update_config(merged, deadline=plan.deadline)
    return answer


def _provenance(plan: Plan, creation: CreationContext, known: RunState | None, clock_offset: float) -> dict[str, Any]:
    """What this package writes into the run's config: the source of the id, and the record of this attempt."""
    topology, earlier = plan.topology, {} if known is None else attempts.recorded(known.config)
    earlier = {key: entry for key, entry in earlier.items() if key != creation.key}
    attempt = attempts.Attempt(
        launch=creation.launch,
        started=time.time() + clock_offset - (time.monotonic() - plan.started),
        world_size=topology.world_size,
        hosts=creation.hosts,
        heartbeat=plan.settings.heartbeat,
        missing=max(0, (topology.node_count or 0) - len(creation.hosts)),
        failure=None if creation.failure is None else creation.failure.summary(),
        gpus=_gpus(creation.metadata or {}),
    )
    record = attempts.record(earlier, attempt)
    if known is not None and creation.metadata is not None:  # else it is the run's systemMetadata
        record[hardware.FIELD] = report.hardware(creation.metadata, known.system_metadata, earlier)
    ours = {
        "version": __version__,
        "launcher": plan.context.launcher,
        "world_size": topology.world_size,
        "run_id": creation.agreed.reference.value,
        "run_id_source": creation.agreed.source,
        attempts.FIELD: {creation.key: record},
    }
    has_claim = known is not None and creation.launch in claims.recorded(known.config)
    return {**ours, **claims.withdraw(creation.launch)} if has_claim else ours


def _gpus(document: dict[str, Any]) -> dict[str, list[str]]:
    """The UUIDs of each host's GPUs in a cluster document; a truncated one has none."""
    nodes = [node for node in document.get("nodes", ()) if node.get("gpus")]
    return {node["host"]: node["gpus"] for node in nodes}
