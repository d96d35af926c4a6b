"""Sends the requests that wait on disk: in order, and with the same effect however often it is tried.

Each request is removed once the tracker has taken it. One that was taken but not removed when its sender died is sent
again, and changes nothing: the run is looked up without waking it, and a create sets it to RUNNING only for an attempt
that follows all that are on record. What comes late, of a launch before the last one, adds to the run what it lacks. An
end is sent only if the run has no graver end, none of a later attempt, and none by a person. A launch that resumes
enters a run that exists only once no other launch can be alive in it (``client.claims``). ``pluto-dist sync`` and the
job itself send in this way, one process at a time, by the lock of the run.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pluto_dist.client.claims import Claim
from pluto_dist.client.ending import report_end
from pluto_dist.client.lookup import look_up
from pluto_dist.client.offline.entry import Entry
from pluto_dist.client.offline.queue import RunQueue
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract import attempts, claims, hardware
from pluto_dist.contract.failure import Failure, precedes, time_of
from pluto_dist.contract.run_ref import RunName, resume_request
from pluto_dist.contract.run_requests import (
    PRECEDENCE,
    CreateRunRequest,
    CreateRunResponse,
    RunState,
    UpdateConfigRequest,
    UpdateStatusRequest,
)
from pluto_dist.errors import RequestRefusedError, RunInUseError
from pluto_dist.inventory.report import attempt

GRANT_SECONDS = 600.0  # the longest time that a replay waits until no other launch can be alive in the run
_ENDS_BY_FAILURE = ("FAILED", "TERMINATED")


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result of a replay.

    Attributes:
        answer: the tracker's to the create or resume of the run; ``None`` if neither was sent.
        sent: how many requests the tracker took.
        notes: for the user, about requests that were not sent as they are.
        display_id: what people call the run; ``None`` if that is not known.
        is_over: whether this launch's part in the run is over: a later one has gone on with it, or it was cancelled.
    """

    answer: CreateRunResponse | None
    sent: int
    notes: tuple[str, ...] = ()
    display_id: str | None = None
    is_over: bool = False


def replay(
    queue: RunQueue,
    client: TrackerClient,
    *,
    deadline: float,
    launch: str | None = None,
    attempt: str = "",
    pause: Callable[[float], object] | None = None,
) -> Replayed:
    """Send what is kept of one run, whose lock the caller holds.

    Args:
        queue: of the run; a request that the tracker refuses for good is set aside.
        client: of the tracker to send to.
        deadline: on the monotonic clock.
        launch: the token of the launch whose requests are meant; all by default. A job sends its own: it cannot know
            whether another launch that keeps some will be let into the run.
        attempt: the key of the record of the attempt that is alive; "" if none is, or it has no record.
        pause: waits for that many seconds, up to :data:`GRANT_SECONDS` in all, which come on top of the deadline, while
            it is not known whether another launch is alive in the run; ``None`` does not wait.

    Raises:
        RunInUseError: another launch is alive in it, or that is not known yet: the rest stays where it is.
        AuthenticationError, UnexpectedAnswerError, TrackerUnavailableError: the rest stays where it is.
    """
    known = _Known(queue.name, client, deadline, pause, is_alive=launch is not None)
    known.attempt, sent, notes = attempt, 0, []
    entries = [(entry, file) for entry, file in queue.entries() if launch in (None, entry.launch)]
    ends = [entry for entry, _ in entries if entry.kind == "status"]
    ended = {entry.launch for entry in ends}
    known.ended = {entry.key: entry.request.status for entry in ends if isinstance(entry.request, UpdateStatusRequest)}
    for entry, file in entries:
        try:
            notes += _send(entry, known, wakes=known.is_alive or entry.launch in ended)
        except RequestRefusedError as error:
            notes += _refused(queue, entry, file, error)
            continue
        queue.remove(entry, file)
        sent += 1
    return Replayed(known.answer, sent, tuple(notes), known.display_id, known.is_over)


def _refused(queue: RunQueue, entry: Entry, file: Path | None, error: RequestRefusedError) -> list[str]:
    """What is said of a request that was refused: it is set aside, or stays if what it follows is kept elsewhere."""
    if error.status == 404 and entry.kind != "create" and not queue.has_set_aside(entry.launch):
        return [f"{entry.kind} kept: {error}; what begins it is kept elsewhere"]
    if file is not None:
        queue.set_aside(file, error)
        return []
    queue.remove(entry, file)
    return [f"{entry.kind} given up: {error}"]


def attach(name: RunName, client: TrackerClient, *, deadline: float) -> CreateRunResponse:
    """Attach to the run with its name alone; one that has ended is RUNNING again."""
    if name.reference.kind == "external id":
        request = CreateRunRequest(name.reference.value, name.project, name.reference.value)
        return client.create(request, deadline=deadline)
    return client.resume(resume_request(name), deadline=deadline)


class _Known:
    """What one replay knows of its run."""

    def __init__(
        self,
        name: RunName,
        client: TrackerClient,
        deadline: float,
        pause: Callable[[float], object] | None,
        *,
        is_alive: bool,
    ) -> None:
        self.name, self.client, self.deadline, self.is_alive = name, client, deadline, is_alive
        self.is_over, self.attempt = False, ""
        self.ended: dict[str, str] = {}  # the ends that are kept, by the keys of their attempts
        self._pause = pause
        self.answer: CreateRunResponse | None = None
        self.display_id: str | None = None
        self._run_id = 0

    def state(self, recorded: int = 0) -> RunState | None:
        """The run as the tracker has it now: by the number that was recorded with a request, or by its name."""
        number = recorded or self._run_id
        if number:
            found = self.client.details(number, deadline=self.deadline)
        else:
            found = look_up(self.client, self.name, deadline=self.deadline)
        if found is not None:
            self._run_id, self.display_id = found.run_id, found.display_id
        return found

    def existing(self, recorded: int) -> RunState:
        """The same; RequestRefusedError with status 404 if there is none."""
        found = self.state(recorded)
        if found is None:
            raise RequestRefusedError(f"the tracker has no run {recorded or self.name.reference.value}", 404)
        return found

    def granted(self, entry: Entry, found: RunState) -> RunState:
        """The run, once no other launch than that of ``entry`` can be alive in it.

        Raises:
            RunInUseError: one is, or that is not known in time.
        """
        if not entry.resumes:
            return found
        claim = Claim(self.client, found, entry.launch, socket.gethostname(), self.deadline)
        seconds = claim.seconds()
        if self._pause is None or seconds > GRANT_SECONDS:
            raise RunInUseError(
                f"whether another launch of this job is alive in run {found.display_id or found.run_id} is known "
                f"{seconds:.0f} s after it is asked.\nRun pluto-dist sync once that launch has ended."
            )
        self.deadline += seconds
        return replace(claim, deadline=self.deadline).wait(time.monotonic() + seconds, self._pause)

    def created(self, answer: CreateRunResponse) -> CreateRunResponse:
        self.answer, self._run_id, self.display_id = answer, answer.run_id, answer.display_id
        return answer


def _send(entry: Entry, known: _Known, *, wakes: bool) -> list[str]:
    request = entry.request
    if isinstance(request, CreateRunRequest):
        return _create(entry, request, known, wakes=wakes)
    state = known.existing(int(request.run_id))
    if isinstance(request, UpdateStatusRequest):
        return _end(entry, replace(request, run_id=state.run_id), known, state)
    known.client.update_config(replace(request, run_id=state.run_id), deadline=known.deadline)
    return []


def _create(entry: Entry, request: CreateRunRequest, known: _Known, *, wakes: bool) -> list[str]:
    """Create the run; or, if the tracker has it, continue it, or add to it what it lacks of this attempt."""
    request = _forked(replace(request, external_id=_external_id(entry)), entry, known)
    state = known.state()
    request = _by_the_trackers_clock(request, entry, known)
    if state is None:
        answer = known.created(_attached(entry, request, known))
        if not answer.resumed:
            return []
        state = known.existing(answer.run_id)
    state = _behind_twin(entry, state, known)
    known.is_over = state.status == "CANCELLED"
    mine = attempts.recorded(_document(request.config)).get(entry.key)
    return [] if mine is None else _continue(entry, request, known, state, mine, wakes=wakes)


def _by_the_trackers_clock(request: CreateRunRequest, entry: Entry, known: _Known) -> CreateRunRequest:
    """The request with the attempt's start by the clock that all hosts share; as it is if another host has kept it."""
    mine = attempts.recorded(_document(request.config)).get(entry.key)
    if not isinstance(mine, dict) or socket.gethostname() not in mine.get("hosts", ()):
        return request
    told = _numbered(request, entry.key, attempts.by_another_clock(mine, known.client.clock_offset))
    return replace(request, config=json.dumps(told))


def _behind_twin(entry: Entry, state: RunState, known: _Known) -> RunState:
    """The run; without this attempt's record if another attempt, which was first at the same moment, has its number."""
    records = attempts.in_order(attempts.recorded(state.config))
    mine = [each["number"] for each in records if each["key"] == entry.key and each["number"] != attempts.LATE]
    if not any(each["number"] in mine and each["key"] != entry.key for each in records):
        return state
    taken_back = json.dumps({"pluto_dist": {attempts.FIELD: {entry.key: None}}})
    known.client.update_config(UpdateConfigRequest(state.run_id, taken_back), deadline=known.deadline)
    return known.existing(state.run_id)


def _attached(entry: Entry, request: CreateRunRequest, known: _Known) -> CreateRunResponse:
    if request.external_id is not None:
        return known.client.create(request, deadline=known.deadline)
    return known.client.resume(resume_request(entry.run), deadline=known.deadline)


def _continue(
    entry: Entry, request: CreateRunRequest, known: _Known, state: RunState, mine: dict[str, Any], *, wakes: bool
) -> list[str]:
    """Add this attempt to a run that exists; the run is RUNNING again if the attempt follows those of other launches.

    Args:
        entry: with the request.
        request: as it is to be sent.
        known: what this replay knows of the run.
        state: the run as the tracker has it.
        mine: the attempt's record, as it was made without the tracker.
        wakes: whether an end follows, or the job is alive: a run that nobody would end again is left as it is.
    """
    records, notes = attempts.recorded(state.config), []
    if entry.begins and not attempts.has_launch(records, entry.launch):
        raise RequestRefusedError(f"resume=False, and run {state.display_id} was begun without this launch", 409)
    if records.get(entry.key) is not None:
        known.is_over = known.is_over or _was_ended(state, entry.launch)
        told = _lacking(
            _numbered(request, entry.key, _with_hardware(mine, request, state, entry.key)), _kept(state.config)
        )
    elif known.attempt in records or _is_late(entry, known, records, mine):
        known.is_over = True
        told = _lacking(_numbered(request, entry.key, {**mine, "number": attempts.LATE}), _kept(state.config))
        notes = ["the run has gone on with a later attempt: this one is added to it"]
    elif (attempts.newest(records) or {}).get("launch") == entry.launch:
        told = _following(entry, request, state, mine)
    else:
        told = _following(entry, request, state := known.granted(entry, state), mine)
        told["pluto_dist"] |= claims.withdraw(entry.launch) if entry.resumes else {}
        if wakes and state.status != "CANCELLED":
            known.created(_attached(entry, replace(request, config=json.dumps(told)), known))
    if told:
        known.client.update_config(UpdateConfigRequest(state.run_id, json.dumps(told)), deadline=known.deadline)
    return notes


def _is_late(entry: Entry, known: _Known, records: dict[str, Any], mine: dict[str, Any]) -> bool:
    """Whether another attempt has gone on with the run; the one that is alive is the last, whatever clocks say."""
    return entry.key != known.attempt and attempts.is_late(records, entry.key, mine, is_alive=known.is_alive)


def _was_ended(state: RunState, launch: str) -> bool:
    """Whether ranks have ended the run after ``launch`` came to it: not a monitor, nor the launch before."""
    theirs = state.status_metadata if isinstance(state.status_metadata, dict) else {}
    return state.status == "COMPLETED" or (state.status in PRECEDENCE and theirs.get("launch") == launch)


def _external_id(entry: Entry) -> str | None:
    reference = entry.run.reference
    return reference.value if reference.kind == "external id" else None


def _forked(request: CreateRunRequest, entry: Entry, known: _Known) -> CreateRunRequest:
    if not entry.fork_of or request.external_id is None:
        return request
    parent = known.client.number_of(entry.fork_of, entry.run.project, deadline=known.deadline)
    return replace(request, fork_run_id=parent)


def _following(entry: Entry, request: CreateRunRequest, state: RunState, mine: dict[str, Any]) -> dict[str, Any]:
    """The request's config with this attempt's record after those that the run has."""
    after = attempts.after(attempts.recorded(state.config), mine)
    return _numbered(request, entry.key, _with_hardware(after, request, state, entry.key))


def _with_hardware(record: dict[str, Any], request: CreateRunRequest, state: RunState, key: str) -> dict[str, Any]:
    """The record with its hardware, if that is not the run's own; ``key`` is that of the attempt."""
    sent = json.loads(request.system_metadata or "null")
    if isinstance(sent, dict) and "cluster" in sent and sent != state.system_metadata:
        others = {name: each for name, each in attempts.recorded(state.config).items() if name != key}
        return {**record, hardware.FIELD: attempt.hardware(sent, state.system_metadata, others)}
    return record


def _numbered(request: CreateRunRequest, key: str, record: dict[str, Any]) -> dict[str, Any]:
    """The request's config with ``record`` as that of its attempt."""
    document: dict[str, Any] = _document(request.config)
    document["pluto_dist"][attempts.FIELD][key] = record
    return document


def _kept(config: Any) -> Any:
    """A run's config without the ``null`` that a record leaves which was taken back."""
    section = config.get("pluto_dist") if isinstance(config, dict) else None
    if not isinstance(section, dict):
        return config
    return {**config, "pluto_dist": {**section, attempts.FIELD: attempts.recorded(config)}}


def _lacking(mine: dict[str, Any], theirs: Any) -> dict[str, Any]:
    """What of ``mine`` is not in ``theirs``, whatever its value there is.

    >>> _lacking({"lr": 0.1, "data": {"path": "a", "size": 2}}, {"lr": 0.2, "data": {"path": "b"}})
    {'data': {'size': 2}}
    """
    theirs, found = theirs if isinstance(theirs, dict) else {}, {}
    for key, value in mine.items():
        if key not in theirs:
            found[key] = value
        elif isinstance(value, dict) and isinstance(theirs[key], dict) and (more := _lacking(value, theirs[key])):
            found[key] = more
    return found


def _end(entry: Entry, request: UpdateStatusRequest, known: _Known, state: RunState) -> list[str]:
    """Send the end, unless the run has one that takes precedence."""
    records = attempts.recorded(state.config)
    if not attempts.has_launch(records, entry.launch):
        raise RequestRefusedError("the run knows nothing of this launch", 404)
    last = attempts.newest(records) or {}
    if last.get("launch") != entry.launch:
        return [f"{request.status} not told: a later launch has gone on with the run"]
    if _is_superseded(entry, request, known, state, last):
        return [f"{request.status} not told: a later attempt of the launch has gone on with the run"]
    mine = _document(request.status_metadata)
    theirs = state.status_metadata if Failure.of_status(state.status_metadata) is not None else None
    is_first = request.status in _ENDS_BY_FAILURE and time_of(mine) is not None and precedes(mine, theirs)
    supersedes = theirs is not None and _is_of_another(theirs, entry, request, last, state)
    if theirs is not None and not (is_first or supersedes) and state.status in _ENDS_BY_FAILURE:
        return [] if state.status == request.status else [f"{request.status} not told: {state.status} came first"]
    if not report_end(known.client, request, deadline=known.deadline, state=state, supersedes=supersedes):
        return [f"{request.status} not told: the run was cancelled in the tracker"]
    return []


def _is_of_another(
    theirs: dict[str, Any], entry: Entry, request: UpdateStatusRequest, last: dict[str, Any], state: RunState
) -> bool:
    """Whether the end on record is that of an earlier launch; or, if the last attempt has succeeded, of one before.

    The success of an attempt is that of all its ranks, also of one that was stopped before it was connected.
    """
    if theirs.get("launch", entry.launch) != entry.launch:
        return True
    if request.status != "COMPLETED" or entry.key != last.get("key"):
        return False
    came_after = last.get("after_failure")
    is_before = came_after is not None and came_after == {name: theirs.get(name) for name in ("reason", "rank", "host")}
    return is_before or (state.status == "TERMINATED" and theirs.get("attempt") != entry.key)


def _is_superseded(
    entry: Entry, request: UpdateStatusRequest, known: _Known, state: RunState, last: dict[str, Any]
) -> bool:
    """Whether the launch has gone on with the attempt ``last``, whose end counts.

    Ranks that were not connected have keys of their own for one attempt, or none: that one of them was stopped tells
    less than that another one failed, or that all of an attempt have succeeded: then there is none after it.
    """
    on_record = None if attempts.began_after(last, state.status_updated) else state.status
    ends = {known.ended.get(last["key"]), on_record} & set(PRECEDENCE)
    if request.status == "TERMINATED" and "COMPLETED" in ends:
        return True
    if entry.key in ("", last["key"]):
        return False
    return known.is_alive or bool(ends - {"TERMINATED"} if request.status == "FAILED" else ends)


def _document(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except (ValueError, RecursionError):  # the request is sent without it
        return None
