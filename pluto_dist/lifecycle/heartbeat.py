"""The signs of life of a run: from one rank of the job, and from another one should that fall silent.

Runs in the run's own thread. Where `pluto-dist run` is above the workers it beats, between attempts too, and this
rank only counts, so that the others know of it. A heartbeat's answer is how a cancel reaches the job, and how an
outage that outlasted the tracker's patience is found out: the run is then brought back.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable

from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract import attempts
from pluto_dist.contract.run_requests import UpdateConfigRequest
from pluto_dist.errors import ExchangeError, TrackerError
from pluto_dist.lifecycle.inventory_gather import LateNodes
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.lifecycle.shutdown import END_SECONDS
from pluto_dist.log import logger
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.run_channel import RunChannel

SILENT_BEATS = 3.5  # after so many missed heartbeats, and 5 s, another rank beats
OUTAGE_SECONDS = 30.0  # after so long without an answer a run that the tracker has ended meanwhile is brought back
_SLICE = 0.5


class Heartbeat:
    """One rank's part in the signs of life of a run.

    Args:
        plan: what ``init()`` set out to do.
        exchange: this rank's place in the attempt.
        run: what the ranks say of the run.
        client: of the tracker.
        outbox: what could not be sent; it is tried again once the tracker answers.
        run_id: the tracker's number of the run.
        stop: ends it.
        supervised: whether a launcher is above that beats.
    """

    def __init__(
        self,
        plan: Plan,
        exchange: Membership,
        run: RunChannel,
        client: TrackerClient,
        outbox: Outbox,
        run_id: int,
        stop: threading.Event,
        supervised: Callable[[], bool],
    ) -> None:
        self._plan, self._exchange, self._run = plan, exchange, run
        self._client, self._outbox, self._run_id = client, outbox, run_id
        self._stop, self._is_supervised = stop, supervised
        self._heard = time.monotonic()
        self._cancelled = False

    def beat(self, gathered: frozenset[str]) -> None:
        """Beat until the end, and add the nodes to the record that were late for the document of ``gathered``."""
        late = LateNodes(self._plan.context.topology, self._exchange, gathered)
        due = time.monotonic()  # the first at once: another launch that asks must see that this one lives
        looking = late.expected
        while not self._stop.wait(max(0.0, min(_SLICE if looking else math.inf, due - time.monotonic()))):
            try:
                if time.monotonic() >= due:
                    due = time.monotonic() + self._plan.settings.heartbeat
                    self._give_sign()
                if looking and (more := late.look()):
                    config = json.dumps({"pluto_dist": {attempts.FIELD: {self._run.recorded_key(): more}}})
                    self._outbox.send(self._client, UpdateConfigRequest(self._run_id, config), _soon())
                looking = late.expected
            except ExchangeError:
                looking = False  # the store is gone with its agent; the run, and its signs of life, go on
            except TrackerError as error:
                logger.debug("a sign of life was not taken: %s", error)

    def failover(self) -> None:
        """Beat in the leader's place, should it fall silent; one rank of each node looks now and then."""
        if not self._exchange.is_node_leader and self._plan.context.topology.rank != 1:
            return
        beats, since = -1, time.monotonic()
        while not self._stop.wait(self._plan.settings.heartbeat):
            try:
                if (now := self._run.count("beats", 0)) != beats:
                    beats, since = now, time.monotonic()
                silent = time.monotonic() - since > SILENT_BEATS * self._plan.settings.heartbeat + 5
                if silent and self._run.claim(f"sender after {beats}"):
                    self.beat(frozenset())
            except ExchangeError:
                return  # the store is gone with the leader or its agent, and this attempt with it

    def _give_sign(self) -> None:
        if not self._is_supervised():  # else the launcher beats, between attempts too
            self._heed(self._client.heartbeat(self._run_id, deadline=_soon()).status)
        if self._outbox.has_pending:
            self._outbox.flush(self._client, _soon())
        self._run.count("beats")

    def _heed(self, status: str | None) -> None:
        silent, self._heard = time.monotonic() - self._heard, time.monotonic()
        if status == "CANCELLED" and not self._cancelled:
            self._cancelled = True
            logger.warning("the run was cancelled in the tracker; this job goes on until you stop it")
        elif status in ("FAILED", "TERMINATED", "COMPLETED") and silent > OUTAGE_SECONDS:
            self._outbox.reopen(self._client, _soon())


def _soon() -> float:
    return time.monotonic() + END_SECONDS
