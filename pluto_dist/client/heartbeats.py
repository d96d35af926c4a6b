"""Heartbeats as one process sends them.

An address that takes none is logged once, and is no outage. A run that the tracker ended during an outage, because it
saw no heartbeats, is set to RUNNING again by the first one after it.
"""

from __future__ import annotations

import time

from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.failure import Failure
from pluto_dist.contract.run_requests import UpdateStatusRequest
from pluto_dist.errors import RequestRefusedError, UnexpectedAnswerError
from pluto_dist.log import logger

OUTAGE_SECONDS = 30.0  # after so long without an answer, a run that the tracker has ended meanwhile is set to RUNNING


class HeartbeatSender:
    """Sends the heartbeats of a run, or of several one after the other.

    Args:
        client: of the tracker.
    """

    def __init__(self, client: TrackerClient) -> None:
        self._client = client
        self._was_taken = self._has_warned = False
        self._answered = time.monotonic()

    def send(self, run_id: int, *, deadline: float) -> str | None:
        """Send one; the run's status, ``None`` if the address takes no heartbeats or the tracker has no such run.

        Raises:
            TrackerError: an outage, which an odd answer of an address that has taken heartbeats is too.
        """
        try:
            status = self._client.heartbeat(run_id, deadline=deadline).status
            self._was_taken = True
            silent, self._answered = time.monotonic() - self._answered, time.monotonic()
            if status == "FAILED" and silent > OUTAGE_SECONDS and self._was_ended_by_the_tracker(run_id, deadline):
                self._client.update_status(UpdateStatusRequest(run_id, "RUNNING"), deadline=deadline)
            return status
        except RequestRefusedError as error:
            logger.debug("a heartbeat was not taken: %s", error)
        except UnexpectedAnswerError as error:
            if self._was_taken:
                raise
            if not self._has_warned:
                self._has_warned = True
                logger.warning(
                    "%s\nThe training goes on, but no cancel reaches it, and the tracker may show the run as FAILED "
                    "after 30 minutes, until the job ends it.",
                    error,
                )
        return None

    def _was_ended_by_the_tracker(self, run_id: int, deadline: float) -> bool:
        """Whether no job told that end: its monitor ended the run, not another launch of the job."""
        state = self._client.details(run_id, deadline=deadline)
        return state is not None and Failure.of_status(state.status_metadata) is None
