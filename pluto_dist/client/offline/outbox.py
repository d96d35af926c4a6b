"""What a live process has to tell the tracker of one run, in order; what is not taken is kept, and tried again.

In an outage every request goes into the spool, behind those that wait there already, so nothing overtakes and
nothing is lost with the process. With a tracker that answers, nothing here touches the disk.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from pluto_dist.client.offline.entry import REQUESTS, Entry, Request, next_ms
from pluto_dist.client.offline.queue import RunQueue
from pluto_dist.client.offline.replay import Replayed, attach, replay
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_ref import RunName
from pluto_dist.contract.run_requests import CreateRunRequest, UpdateConfigRequest, UpdateStatusRequest
from pluto_dist.errors import RequestRefusedError, TrackerUnavailableError, UnexpectedAnswerError
from pluto_dist.log import logger

LOCK_SECONDS = 5.0  # how long a sync that sends the same run is waited for


class Outbox:
    """The requests of one run, from one process.

    Args:
        root: the spool's folder, or ``None`` where there is none.
        name: the run.
        launch: the launch's token.
    """

    def __init__(self, root: Path | None, name: RunName, launch: str) -> None:
        self.name = name
        self._launch = launch
        self._spooled = RunQueue(root, name)
        self._keeps = False  # whether anything was kept, so that later requests must not overtake it
        self._last: Entry | None = None

    @property
    def folder(self) -> Path | None:
        """Where this run is kept; ``None``: in memory only."""
        return self._spooled.folder

    @property
    def has_pending(self) -> bool:
        """Whether anything is kept that the tracker has not taken."""
        return self._keeps

    def check(self) -> bool:
        """Whether anything of this run is kept on disk, by whatever process."""
        self._keeps = self._keeps or not self._spooled.is_empty
        return self._keeps

    def enqueue(self, request: Request, key: str = "", fork_of: str = "") -> None:
        """Keep a request for later, behind those that are kept already.

        Args:
            request: a create without a time of its own, and an end, get the present one.
            key: under which a create's attempt is recorded.
            fork_of: the display id of the run that a create forks from, where only that is known.
        """
        now = time.time_ns() // 1_000_000
        if isinstance(request, CreateRunRequest):
            request = replace(request, created_at=now if request.created_at is None else request.created_at)
        elif isinstance(request, UpdateStatusRequest):
            request = replace(request, status_updated=request.status_updated or now)
        kind = next(kind for kind, record in REQUESTS.items() if isinstance(request, record))
        self._last = Entry(self.name, self._launch, kind, next_ms(), request, key, fork_of)
        if not self._spooled.enqueue(self._last):
            why = self._spooled.warnings.pop()
            if not self._keeps and self.folder is not None:  # without a folder that was said when the run began
                logger.warning("%s; what is recorded is lost if this process ends before the tracker answers", why)
        self._keeps = True

    def retract(self) -> None:
        """Forget the one request that this process kept: it turns out that the tracker has it from another rank."""
        with self._spooled.locked(0):  # who holds it sends what is forgotten here, to no other effect
            for entry, file in self._spooled.entries():
                if entry == self._last:
                    self._spooled.remove(entry, file)
        self._keeps = False

    def send(
        self, client: TrackerClient | None, request: UpdateConfigRequest | UpdateStatusRequest, deadline: float
    ) -> bool:
        """Send a request, or keep it where the tracker cannot be reached or others wait; whether it was sent.

        Raises:
            TrackerError: the tracker refused it.
        """
        if client is not None and request.run_id and not self._keeps:
            try:
                self._send(client, request, deadline)
                return True
            except (TrackerUnavailableError, UnexpectedAnswerError) as error:
                logger.debug("kept for later: %s", error)
        self.enqueue(request)
        return False

    def flush(self, client: TrackerClient, deadline: float, *, joins: bool = False) -> Replayed | None:
        """Try to send what is kept; what came of it, and ``None`` where the tracker did not take all of it.

        Args:
            client: of the tracker.
            deadline: on the monotonic clock.
            joins: whether the run lives and is to be heard of: another process may have sent what created it.

        Raises:
            AuthenticationError: the tracker refuses the key.
        """
        try:
            with self._spooled.locked(min(LOCK_SECONDS, max(0.0, deadline - time.monotonic()))) as mine:
                done = replay(self._spooled, client, deadline=deadline) if mine else None
            if done is not None and done.answer is None and joins:
                done = replace(done, answer=attach(self.name, client, deadline=deadline))
        except (TrackerUnavailableError, UnexpectedAnswerError, RequestRefusedError) as error:
            logger.debug("what is kept was not taken: %s", error)
            return None
        finally:
            for warning in self._spooled.warnings:
                logger.warning("%s", warning)
            self._spooled.warnings.clear()
        self._keeps = not self._spooled.is_empty
        return None if self._keeps else done

    def reopen(self, client: TrackerClient, deadline: float) -> None:
        """Bring the run back to RUNNING, which the tracker has ended because it heard nothing of it.

        Raises:
            TrackerError: the tracker does not.
        """
        attach(self.name, client, deadline=deadline)

    def _send(self, client: TrackerClient, request: UpdateConfigRequest | UpdateStatusRequest, deadline: float) -> None:
        if isinstance(request, UpdateStatusRequest):
            client.update_status(request, deadline=deadline)
        else:
            client.update_config(request, deadline=deadline)
