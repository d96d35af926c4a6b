"""The end of a run without a launcher of ours: which rank reports it, and when.

One rank reports it, after the others are done, and only if no later attempt is in the run. A success waits for the
other ranks, within a bound; a failure is reported by the first rank that fails. An attach to a run that has ended would
revive it, so the run is closed to attaches before its end is reported. Under `pluto-dist run` the launcher ends the
run.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace

from pluto_dist.client.lookup import is_run
from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract import attempts
from pluto_dist.contract.failure import Failure, precedes
from pluto_dist.contract.run_requests import RunState, UpdateStatusRequest
from pluto_dist.errors import AuthenticationError, ExchangeError, TrackerError
from pluto_dist.identity import Named
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.log import logger
from pluto_dist.rendezvous.run_channel import LEADER, RunChannel
from pluto_dist.rendezvous.store import StoreAnswerError
from pluto_dist.rendezvous.store_thread import StoreSilentError

JOIN_GRACE = 10.0  # a rank that has not called init() so long after the run was created is not waited for
END_SECONDS = 10.0  # how long the end is tried to be reported
HURRY_SECONDS = 2.0  # the same of a process that is interrupted or ends by an exception
GIVEN_UP_SECONDS = 1.0  # how long an attach may still be on its way whose sender does not wait any more

# How long an end waits for attaches that have begun, after this rank's own thread was waited for.
_CLOSE_SECONDS = {"COMPLETED": END_SECONDS, "FAILED": HURRY_SECONDS, "TERMINATED": 0.5}


def status_deadline() -> float:
    """When a request about the run's status is given up, on the monotonic clock."""
    return time.monotonic() + END_SECONDS


@dataclass(frozen=True, slots=True)
class ShutdownStep:
    """One rank's part in the end of a run.

    Attributes:
        plan: what ``init()`` decided.
        channel: the messages about the run; those of a store of its own for a rank that is not connected.
        is_owner: whether this rank created the run.
        settled_at: when the run was created, on the monotonic clock.
        is_connected: whether the other ranks read ``channel``.
    """

    plan: Plan
    channel: RunChannel
    is_owner: bool
    settled_at: float
    is_connected: bool = True

    def is_mine_to_report(self, status: str, *, in_tracker: bool) -> bool:
        """Whether this rank is the one that reports the end.

        Args:
            status: COMPLETED, which the owner reports, or a failure, which the first rank that fails reports.
            in_tracker: whether the tracker has the run; else the last rank to leave reports the success of a run that
                has no owner.
        """
        channel = self.channel
        try:
            if not self.is_connected:
                return channel.claim_on_node("keeper" if status == "COMPLETED" else "failure")
            if status != "COMPLETED":
                return channel.claim("failure")  # else another rank failed first, and reports it
            left = channel.count("left")
            if self.is_owner or in_tracker or channel.claimed(LEADER):
                return self.is_owner
            return left >= channel.count("joined", 0)
        except ExchangeError as error:
            logger.debug("the other ranks cannot be asked at the end: %s", error)
            # What several ranks keep of one run becomes one run, and of several failures the earliest is on record. A
            # store that has ended was that of a rank which has told its failure; one that is silent, or answers
            # garbage, has told nothing.
            is_untold = isinstance(error, (StoreSilentError, StoreAnswerError)) and status != "COMPLETED"
            return self.is_owner or not in_tracker or is_untold

    def await_others(self, status: str) -> bool:
        """Wait, bounded, for the other ranks, and close the run to attaches; False if one of them failed."""
        if not self.is_connected:
            return True
        try:
            if status == "COMPLETED" and not self._all_left():
                return False
            self._close(_CLOSE_SECONDS[status])
        except ExchangeError as error:
            logger.debug("the other ranks cannot be asked at the end: %s", error)
            time.sleep(GIVEN_UP_SECONDS)
        return True

    def await_reporter(self, status: str) -> None:
        """Wait, bounded, in the process that hosts the ranks' store, for the rank that reports the end and asks it."""
        if status == "COMPLETED":
            self.await_others(status)
            return
        until = time.monotonic() + HURRY_SECONDS
        try:
            while not self.channel.claimed("reported") and time.monotonic() < until:
                time.sleep(0.02)
        except ExchangeError as error:
            logger.debug("the store that this process hosts cannot be asked: %s", error)

    def report(self, client: TrackerClient | None, outbox: Outbox, request: UpdateStatusRequest) -> None:
        """Report the end to the tracker, or keep the report if that does not answer; and close ``client``."""
        deadline = status_deadline()  # of all that is asked and told: a launcher's patience is short
        outbox.attempt = outbox.attempt or self._recorded_key() or ""
        request = request.told_by(outbox.launch, outbox.attempt)
        try:
            state = self._ask_state(client, request, deadline)
            if state is not None and (self._is_superseded(state) or _has_failed_before(state, request)):
                return
            if not self.is_owner and not is_run(state, outbox.name):  # the number is the store's: go by the name
                request, state = replace(request, run_id=0), None
            # Another rank may have kept the run while it was not settled: its requests go first.
            if not request.run_id or outbox.check():
                outbox.enqueue(request)
                if client is not None:
                    outbox.flush(client, time.monotonic() + HURRY_SECONDS)
            elif not outbox.send(client, request, deadline, state) and not outbox.trouble:
                logger.warning(
                    "the run's end (%s) could not be reported to the tracker; `pluto-dist sync` will (kept in %s)",
                    request.status,
                    outbox.folder,
                )
        except AuthenticationError as error:
            if not outbox.has_pending:
                outbox.enqueue(request)
            logger.warning("the run's end (%s) is kept in %s: %s", request.status, outbox.folder, error)
        except TrackerError as error:
            logger.warning("the run's end (%s) was not taken by the tracker: %s", request.status, error)
        finally:
            if request.status != "COMPLETED":
                self._release_host()
            if client is not None:
                client.close()
        if outbox.has_pending and outbox.trouble and outbox.folder is not None:  # else that was logged at the start
            logger.warning("the run's end (%s) is lost: neither the tracker nor the disk took it", request.status)

    def _release_host(self) -> None:
        """Let the process that hosts the store end, which waits for the report of a failure."""
        try:
            if self.is_connected:
                self.channel.claim("reported")
        except ExchangeError as error:
            logger.debug("the store has ended: %s", error)

    def _all_left(self) -> bool:
        """Wait, bounded, until the other ranks are done; False if one of them failed."""
        channel, others = self.channel, self.plan.topology.world_size - 1
        until = time.monotonic() + self.plan.settings.timeout
        while time.monotonic() < until:
            joined, left = channel.count("joined", 0) - 1, channel.count("left", 0) - 1
            if channel.claimed("failure"):
                break
            if left >= joined and (joined >= others or time.monotonic() > self.settled_at + JOIN_GRACE):
                break
            time.sleep(0.05)
        return not channel.claimed("failure")

    def _close(self, seconds: float) -> None:
        """Close the run to attaches, and wait for those that have begun."""
        self.channel.close()
        until = time.monotonic() + seconds
        while self.channel.has_attaches and time.monotonic() < until:
            time.sleep(0.02)
        self.await_given_up()

    def await_given_up(self) -> None:
        """Wait until the tracker has executed an attach whose sender does not wait any more."""
        try:
            if self.is_connected and self.channel.has_given_up:
                time.sleep(GIVEN_UP_SECONDS)
        except ExchangeError as error:
            logger.debug("whether an attach was given up cannot be asked: %s", error)

    def _ask_state(
        self, client: TrackerClient | None, request: UpdateStatusRequest, deadline: float
    ) -> RunState | None:
        """The run as the tracker has it; ``None`` if it need not be asked, or does not answer.

        After a split of the nodes an old rank 0 may go on beside the new one (observed with torch 2.13), and a launch
        that was stopped for longer than another one's claim is answered finds that one in its run.
        """
        is_alone = (self.plan.topology.node_count or 1) == 1 and not isinstance(self.plan.decision, Named)
        is_alone &= request.status == "COMPLETED"
        if client is None or not request.run_id or (is_alone and self.is_owner):
            return None
        try:
            return client.details(int(request.run_id), deadline=deadline)
        except TrackerError as error:
            logger.debug("whether a later attempt is in the run cannot be asked: %s", error)
            return None

    def _is_superseded(self, state: RunState) -> bool:
        """Whether a later attempt is in the run, which then ends it."""
        mine = self._recorded_key()
        return mine is not None and attempts.has_gone_on(attempts.recorded(state.config), key=mine)

    def _recorded_key(self) -> str | None:
        """The key of this attempt's record; ``None`` if it has none, or that cannot be asked."""
        try:
            return self.channel.recorded_key()
        except ExchangeError as error:
            logger.debug("which attempt is this rank's own cannot be asked: %s", error)
            return None


def _has_failed_before(state: RunState, request: UpdateStatusRequest) -> bool:
    """Whether a failure of the same attempt is on record that came before the one to be reported."""
    mine, theirs = json.loads(request.status_metadata or "null"), state.status_metadata
    if not isinstance(mine, dict) or not isinstance(theirs, dict) or Failure.of_status(theirs) is None:
        return False
    is_same = all(theirs.get(name) == mine.get(name) for name in ("launch", "attempt"))
    return state.status in ("FAILED", "TERMINATED") and is_same and precedes(theirs, mine)
