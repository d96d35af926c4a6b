"""Looks a run up by its name and leaves it as it is, although the tracker finds some runs only by waking them."""

from __future__ import annotations

import json

from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_ref import RunName, resume_request
from pluto_dist.contract.run_requests import PRECEDENCE, RunState, UpdateStatusRequest
from pluto_dist.errors import RequestRefusedError, TrackerError, TrackerUnavailableError
from pluto_dist.log import logger


def is_run(state: RunState | None, name: RunName) -> bool:
    """Whether the tracker's run is the one that is named: another rank may have told a number that is not."""
    reference = name.reference
    if state is None:
        return False
    if reference.kind == "number":
        return state.run_id == reference.number
    return reference.value == (state.display_id if reference.kind == "display id" else state.external_id)


def look_up(client: TrackerClient, name: RunName, *, deadline: float) -> RunState | None:
    """The run, with its number; ``None`` if there is none. Its status is as it was before.

    The tracker finds a run by its external id only by resuming it (2026), which sets an ended one to RUNNING. So the
    run is looked for by the id in its config first; one that had to be resumed is set back at once.

    Raises:
        TrackerError: the tracker did not answer, or refused.
    """
    reference = name.reference
    try:
        if reference.kind == "number":
            return client.details(int(reference.value), deadline=deadline)
        if reference.kind == "display id":
            number = client.number_of(reference.value, name.project, deadline=deadline)
            return client.details(number, deadline=deadline)
        found = client.find(reference.value, name.project, deadline=deadline)
        if found is not None:
            return found
    except RequestRefusedError as error:
        if error.status == 404:
            return None
        raise
    return _woken(client, name, deadline)


def _woken(client: TrackerClient, name: RunName, deadline: float) -> RunState | None:
    """The run, found by resuming it; its status is set back."""
    before = client.server_time
    try:
        resumed = client.resume(resume_request(name), deadline=deadline)
    except RequestRefusedError as error:
        if error.status == 404:
            return None
        raise
    except TrackerUnavailableError:  # it may have done so all the same
        _warn(name.reference.value)
        raise
    try:
        set_back(client, resumed.run_id, before, deadline)
    except TrackerError:
        _warn(resumed.display_id)
        raise
    return client.details(resumed.run_id, deadline=deadline)


def _warn(run: str | None) -> None:
    told = "run %s may be RUNNING although it had ended: it was looked up, and then the tracker did not answer"
    logger.warning(told, run)


def set_back(client: TrackerClient, run_id: int, since: float, deadline: float) -> None:
    """Give a run the end again that a resume, or a create, after ``since`` (the tracker's clock) took from it."""
    events = client.status_history(run_id, deadline=deadline)
    last = events[-1] if events else None
    if last is None or last.source != "resume" or last.from_status not in PRECEDENCE or last.at < since - 1:
        return
    end = next(event for event in reversed(events) if event.to_status == last.from_status)
    state = client.details(run_id, deadline=deadline)
    document = None if state is None or state.status_metadata is None else json.dumps(state.status_metadata)
    request = UpdateStatusRequest(run_id, end.to_status, document, status_updated=round(1000 * end.at))
    client.update_status(request, deadline=deadline)
