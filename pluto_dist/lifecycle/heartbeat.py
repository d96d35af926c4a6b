"""Heartbeats of a run, sent by its owner, and by another rank if the owner falls silent.

Under `pluto-dist run` the launcher sends them, between attempts too, and the owner only counts, so that the other ranks
see that it is alive. The answer to a heartbeat is how a cancel reaches the job.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from typing import Any

from pluto_dist.client.claims import answer_claims
from pluto_dist.client.heartbeats import HeartbeatSender
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract import attempts, hardware
from pluto_dist.contract.hardware import Silence
from pluto_dist.contract.run_requests import RunState, UpdateConfigRequest
from pluto_dist.errors import ExchangeError, TrackerError
from pluto_dist.lifecycle.context import RankContext
from pluto_dist.lifecycle.inventory_gather import LateNodes, lacking
from pluto_dist.lifecycle.node_signs import NodeWatch, silence_limit
from pluto_dist.lifecycle.shutdown import END_SECONDS, status_deadline
from pluto_dist.lifecycle.supervision import is_supervised, launcher_sends_heartbeats
from pluto_dist.log import logger
from pluto_dist.rendezvous.store_thread import ANSWER_SECONDS, answers_within

_SLICE = 0.5  # how often the owner looks for late nodes


class Heartbeat:
    """The heartbeats of one run, as one rank sends or watches them.

    Args:
        context: this rank.
        client: of the tracker.
        run_id: the tracker's number of the run.
    """

    def __init__(self, context: RankContext, client: TrackerClient, run_id: int) -> None:
        self._context, self._client, self._run_id = context, client, run_id
        self._sender = HeartbeatSender(client)
        self._cancelled = False

    def run(self, gathered: frozenset[str], silences: Sequence[Silence] = ()) -> None:
        """Send heartbeats until the end, and add to the attempt's record what becomes of its nodes.

        Args:
            gathered: the nodes whose inventory is in the run's metadata; the others are added once they come.
            silences: the nodes that are recorded as silent.
        """
        context = self._context
        late, watch = LateNodes(context, gathered), NodeWatch(context, silences)
        due = time.monotonic()  # the first at once: another launch that asks must see that this one is alive
        looking = late.expected
        while not context.stop.wait(max(0.0, min(_SLICE if looking else math.inf, due - time.monotonic()))):
            try:
                with answers_within(ANSWER_SECONDS):  # the run's heartbeats go on, whatever becomes of the store
                    if time.monotonic() >= due:
                        due = time.monotonic() + context.plan.settings.heartbeat
                        try:
                            self._send()
                        finally:  # also where the address for heartbeats does not answer
                            self._answer_claims()
                        if (changed := watch.look()) is not None:
                            self._add_to_record({hardware.SILENT: changed})
                    if looking and late.look():
                        self._add_to_record(lacking(context, context.channel.recorded_key(), self._state()))
                    looking = late.expected
            except ExchangeError:
                looking = False  # until the store answers; if it ended with its agent, the run goes on without it
            except TrackerError as error:
                logger.debug("a heartbeat was not taken: %s", error)

    def failover(self) -> None:
        """Send the heartbeats if the owner falls silent; one rank of each node watches it."""
        context = self._context
        interval = context.plan.settings.heartbeat
        if not context.membership.is_node_leader and context.plan.topology.rank != 1:
            return
        count, since = -1, time.monotonic()
        while not context.stop.wait(interval):
            try:
                if (now := context.channel.count("beats", 0)) != count:
                    count, since = now, time.monotonic()
                silent = time.monotonic() - since > silence_limit(interval)
                if silent and context.channel.claim(f"sender after {count}"):
                    # What is recorded of the nodes is not known here: the record is asked before anything is added.
                    self.run(frozenset(), self._recorded_silences())
            except ExchangeError:
                return  # the store ended with the owner or its agent, and with it this attempt

    def _send(self) -> None:
        context, outbox = self._context, self._context.outbox
        if not launcher_sends_heartbeats(context):
            status = self._sender.send(self._run_id, deadline=self._next())
            if status == "CANCELLED" and not self._cancelled:
                self._cancelled = True
                context.channel.close()  # an attach would revive it
                logger.warning("the run was cancelled in the tracker; this job goes on until you stop it")
        if outbox.has_pending:
            outbox.flush(self._client, status_deadline())
        context.channel.count("beats")

    def _answer_claims(self) -> None:
        context = self._context
        if context.plan.continues_job and not is_supervised(context.plan):
            token, host = context.membership.token, context.plan.host
            answer_claims(self._client, self._run_id, token, host, deadline=self._next())

    def _next(self) -> float:
        """When a request is given up that a heartbeat makes: a launch that is silent for longer counts as ended."""
        return time.monotonic() + min(self._context.plan.settings.heartbeat, END_SECONDS)

    def _add_to_record(self, more: dict[str, Any]) -> None:
        """Merge ``more`` into this attempt's record in the config, or keep it for later."""
        if more:
            config = json.dumps({"pluto_dist": {attempts.FIELD: {self._context.channel.recorded_key(): more}}})
            self._context.outbox.send(self._client, UpdateConfigRequest(self._run_id, config), status_deadline())

    def _state(self) -> RunState | None:
        try:
            return self._client.details(self._run_id, deadline=status_deadline())
        except TrackerError as error:
            logger.debug("what is recorded of this attempt cannot be asked: %s", error)
            return None

    def _recorded_silences(self) -> tuple[Silence, ...]:
        state = self._state()
        records = {} if state is None else attempts.recorded(state.config)
        mine = records.get(self._context.channel.recorded_key() or "")
        return hardware.silences(mine) if isinstance(mine, dict) else ()
