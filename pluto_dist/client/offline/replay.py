"""Sends the requests that wait on disk: in order, and with the same effect however often it is tried.

Each request is removed once the tracker has taken it. One that was taken but not removed when its sender died is sent
again, and changes nothing: a create with an external id finds its run, a config is merged into itself, an end is sent
only if the run has no graver end, none of a later attempt, and none by a person. ``pluto-dist sync`` and the job itself
send in this way, one process at a time, by the lock of the run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from pluto_dist.client.ending import report_end
from pluto_dist.client.offline.entry import Entry
from pluto_dist.client.offline.queue import RunQueue
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract import attempts, hardware
from pluto_dist.contract.failure import Failure, time_of
from pluto_dist.contract.run_ref import RunName, resume_request
from pluto_dist.contract.run_requests import (
    CreateRunRequest,
    CreateRunResponse,
    RunState,
    UpdateConfigRequest,
    UpdateStatusRequest,
)
from pluto_dist.errors import RequestRefusedError
from pluto_dist.inventory.report import attempt

_ENDS_BY_FAILURE = ("FAILED", "TERMINATED")


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result of a replay.

    Attributes:
        answer: the tracker's to the create or resume of the run; ``None`` if neither was sent.
        sent: how many requests the tracker took.
        notes: for the user, about requests that were not sent as they are.
    """

    answer: CreateRunResponse | None
    sent: int
    notes: tuple[str, ...] = ()


def replay(queue: RunQueue, client: TrackerClient, *, deadline: float) -> Replayed:
    """Send what is kept of one run, whose lock the caller holds.

    Args:
        queue: of the run; a request that the tracker refuses for good is set aside.
        client: of the tracker to send to.
        deadline: on the monotonic clock.

    Raises:
        AuthenticationError, UnexpectedAnswerError, TrackerUnavailableError: the rest stays where it is.
    """
    known = _Known(queue.name, client, deadline)
    sent, notes = 0, []
    for entry, file in queue.entries():
        try:
            notes += _send(entry, known)
        except RequestRefusedError as error:
            if error.status == 404 and entry.kind != "create":
                notes.append(f"{entry.kind} kept: the tracker has no such run; what creates it is kept elsewhere")
                continue
            if file is None:
                notes.append(f"{entry.kind} given up: {error}")
                queue.remove(entry, file)
            else:
                queue.set_aside(file, error)
            continue
        queue.remove(entry, file)
        sent += 1
    return Replayed(known.answer, sent, tuple(notes))


def attach(name: RunName, client: TrackerClient, *, deadline: float) -> CreateRunResponse:
    """Attach to the run with its name alone; one that has ended is RUNNING again."""
    if name.reference.kind == "external id":
        request = CreateRunRequest(name.reference.value, name.project, name.reference.value)
        return client.create(request, deadline=deadline)
    return client.resume(resume_request(name), deadline=deadline)


class _Known:
    """What one replay knows of its run."""

    def __init__(self, name: RunName, client: TrackerClient, deadline: float) -> None:
        self.name, self.client, self.deadline = name, client, deadline
        self.answer: CreateRunResponse | None = None
        self.revived = False  # whether a request that told nothing new may have set it to RUNNING

    def run_id(self, recorded: int) -> int:
        """The tracker's number: as it was recorded with the request, else as the tracker answers now."""
        if recorded:
            return recorded
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
        state = known.state(answer.run_id)
        known.revived = known.revived or (state is not None and entry.key in attempts.recorded(state.config))
        sent = replace(request, config=config or request.config)
        config = _following(entry, sent, state) or config
    if config is not None:
        client.update_config(UpdateConfigRequest(answer.run_id, config), deadline=deadline)


def _following(entry: Entry, request: CreateRunRequest, state: RunState | None) -> str | None:
    """The config with its attempt's record as one that follows those of the tracker; ``None`` if that changes nothing.

    It is numbered, and has the hardware unless the tracker took it with the run.
    """
    document = _document(request.config)
    mine = attempts.recorded(document).get(entry.key)
    if mine is None or state is None:
        return None
    theirs = {key: record for key, record in attempts.recorded(state.config).items() if key != entry.key}
    after = attempts.after(theirs, mine)
    sent = json.loads(request.system_metadata or "null")
    if isinstance(sent, dict) and "cluster" in sent and sent != state.system_metadata:
        after[hardware.FIELD] = attempt.hardware(sent, state.system_metadata, theirs)
    if after == mine:
        return None
    document["pluto_dist"][attempts.FIELD][entry.key] = after
    return json.dumps(document)


def _end(entry: Entry, request: UpdateStatusRequest, known: _Known) -> list[str]:
    """Send the end, unless the run has one that takes precedence."""
    state = known.state(request.run_id)
    if state is None:
        raise RequestRefusedError(f"the tracker has no run {request.run_id}", 404)
    last = attempts.newest(attempts.recorded(state.config))
    if last is not None and last.get("launch") != entry.launch:
        return [f"{request.status} not told: a later launch has gone on with the run"]
    at = time_of(_document(request.status_metadata))
    theirs = state.status_metadata if Failure.of_status(state.status_metadata) is not None else None
    is_first = request.status in _ENDS_BY_FAILURE and at is not None and not earlier(theirs, at)
    if theirs is not None and not is_first:
        if state.status in _ENDS_BY_FAILURE:
            return [] if state.status == request.status else [f"{request.status} not told: {state.status} came first"]
        if known.revived:
            ended = theirs.get("status")
            ended = ended if ended in _ENDS_BY_FAILURE else "FAILED"
            request = replace(request, status=ended, status_metadata=json.dumps(theirs))
    if not report_end(known.client, request, deadline=known.deadline, state=state):
        return [f"{request.status} not told: the run was cancelled in the tracker"]
    return []


def _document(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except (ValueError, RecursionError):  # the request is sent without it
        return None


def earlier(recorded: Any, at_ms: int) -> bool:
    """Whether the failure that a tracker has on record is no later than ``at_ms``."""
    when = time_of(recorded)
    return when is not None and when <= at_ms
