"""The requests about one run from a live process, in order; what the tracker does not take is kept and sent later.

During an outage every request goes to the queue on disk, behind those that wait there, so that no request overtakes
another and none is lost with the process. While the tracker answers, nothing here touches the disk.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pluto_dist.client.ending import report_end
from pluto_dist.client.lookup import look_up
from pluto_dist.client.offline.entry import REQUESTS, Entry, Request, next_ms
from pluto_dist.client.offline.queue import RunQueue
from pluto_dist.client.offline.replay import Replayed, attach, replay
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_ref import RunName
from pluto_dist.contract.run_requests import CreateRunRequest, RunState, UpdateConfigRequest, UpdateStatusRequest
from pluto_dist.errors import RequestRefusedError, RunInUseError, TrackerUnavailableError, UnexpectedAnswerError
from pluto_dist.log import logger

LOCK_SECONDS = 5.0  # how long to wait for a sync that sends the same run


class Outbox:
    """The requests of one run, from one process.

    Args:
        root: the spool's folder; ``None`` keeps requests in memory.
        name: the run.
        launch: the launch's token.
        resumes: whether it continues a run that exists only if no other launch is alive in it.
        begins: whether it goes into no run that another launch, or program, has begun.

    Attributes:
        launch: the launch's token.
        attempt: the key of the attempt's record, which is kept with an end; "" while it is not known.
        trouble: why the disk does not take what is kept; "" if it does.
    """

    def __init__(
        self, root: Path | None, name: RunName, launch: str, *, resumes: bool = False, begins: bool = False
    ) -> None:
        self.name = name
        self.launch, self._resumes, self._begins = launch, resumes, begins
        self._queue = RunQueue(root, name)
        self._has_warned = False
        self._has_pending = False  # later requests must not overtake what is kept
        self._last: Entry | None = None
        self._sending = threading.Lock()
        self.attempt = self.trouble = ""

    @property
    def folder(self) -> Path | None:
        """The folder of the run's requests; ``None`` if they are in memory only."""
        return self._queue.folder

    @property
    def has_pending(self) -> bool:
        """Whether requests are kept that the tracker has not taken, as far as this process knows."""
        return self._has_pending

    def check(self) -> bool:
        """Whether requests of this launch are on disk, by whatever process; :attr:`has_pending` is so from then on."""
        self._has_pending = self._has_pending or self._queue.holds(self.launch)
        return self._has_pending

    def enqueue(self, request: Request, key: str = "", fork_of: str = "") -> None:
        """Keep a request for later, behind those that are kept already.

        Args:
            request: a create without a time of its own, and an end, get the current time.
            key: of the record of a create's attempt.
            fork_of: the display id of the run that a create forks from, if only that is known.
        """
        now = time.time_ns() // 1_000_000
        if isinstance(request, CreateRunRequest):
            request = replace(request, created_at=now if request.created_at is None else request.created_at)
            self.attempt = key
        elif isinstance(request, UpdateStatusRequest):
            request = replace(request, status_updated=now if request.status_updated is None else request.status_updated)
            key = self.attempt
        kind = next(kind for kind, record in REQUESTS.items() if isinstance(request, record))
        self._last = Entry(self.name, self.launch, kind, next_ms(), request, key, fork_of, self._resumes, self._begins)
        if not self._queue.enqueue(self._last):
            why, said = self._queue.warnings.pop(), self.trouble
            self.trouble = why
            if not said and self.folder is not None:  # without a folder that is logged when the run begins
                self._has_warned = True
                logger.warning(
                    "nothing can be kept in %s (%s); what is recorded is lost if this process ends before the tracker "
                    "answers",
                    self.folder.parent,
                    why,
                )
        self._has_pending = True

    def holds_create(self) -> bool:
        """Whether what is kept of this launch begins with the create-run request, by whatever process."""
        return any(entry.kind == "create" and entry.launch == self.launch for entry, _ in self._queue.entries())

    def was_set_aside(self) -> bool:
        """Whether requests of this launch were set aside, by whatever process: the run was refused."""
        return self._queue.has_set_aside(self.launch)

    def retract(self) -> None:
        """Remove the one request that this process kept, since the tracker has it from another rank."""
        with suppress(OSError), self._queue.locked(0):  # a sender that holds it sends the request again, to no effect
            for entry, file in self._queue.entries():
                if entry == self._last:
                    self._queue.remove(entry, file)
        self._has_pending = False

    def set_aside(self, why: str) -> None:
        """Move what is kept of this launch to a folder where a person can look at it: the run was refused."""
        if self.check():
            logger.warning("nothing of this launch goes to the run, what was kept is set aside: %s", why)
        with suppress(OSError), self._queue.locked(0):
            for entry, file in self._queue.entries():
                if entry.launch == self.launch and file is not None:
                    self._queue.set_aside(file, why)
        self._queue.warnings.clear()
        self._has_pending = False

    def send(
        self,
        client: TrackerClient | None,
        request: UpdateConfigRequest | UpdateStatusRequest,
        deadline: float,
        state: RunState | None = None,
    ) -> bool:
        """Send a request, or keep it if the tracker cannot be reached or others wait; whether it was sent.

        Args:
            client: of the tracker.
            request: an end or a change of the config.
            deadline: on the monotonic clock.
            state: the run as the tracker has it, if an end is sent and that was just asked.

        Raises:
            TrackerError: the tracker refused it.
        """
        # One at a time: of two configs that are merged at the same time, the hosted tracker loses keys.
        is_turn = self._sending.acquire(timeout=max(0.0, deadline - time.monotonic()))
        try:
            if client is not None and request.run_id and not self._has_pending and is_turn:
                try:
                    self._send(client, request, deadline, state)
                    return True
                except (TrackerUnavailableError, UnexpectedAnswerError) as error:
                    logger.debug("kept for later: %s", error)
            self.enqueue(request)
            return False
        finally:
            if is_turn:
                self._sending.release()

    def flush(
        self,
        client: TrackerClient,
        deadline: float,
        *,
        attach_anyway: bool = False,
        pause: Callable[[float], object] | None = None,
    ) -> Replayed | None:
        """Try to send what is kept; the result, and ``None`` if more is to be sent to a run that is not over.

        Args:
            client: of the tracker.
            deadline: on the monotonic clock.
            attach_anyway: attach to the run even if nothing had to be sent: another process may have created it.
            pause: waits for that many seconds while it is not known whether another launch is alive in the run;
                without it nothing is sent then.

        Raises:
            AuthenticationError: the tracker refuses the key.
            RunInUseError: another launch is alive in the run.
        """
        try:
            with self._queue.locked(min(LOCK_SECONDS, max(0.0, deadline - time.monotonic()))) as mine:
                done = self._replay(client, deadline, pause) if mine else None
            if done is not None and done.answer is None and attach_anyway and not done.is_over:
                done = self._attached(client, done, deadline)
        except (TrackerUnavailableError, UnexpectedAnswerError, RequestRefusedError, OSError) as error:
            logger.debug("what is kept was not taken: %s", error)
            return None
        except RunInUseError as error:
            if pause is not None:
                raise
            logger.debug("what is kept stays there: %s", error)
            return None
        finally:
            self._tell_warnings()
        self._has_pending = self._queue.holds(self.launch)
        return done if done is not None and (done.is_over or not self._has_pending) else None

    def _replay(self, client: TrackerClient, deadline: float, pause: Callable[[float], object] | None) -> Replayed:
        return replay(self._queue, client, deadline=deadline, launch=self.launch, attempt=self.attempt, pause=pause)

    def _attached(self, client: TrackerClient, done: Replayed, deadline: float) -> Replayed:
        """``done`` with the answer to an attach, unless the run was cancelled: that would revive it."""
        found = look_up(client, self.name, deadline=deadline)
        if found is not None and found.status == "CANCELLED":
            return replace(done, is_over=True)
        return replace(done, answer=attach(self.name, client, deadline=deadline))

    def _tell_warnings(self) -> None:
        for warning in self._queue.warnings:  # a disk that fails once fails for each file, again and again
            logger.log(logging.DEBUG if self._has_warned else logging.WARNING, "%s", warning)
            self._has_warned = True
        self._queue.warnings.clear()

    def _send(
        self,
        client: TrackerClient,
        request: UpdateConfigRequest | UpdateStatusRequest,
        deadline: float,
        state: RunState | None,
    ) -> None:
        if isinstance(request, UpdateStatusRequest):
            report_end(client, request, deadline=deadline, state=state)
        else:
            client.update_config(request, deadline=deadline)
