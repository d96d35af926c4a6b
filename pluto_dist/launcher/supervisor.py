"""The launcher's side of a run: its signs of life, a cancel from the tracker, and the end that is told once.

One in the process of each node's agent, above the workers, whom it outlives; it learns from their notes which run
they are in. The node of rank 0 beats, between attempts too; the others look now and then whether it does, and
stand in for it if not. Whatever the tracker does here, the training goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.client.offline.replay import earlier
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_ref import Reference, RunName
from pluto_dist.contract.run_requests import RunState, UpdateStatusRequest
from pluto_dist.errors import PlutoDistError, TrackerUnavailableError, UnexpectedAnswerError
from pluto_dist.launcher.root_cause import Cause, Status
from pluto_dist.log import logger
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.worker_reports import RunReport, noted_run

END_SECONDS = 20.0  # how long the end is tried to be told
CATCH_UP_SECONDS = 5.0  # the same for a run that the tracker does not know of
LOOK_EVERY = 3  # heartbeats between two looks of a node that does not beat
SILENT_BEATS = 3.5  # after so many missed heartbeats, and 5 s, another node beats
SETTLE_SECONDS = 1.5  # an attach or a cause that crosses ours on the way is seen after this long
SETTLE_TRIES = 3


class Supervisor:
    """Watches over the run of this node's workers.

    Args:
        folder: where the workers leave their notes.
        client: gives a client of the tracker, or ``None`` where the job is offline.
        heartbeat: seconds between two signs of life.
        on_cancel: called once, in the supervisor's thread, when the run was cancelled in the tracker.

    Attributes:
        cancelled: whether it was.
        note: the run, once the workers are in one.
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
        self.note: RunReport | None = None
        self._folder, self._new_client, self._spool, self._on_cancel = folder, client, spool, on_cancel
        self._heartbeat = heartbeat
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pluto_dist supervisor", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        client, turn = self._new_client(), 0
        while not self._stop.wait(self._heartbeat if self.note else min(1.0, self._heartbeat)):
            self._look_at_notes(client)
            if client is None or self.note is None or not self.note.run_id:  # the workers' side joins what is offline
                continue
            try:
                status = self._sign_of_life(client, self.note, turn)
            except PlutoDistError as error:
                logger.debug("a sign of life was not taken: %s", error)
            else:
                if status == "CANCELLED" and not self.cancelled:
                    self.cancelled = True
                    self._on_cancel()
            turn += 1
        if client is not None:
            client.close()

    def _look_at_notes(self, client: TrackerClient | None) -> None:
        note, before = noted_run(self._folder), self.note
        if before is not None and note is not None and before.nth != note.nth and before.node_rank == 0:
            self._tell_or_keep(client, before, "COMPLETED", None)  # the script finished one run and began the next
        self.note = note or before

    def _sign_of_life(self, client: TrackerClient, note: RunReport, turn: int) -> str | None:
        """The run's status, where this turn asked for it."""
        if note.node_rank == 0:
            return client.heartbeat(note.run_id, deadline=_soon()).status
        if turn % LOOK_EVERY:
            return None
        state = client.details(note.run_id, deadline=_soon())
        if state is not None and state.status == "RUNNING" and self._is_silent(state, client.server_time):
            return client.heartbeat(note.run_id, deadline=_soon()).status
        return None if state is None else state.status

    def _is_silent(self, state: RunState, now: float) -> bool:
        return state.last_sign is not None and now - state.last_sign > SILENT_BEATS * self._heartbeat + 5

    def end(self, status: Status, cause: Cause | None = None) -> Cause | None:
        """Tell the tracker how the job ended.

        Nodes tell it independently: a success is the word of rank 0's node alone, of several failures the
        earliest stays on record.

        Returns:
            The cause on record, another node's perhaps; ``None`` where there is no run, or nothing went wrong.
        """
        self._stop.set()
        self._thread.join(2 * self._heartbeat)
        self.note = noted_run(self._folder) or self.note
        if self.note is None or (status == "COMPLETED" and self.note.node_rank != 0):
            return cause
        client = self._new_client()
        try:
            return self._tell_or_keep(client, self.note, status, cause)
        finally:
            if client is not None:
                client.close()

    def _tell_or_keep(
        self, client: TrackerClient | None, note: RunReport, status: Status, cause: Cause | None
    ) -> Cause | None:
        """Tell the tracker, or keep the end with what is kept of the run already; the cause on record."""
        end = UpdateStatusRequest.of(note.run_id, status, None if cause is None else cause.to_json())
        name = RunName(note.origin, note.project, Reference.of(note.kind, note.value))
        outbox = Outbox(self._spool, name, note.launch)
        try:
            if client is not None and note.run_id and not outbox.check():
                return self._tell(client, note, status, cause)
            outbox.enqueue(end)
            if client is not None:
                outbox.flush(client, time.monotonic() + CATCH_UP_SECONDS)
        except (TrackerUnavailableError, UnexpectedAnswerError) as error:
            outbox.enqueue(end)
            told = "the run's end (%s) could not be told to the tracker; `pluto-dist sync` will (it is kept in %s): %s"
            logger.warning(told, status, outbox.folder, error)
        except PlutoDistError as error:
            logger.warning("the run's end (%s) was not taken by the tracker: %s", status, error)
        return cause

    def _tell(self, client: TrackerClient, note: RunReport, status: Status, cause: Cause | None) -> Cause | None:
        for _ in range(SETTLE_TRIES):
            state = client.details(note.run_id, deadline=_soon())
            if state is None:
                return cause
            if cause is not None and state.status in ("FAILED", "TERMINATED"):
                if earlier(state.status_metadata, cause.at):
                    return _as_cause(state.status_metadata, cause)
            elif state.status == status:
                return cause
            document = None if cause is None else cause.to_json()
            client.update_status(UpdateStatusRequest.of(note.run_id, status, document), deadline=_soon())
            if status == "COMPLETED":
                return cause
            time.sleep(SETTLE_SECONDS)
        return cause


def _as_cause(recorded: object, mine: Cause) -> Cause:
    """Another node's cause as far as it can be read; ours where it cannot."""
    fields = recorded if isinstance(recorded, dict) else {}
    reason, host, rank = fields.get("reason"), fields.get("host"), fields.get("rank")
    if not isinstance(reason, str) or not isinstance(host, str):
        return mine
    return Cause(reason, mine.at, host, rank if isinstance(rank, int) else None)


def _soon() -> float:
    return time.monotonic() + END_SECONDS
