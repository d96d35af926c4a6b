"""The launcher's side of a run: its heartbeats, a cancel in the tracker, and the report of its end.

Each node's agent has one in its process, above the workers, which it outlives; it learns from their reports which run
they are in. The node of rank 0 sends the heartbeats, between attempts too; the others check now and then that it does,
and take over if not. Whatever fails here, the training goes on.
"""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pluto_dist.background import start_thread
from pluto_dist.client.claims import answer_claims
from pluto_dist.client.ending import report_end
from pluto_dist.client.heartbeats import HeartbeatSender
from pluto_dist.client.lookup import is_run
from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract import attempts
from pluto_dist.contract.failure import Failure, now_ms, precedes
from pluto_dist.contract.run_requests import RunState, UpdateStatusRequest
from pluto_dist.errors import PlutoDistError, TrackerUnavailableError, UnexpectedAnswerError
from pluto_dist.launcher.root_cause import Status
from pluto_dist.lifecycle.node_signs import silence_limit
from pluto_dist.log import logger
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.worker_reports import RunReport, read_end, read_run

END_SECONDS = 20.0  # how long the end is tried to be reported
FLUSH_SECONDS = 5.0  # the same for a run that the tracker does not have yet
CHECK_EVERY = 3  # heartbeats between two checks of a node that sends none
SETTLE_SECONDS = 1.5  # an attach or a failure that crosses ours on the way is seen after so long
SETTLE_TRIES = 3
RIGHT_CLOCK_SECONDS = 3.0  # a clock that differs less from the tracker's is taken for right


class Supervisor:
    """Supervises the run of this node's workers.

    Args:
        folder: where the workers leave their reports.
        client: makes a client of the tracker, or ``None`` if the job is offline.
        spool: where the end is kept if the tracker does not take it.
        heartbeat: seconds between two heartbeats.
        on_cancel: called once, in the supervisor's thread, when the run was cancelled in the tracker.

    Attributes:
        cancelled: whether it was.
        run: the run, once the workers are in one.
        status: how the run ended, after :meth:`end`.
    """

    def __init__(
        self,
        folder: NodeState,
        client: Callable[[], TrackerClient | None],
        spool: Path | None,
        heartbeat: float,
        on_cancel: Callable[[], None],
    ) -> None:
        self.cancelled = False
        self.run: RunReport | None = None
        self.status: Status | None = None
        self._folder, self._new_client, self._spool, self._on_cancel = folder, client, spool, on_cancel
        self._heartbeat = heartbeat
        self._stop = threading.Event()
        lost = "the launcher sends no more heartbeats, and a cancel in the tracker does not stop the job"
        self._thread = start_thread(self._watch, "pluto_dist supervisor", lost=lost)

    def _watch(self) -> None:
        client, turn = self._new_client(), 0
        sender = None if client is None else HeartbeatSender(client)
        due = time.monotonic() + self._interval
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            self._read_reports(client)
            due = time.monotonic() + self._interval
            if client is None or sender is None or self.run is None or not self.run.run_id:
                continue  # the workers recover what is offline
            try:
                status = self._check(client, sender, self.run, turn)
            except PlutoDistError as error:
                logger.debug("a heartbeat was not taken: %s", error)
            else:
                if status == "CANCELLED" and not self.cancelled:
                    self.cancelled = True
                    self._on_cancel()
            self._answer_claims(client, self.run)
            turn += 1
        if client is not None:
            client.close()

    @property
    def _interval(self) -> float:
        """Seconds between two looks; shorter while the run is not settled."""
        return self._heartbeat if self.run and self.run.is_settled else min(1.0, self._heartbeat)

    def _next(self) -> float:
        """When a request is given up that a heartbeat makes: a launch that is silent for longer counts as ended."""
        return time.monotonic() + min(self._heartbeat, END_SECONDS)

    def _read_reports(self, client: TrackerClient | None) -> None:
        """Read which run the workers are in, and end those that the script finished before it began that one."""
        run, before = read_run(self._folder), self.run
        for nth in range(before.nth if before else 1, run.nth if run else 1):
            done = read_run(self._folder, nth)
            if done is not None and done.owns:
                status, failure = read_end(self._folder, done) or ("COMPLETED", None)
                self._report_or_keep(client, done, status, failure)
        self.run = run or before

    def _answer_claims(self, client: TrackerClient, run: RunReport) -> None:
        if not run.owns or not run.continues_job:
            return
        try:
            answer_claims(client, run.run_id, run.launch, socket.gethostname(), deadline=self._next())
        except PlutoDistError as error:
            logger.debug("claims on the run cannot be answered: %s", error)

    def _check(self, client: TrackerClient, sender: HeartbeatSender, run: RunReport, turn: int) -> str | None:
        """Send a heartbeat if it is this node's turn; the run's status, if the tracker was asked."""
        deadline = self._next()
        if run.owns:
            return sender.send(run.run_id, deadline=deadline)
        if turn % CHECK_EVERY:
            return None
        state = client.details(run.run_id, deadline=deadline)
        if not is_run(state, run.name):  # the workers have the number from the ranks' store
            return None
        if state is not None and state.status == "RUNNING" and self._is_silent(state, client.server_time):
            return client.heartbeat(run.run_id, deadline=deadline).status
        return None if state is None else state.status

    def _is_silent(self, state: RunState, now: float) -> bool:
        return state.last_sign is not None and now - state.last_sign > silence_limit(self._heartbeat)

    def end(self, status: Status, failure: Failure | None = None) -> Failure | None:
        """Report to the tracker how the job ended.

        What a rank said of the run counts if its job goes on to succeed. Nodes report independently: a success is
        reported by the node of the run's owner alone, of several failures the earliest stays on record.

        Returns:
            The failure on record, which may be another node's; ``failure`` if there is no run.
        """
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2 * self._heartbeat)
        client = self._new_client()
        try:
            self._read_reports(client)
            if status == "COMPLETED" and self.run is not None:
                status, failure = read_end(self._folder, self.run) or (status, failure)
            self.status = status
            if self.run is None or self.run.is_refused or (status == "COMPLETED" and not self.run.owns):
                return failure
            if failure is not None and failure.at_ms is None:
                failure = dataclasses.replace(failure, at_ms=now_ms())
            return self._report_or_keep(client, self.run, status, failure)
        finally:
            if client is not None:
                client.close()

    def _report_or_keep(
        self, client: TrackerClient | None, run: RunReport, status: Status, failure: Failure | None
    ) -> Failure | None:
        """Report the end, or keep it behind requests of the run that are kept already; the failure on record."""
        client = None if run.stays_offline else client
        outbox, end = Outbox(self._spool, run.name, run.launch, resumes=run.continues_job), _end(run, status, failure)
        try:
            if client is not None and run.run_id and not outbox.check():
                return self._report(client, run, status, failure)
            outbox.enqueue(end)
            if client is not None:
                outbox.flush(client, time.monotonic() + FLUSH_SECONDS)
            if client is not None and not run.is_settled:  # a create may be on its way whose sender was stopped
                time.sleep(SETTLE_SECONDS)
                if not outbox.check():
                    outbox.enqueue(end)
                outbox.flush(client, time.monotonic() + FLUSH_SECONDS)
            is_refused = outbox.was_set_aside() and not run.run_id
            if (is_refused or not run.is_settled) and not outbox.holds_create():  # it was never created
                outbox.retract()
        except (TrackerUnavailableError, UnexpectedAnswerError) as error:
            outbox.enqueue(end)
            told = (
                "the run's end (%s) could not be reported to the tracker; `pluto-dist sync` will (it is kept in %s): %s"
            )
            logger.warning(told, status, outbox.folder, error)
        except PlutoDistError as error:
            logger.warning("the run's end (%s) was not taken by the tracker: %s", status, error)
        return failure

    def _report(self, client: TrackerClient, run: RunReport, status: Status, failure: Failure | None) -> Failure | None:
        correction: int | None = None
        for _ in range(SETTLE_TRIES):
            deadline = time.monotonic() + END_SECONDS
            state = client.details(run.run_id, deadline=deadline)
            if state is None or not (run.owns or is_run(state, run.name)) or self._is_superseded(state, run):
                return failure
            if failure is not None and correction is None:
                correction = _clock_correction_ms(client.server_time)
                failure = dataclasses.replace(failure, at_ms=(failure.at_ms or 0) + correction)
            if failure is not None and state.status in ("FAILED", "TERMINATED"):
                if not precedes(failure.to_json(), state.status_metadata):
                    recorded = Failure.of_status(state.status_metadata)
                    return dataclasses.replace(recorded, at_ms=failure.at_ms) if recorded else failure
            elif state.status == status:
                return failure
            report_end(client, _end(run, status, failure), deadline=deadline, state=state)
            if status == "COMPLETED":
                return failure
            time.sleep(SETTLE_SECONDS)
        return failure

    def _is_superseded(self, state: RunState, run: RunReport) -> bool:
        """Whether a later launch has gone on with the run, which then ends it."""
        return attempts.has_gone_on(attempts.recorded(state.config), launch=run.launch)


def _clock_correction_ms(server_time: float) -> int:
    """What to add to this node's times to have the tracker's; 0 if its clock is about right.

    The tracker's time has whole seconds. Clocks that are synchronised differ by less, and order failures better.
    """
    difference = server_time - time.time()
    return round(1000 * difference) if abs(difference) > RIGHT_CLOCK_SECONDS else 0


def _end(run: RunReport, status: Status, failure: Failure | None) -> UpdateStatusRequest:
    document = None if failure is None else failure.to_json()
    return UpdateStatusRequest.of(run.run_id, status, document, run.updated_at).told_by(run.launch)
