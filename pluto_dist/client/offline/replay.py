"""How what an outage kept reaches the tracker: in order, and to the same effect however often it is tried.

Each request is removed from the spool once the tracker has taken it. One that was taken and not yet removed when
its sender died is sent again, and changes nothing: a create with an external id finds its run, a config is merged
into itself, an end is told only where none of a graver kind, of a later attempt or of a person stands.
Both ``pluto-dist sync`` and the job itself send so; only one process at a time, by the run's lock.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from pluto_dist.client.offline.entry import Entry
from pluto_dist.client.offline.queue import RunQueue
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract import attempts
from pluto_dist.contract.run_ref import RunName, resume_request
from pluto_dist.contract.run_requests import (
    CreateRunRequest,
    CreateRunResponse,
    RunState,
    UpdateConfigRequest,
    UpdateStatusRequest,
)
from pluto_dist.errors import RequestRefusedError

_ENDS_BY_FAILURE = ("FAILED", "TERMINATED")


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of it.

    Attributes:
        answer: the tracker's, where the run was asked for.
        sent: how many requests the tracker took.
        notes: what somebody should know of them.
    """

    answer: CreateRunResponse | None
    sent: int
    notes: tuple[str, ...] = ()


def replay(spooled: RunQueue, client: TrackerClient, *, deadline: float) -> Replayed:
    """Send what is kept of one run; whoever calls holds its lock.

    Args:
        spooled: what is kept; a request that the tracker refuses for good is set aside.
        client: of the tracker that is to have it.
        deadline: on the monotonic clock.

    Raises:
        AuthenticationError, UnexpectedAnswerError, TrackerUnavailableError: the rest stays where it is.
    """
    known = _Known(spooled.name, client, deadline)
    sent, notes = 0, []
    for entry, file in spooled.entries():
        try:
            notes += _send(entry, known)
        except RequestRefusedError as error:
            if error.status == 404 and entry.kind != "create":
                notes.append(f"{entry.kind} kept: the tracker has no such run; what creates it is kept elsewhere")
                continue
            if file is None:
                notes.append(f"{entry.kind} given up: {error}")
                spooled.remove(entry, file)
            else:
                spooled.set_aside(file, error)
            continue
        spooled.remove(entry, file)
        sent += 1
    return Replayed(known.answer, sent, tuple(notes))


def attach(name: RunName, client: TrackerClient, *, deadline: float) -> CreateRunResponse:
    """The run, by its name alone; one that has ended runs again."""
    if name.reference.kind == "external id":
        request = CreateRunRequest(name.reference.value, name.project, name.reference.value)
        return client.create(request, deadline=deadline)
    return client.resume(resume_request(name), deadline=deadline)


class _Known:
    """What one replay has learnt of its run."""

    def __init__(self, name: RunName, client: TrackerClient, deadline: float) -> None:
        self.name, self.client, self.deadline = name, client, deadline
        self.answer: CreateRunResponse | None = None
        self.revived = False  # whether only asking for its number may have brought it back to RUNNING

    def run_id(self, told: int) -> int:
        """The tracker's number: as it was told at the time, else as it is now."""
        if told:
            return told
        if self.answer is None:
            self.answer = self.client.resume(resume_request(self.name), deadline=self.deadline)
            self.revived = True
        return self.answer.run_id

    def state(self, run_id: int) -> RunState | None:
        return self.client.details(run_id, deadline=self.deadline)


def _send(entry: Entry, known: _Known) -> list[str]:
    request = entry.request
    if isinstance(request, CreateRunRequest):
        _create(entry, request, known)
        return []
    run_id = known.run_id(int(request.run_id))
    if isinstance(request, UpdateStatusRequest):
        return _end(entry, replace(request, run_id=run_id), known)
    known.client.update_config(replace(request, run_id=run_id), deadline=known.deadline)
    return []


def _create(entry: Entry, request: CreateRunRequest, known: _Known) -> None:
    client, deadline = known.client, known.deadline
    if entry.run.reference.kind == "external id":
        request = replace(request, external_id=entry.run.reference.value)
        if entry.fork_of:
            parent = client.number_of(entry.fork_of, entry.run.project, deadline=deadline)
            request = replace(request, fork_run_id=parent)
        answer = client.create(request, deadline=deadline)
        config = None
    else:
        answer = client.resume(resume_request(entry.run), deadline=deadline)
        config = request.config
    known.answer = answer
    if answer.resumed:
        config = _numbered(entry, config or request.config, known.state(answer.run_id)) or config
    if config is not None:
        client.update_config(UpdateConfigRequest(answer.run_id, config), deadline=deadline)


def _numbered(entry: Entry, config: str | None, state: RunState | None) -> str | None:
    """The config with its attempt's record as the one that follows those that the tracker has; ``None`` as it was."""
    document: Any = json.loads(config or "{}")
    mine = attempts.recorded(document).get(entry.key)
    theirs = {} if state is None else attempts.recorded(state.config)
    after = None if mine is None else attempts.after({k: v for k, v in theirs.items() if k != entry.key}, mine)
    if after is None or after == mine:
        return None
    document["pluto_dist"][attempts.FIELD][entry.key] = after
    return json.dumps(document)


def _end(entry: Entry, request: UpdateStatusRequest, known: _Known) -> list[str]:
    """Tell the end, unless what stands there tells more."""
    client, deadline = known.client, known.deadline
    state = known.state(request.run_id)
    if state is None:
        raise RequestRefusedError(f"the tracker has no run {request.run_id}", 404)
    last = attempts.newest(attempts.recorded(state.config))
    if last is not None and last.get("launch") != entry.launch:
        return [f"{request.status} not told: a later launch has gone on with the run"]
    if state.status == "CANCELLED":
        return [f"{request.status} not told: the run was cancelled in the tracker"]
    cause = json.loads(request.status_metadata or "null")
    at = cause.get("at") if isinstance(cause, dict) else None
    theirs = state.status_metadata if _is_told(state.status_metadata) else None
    is_first = request.status in _ENDS_BY_FAILURE and at is not None and not earlier(theirs, at)
    if theirs is not None and not is_first:
        if state.status in _ENDS_BY_FAILURE:
            return [] if state.status == request.status else [f"{request.status} not told: {state.status} came first"]
        if known.revived:
            request = replace(request, status="FAILED", status_metadata=json.dumps(theirs))
    if state.status not in ("RUNNING", request.status):
        # The tracker ends a run that gave no sign of life for long (150 s, hosted); a lower end would not replace it.
        client.update_status(UpdateStatusRequest(request.run_id, "RUNNING"), deadline=deadline)
    client.update_status(request, deadline=deadline)
    return []


def _is_told(metadata: Any) -> bool:
    """Whether a job told why it ended; the tracker, which ends a silent run, tells nothing of this kind."""
    return isinstance(metadata, dict) and isinstance(metadata.get("reason"), str) and "host" in metadata


def earlier(recorded: Any, at: float) -> bool:
    """Whether the cause that a tracker has on record is no later than ``at`` (seconds since 1970)."""
    when = recorded.get("at") if isinstance(recorded, dict) else None
    return isinstance(when, (int, float)) and not isinstance(when, bool) and when <= at
