"""Signs of life of the nodes: each node leader gives them in the store, the owner watches them.

The tracker is asked nothing for it. The owner changes the attempt's record when a node falls silent or comes back, and
only then; every other node lives as long as the run's own heartbeats do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from pluto_dist.background import start_thread
from pluto_dist.contract.hardware import Silence
from pluto_dist.errors import ExchangeError
from pluto_dist.lifecycle.context import RankContext
from pluto_dist.log import logger
from pluto_dist.rendezvous.run_channel import SIGNED_OFF

MISSED_HEARTBEATS = 3.5  # after so many, and 5 s, a node or the run's owner is silent
MOST_HEARTBEATS_APART = 64  # of two changes of the record; the first ones may follow each other faster
SIGN_OFF_SECONDS = 1.0  # how long the end waits for a node to sign off
MOST_NAMES = 5  # of nodes, in one warning


def silence_limit(heartbeat: float) -> float:
    """Seconds without a sign of life after which one that should come every ``heartbeat`` seconds is missed."""
    return MISSED_HEARTBEATS * heartbeat + 5


def has_other_nodes(context: RankContext) -> bool:
    """Whether this job may have more than one node."""
    topology = context.plan.topology
    return topology.world_size > 1 and topology.node_count != 1


@contextmanager
def signs_of_life(context: RankContext) -> Iterator[None]:
    """Give the signs of this rank's node, if this rank is its leader, in a thread of its own.

    An attach may wait for minutes, and a request for seconds; the signs go on. A node whose part in the run ends signs
    off, so that it is not taken for silent.
    """
    if not context.membership.is_node_leader or not has_other_nodes(context):
        yield
        return
    over = threading.Event()
    lost = "this node gives no more signs of life, and is recorded as silent"
    thread = start_thread(_give_signs, "pluto_dist signs of life", context, over, lost=lost)
    try:
        yield
    finally:
        over.set()
        if thread is not None:
            thread.join(SIGN_OFF_SECONDS)


def _give_signs(context: RankContext, over: threading.Event) -> None:
    try:
        context.channel.sign()
        while not over.wait(context.plan.settings.heartbeat):
            context.channel.sign()
        context.channel.sign_off()
    except ExchangeError as error:
        logger.debug("this node gives no more signs of life: %s", error)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A node's last sign, when the owner saw it (on the monotonic clock), and that time in ISO 8601."""

    sign: str
    at: float
    time: str


class NodeWatch:
    """The owner's watch over the nodes' signs of life.

    A node is watched from its first sign until it signs off. Changes of the record are ever farther apart, so that a
    node that comes and goes cannot cause one for each heartbeat.

    Args:
        context: the owner.
        silences: the nodes that are recorded as silent.
        clock: monotonic, in seconds.
    """

    def __init__(
        self, context: RankContext, silences: Sequence[Silence] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._context, self._clock = context, clock
        self._heartbeat = context.plan.settings.heartbeat
        self._limit = silence_limit(self._heartbeat)
        self._seen: dict[str, _Seen] = {}
        self._silences = {each.node: each for each in silences}
        self._looked = clock()
        self._has_changed = False
        self._due, self._pause = clock(), 2.0

    def look(self) -> list[dict[str, Any]] | None:
        """What the attempt's record has of silent nodes, if it is to be changed now; else ``None``.

        Raises:
            ExchangeError: the store is lost.
        """
        if not has_other_nodes(self._context):
            return None
        hosts = self._context.membership.nodes()
        signs = self._context.channel.signs(list(hosts))
        now = self._clock()
        # This process may have been suspended, or have waited for the tracker: it has not seen the others' silence.
        was_away, self._looked = now - self._looked > self._limit / 2, now
        fallen, returned = [], []
        for node, sign in signs.items():
            seen = self._seen.get(node)
            if seen is None or sign != seen.sign:
                self._seen[node] = _Seen(sign, now, _now())
                if seen is not None and self._is_silent(node):
                    self._silences[node] = replace(self._silences[node], back=self._seen[node].time)
                    returned.append(hosts[node])
            elif was_away:
                self._seen[node] = replace(seen, at=now)
            elif sign != SIGNED_OFF and not self._is_silent(node) and now - seen.at > self._limit:
                self._silences[node] = Silence(node, hosts[node], seen.time)
                fallen.append(hosts[node])
        self._report(fallen, returned)
        return self._changes(now, bool(fallen or returned))

    def _is_silent(self, node: str) -> bool:
        return node in self._silences and not self._silences[node].back

    def _changes(self, now: float, has_changed: bool) -> list[dict[str, Any]] | None:
        self._has_changed = self._has_changed or has_changed
        if not self._has_changed or now < self._due:
            return None
        self._has_changed = False
        self._due = now + self._pause * self._heartbeat
        self._pause = min(2 * self._pause, MOST_HEARTBEATS_APART)
        return [each.to_json() for each in self._silences.values()]

    def _report(self, fallen: list[str], returned: list[str]) -> None:
        if fallen:
            logger.warning(
                "no sign of life from %s for %.0f s: its processes may have been killed, or its network be down; "
                "collectives with it will wait until they time out",
                _names(fallen),
                self._limit,
            )
        if returned:
            logger.info("signs of life again from %s", _names(returned))


def _names(hosts: list[str]) -> str:
    more = f" and {len(hosts) - MOST_NAMES} more" if len(hosts) > MOST_NAMES else ""
    return ", ".join(hosts[:MOST_NAMES]) + more


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
