"""Who ends the run, and when: one rank, after the others are done, and only if no later attempt lives in it.

Where no launcher of ours is above the workers (``launch`` ends the run there). A success waits for the other ranks,
within a bound; a failure is the first failing rank's to tell. An attach to a finished run would revive it, so
nobody attaches any more before the end is posted.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from typing import Any

from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract import attempts
from pluto_dist.contract.run_requests import UpdateStatusRequest
from pluto_dist.errors import ExchangeError, TrackerError
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.log import logger
from pluto_dist.rendezvous.run_channel import RunChannel

JOIN_GRACE = 10.0  # a rank that has not called init() this long after the leader is not waited for at the end
END_SECONDS = 10.0  # how long the end state is tried
HURRY_SECONDS = 2.0  # how long a process waits for its own parts when it is interrupted or dies of an exception

_TRACEBACK_LIMIT = 4000


@dataclass(frozen=True, slots=True)
class Part:
    """One rank's part in the end of a run.

    Attributes:
        plan: what ``init()`` set out to do.
        run: what the ranks say about the run.
        leads: whether this rank created it.
        settled_at: when it came into being, on the monotonic clock.
    """

    plan: Plan
    run: RunChannel
    leads: bool
    settled_at: float

    def is_mine_to_end(self, status: str) -> bool:
        """Whether this rank tells the tracker; before it does, all others are done and nobody attaches any more."""
        try:
            if status == "COMPLETED":
                self.run.count("left")
                if not self.leads or not self._everyone_left():
                    return False
            elif not self.run.claim("failure"):
                return False  # another rank failed first, and says so
            self._close(END_SECONDS if status == "COMPLETED" else HURRY_SECONDS)
        except ExchangeError as error:
            logger.debug("the other ranks cannot be asked at the end: %s", error)
            return self.leads
        return True

    def post(self, client: TrackerClient | None, outbox: Outbox, request: UpdateStatusRequest) -> None:
        """Tell the tracker, or keep it where that does not answer; and close ``client``."""
        try:
            if client is not None and request.run_id and self._is_superseded(client, int(request.run_id)):
                return
            if outbox.has_pending or not request.run_id:
                outbox.enqueue(request)
                if client is not None:
                    outbox.flush(client, time.monotonic() + HURRY_SECONDS)
            elif not outbox.send(client, request, _soon()):
                logger.warning(
                    "the run's end (%s) could not be told to the tracker; `pluto-dist sync` will (it is kept in %s)",
                    request.status,
                    outbox.folder,
                )
        except TrackerError as error:
            logger.warning("the run's end (%s) was not taken by the tracker: %s", request.status, error)
        finally:
            if client is not None:
                client.close()

    def _everyone_left(self) -> bool:
        """Wait, bounded, until the other ranks are done; False where one of them failed."""
        run, others = self.run, self.plan.context.topology.world_size - 1
        until = time.monotonic() + self.plan.settings.timeout
        while others and time.monotonic() < until:
            joined, left = run.count("joined", 0) - 1, run.count("left", 0) - 1
            if run.claimed("failure"):
                break
            if left >= joined and (joined >= others or time.monotonic() > self.settled_at + JOIN_GRACE):
                break
            time.sleep(0.05)
        return not run.claimed("failure")

    def _close(self, seconds: float) -> None:
        """From here on nobody attaches; wait for the attaches that had begun."""
        self.run.claim("closed")
        until = time.monotonic() + seconds
        while self.run.count("attach over", 0) < self.run.count("attach begun", 0) and time.monotonic() < until:
            time.sleep(0.02)

    def _is_superseded(self, client: TrackerClient, run_id: int) -> bool:
        """Whether a later attempt lives in the run, which is then that one's to end.

        After a split of the nodes an old rank 0 may live on beside the new one (observed with torch 2.13).
        """
        if (self.plan.context.topology.node_count or 1) == 1:
            return False
        try:
            state = client.details(run_id, deadline=_soon())
            last = None if state is None else attempts.newest(attempts.recorded(state.config))
            return last is not None and last["key"] != self.run.recorded_key()
        except (TrackerError, ExchangeError) as error:
            logger.debug("whether a later attempt goes on with the run cannot be asked: %s", error)
            return False


def cause_of(plan: Plan, error: BaseException) -> dict[str, Any]:
    """What goes into the run's statusMetadata when this rank dies of ``error``; the API key is masked in it."""
    key = plan.settings.api_key

    def shown(lines: list[str]) -> str:
        text = "".join(lines).strip()
        return text if key is None else text.replace(key.reveal(), "***")

    return {
        "reason": shown(traceback.format_exception_only(type(error), error)[-1:])[:500],
        "rank": plan.context.topology.rank,
        "host": plan.host,
        "traceback": shown(traceback.format_exception(type(error), error, error.__traceback__))[-_TRACEBACK_LIMIT:],
    }


def _soon() -> float:
    return time.monotonic() + END_SECONDS
