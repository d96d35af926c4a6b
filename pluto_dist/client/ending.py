"""The end of a run, as every process reports it: a rank, a launcher, and the replay of what was kept.

A run that the tracker's monitor ended, because it saw no heartbeats, is FAILED, and an end of lower precedence would be
answered 200 and ignored; so it is RUNNING again first. So is one whose end is that of an attempt before. A run that
somebody cancelled stays cancelled.
"""

from __future__ import annotations

from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.failure import Failure
from pluto_dist.contract.run_requests import PRECEDENCE, RunState, UpdateStatusRequest
from pluto_dist.errors import RequestRefusedError


def report_end(
    client: TrackerClient,
    request: UpdateStatusRequest,
    *,
    deadline: float,
    state: RunState | None = None,
    supersedes: bool = False,
) -> bool:
    """Report how the run ended; whether it was reported, which it is not if the run is cancelled.

    Args:
        client: of the tracker.
        request: the end.
        deadline: on the monotonic clock.
        state: the run as the tracker has it, if that was just asked.
        supersedes: whether the end on record is that of an attempt before.

    Raises:
        RequestRefusedError: with status 404, the tracker has no such run.
        TrackerError: the tracker did not take it.
    """
    state = state or client.details(request.run_id, deadline=deadline)
    if state is None:
        raise RequestRefusedError(f"the tracker has no run {request.run_id}", 404)
    if state.status == "CANCELLED":
        return False
    if _is_ignored(state, request.status) and (supersedes or Failure.of_status(state.status_metadata) is None):
        client.update_status(UpdateStatusRequest(request.run_id, "RUNNING"), deadline=deadline)
    client.update_status(request, deadline=deadline)
    return True


def _is_ignored(state: RunState, status: str) -> bool:
    """Whether the run has an end that takes precedence over ``status``."""
    if state.status not in PRECEDENCE or status not in PRECEDENCE:
        return False
    return PRECEDENCE.index(status) < PRECEDENCE.index(state.status)
