"""Answers to claims on a run, given by a launch that is alive in it at each of its heartbeats."""

from __future__ import annotations

import json

from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract import claims
from pluto_dist.contract.run_requests import UpdateConfigRequest


def answer_claims(client: TrackerClient, run_id: int, token: str, host: str, *, deadline: float) -> None:
    """Answer the claims of other launches on a run, if there are any.

    Args:
        client: of the tracker.
        run_id: the tracker's number of the run.
        token: of this launch.
        host: of this process, for the error of the other launch.
        deadline: on the monotonic clock.

    Raises:
        TrackerError: the tracker did not answer, or refused.
    """
    state = client.details(run_id, deadline=deadline)
    if state is not None and (others := claims.unanswered(state.config, token)):
        change = {"pluto_dist": claims.answer(others, token, host)}
        client.update_config(UpdateConfigRequest(run_id, json.dumps(change)), deadline=deadline)
