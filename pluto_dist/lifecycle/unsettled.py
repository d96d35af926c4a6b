"""A run whose creation is not settled yet: kept on disk before ``init()`` returns, or by the rank that ends.

One rank keeps the create-run request: the first to claim it in the store that the ranks share, or, as long as this
rank is not connected, the first of its node. Several nodes may each keep it; the external id makes them one run. The
request is removed once the rank learns that the run is in the tracker, or kept by its owner.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.contract import attempts
from pluto_dist.errors import ExchangeError
from pluto_dist.identity import Named
from pluto_dist.inventory.probes.process import GIT_SECONDS
from pluto_dist.inventory.records import Process
from pluto_dist.lifecycle.agreement import agree
from pluto_dist.lifecycle.context import RankContext
from pluto_dist.lifecycle.creation import CreationContext
from pluto_dist.lifecycle.election import enqueue_create
from pluto_dist.lifecycle.inventory_gather import cluster_document
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.lifecycle.supervision import report_begin
from pluto_dist.log import logger
from pluto_dist.rendezvous.session import Session


class UnsettledRun:
    """What this rank keeps of its run until the run is settled.

    Args:
        plan: what ``init()`` decided.
        session: this process's connection to the other ranks.
    """

    def __init__(self, plan: Plan, session: Session) -> None:
        self._plan, self._session = plan, session
        self._lock = threading.Lock()
        self._is_settled = False
        self._process: Callable[[], Process] | None = None
        self._context: RankContext | None = None
        self._outbox: Outbox | None = None

    @property
    def context(self) -> RankContext | None:
        """This rank as it was when the run was kept; ``None`` if it was not, or could not be."""
        return self._context

    @property
    def outbox(self) -> Outbox | None:
        """What this rank keeps; ``None`` if that is nothing."""
        return self._outbox

    def keep(
        self, connected: RankContext | None, process: Callable[[], Process] | None, *, guesses: bool = True
    ) -> None:
        """Keep the create-run request, unless another rank has claimed to; does nothing the second time.

        Args:
            connected: this rank, once it has agreed with the others on the run.
            process: waits for the description of this process; ``None`` if there is none.
            guesses: whether rank 0 keeps a run also if the others may agree on another one before they hear of it.
        """
        with self._lock:
            if self._context is None and not self._is_settled:
                described = time.monotonic() > self._plan.started + GIT_SECONDS + 0.5  # else init() would wait for git
                self._process = process if described else None
                self._keep(connected, guesses=guesses)

    def agreed(self, connected: RankContext) -> None:
        """The ranks have agreed on the run: what was kept before under another id is kept under this one."""
        with self._lock:
            before = self._context
            if before is None or before.run_name == connected.run_name:
                return
            self._retract()
            self._keep(connected, guesses=False)

    def settled(self) -> None:
        """The run is in the tracker, or its owner keeps it: what this rank keeps is not needed any more."""
        with self._lock:
            self._is_settled = True
            self._retract()

    def refused(self) -> None:
        """The run is refused: nothing is kept from now on."""
        with self._lock:
            self._is_settled = True

    def _keep(self, connected: RankContext | None, *, guesses: bool) -> None:
        mine = False
        try:
            mine = connected is not None and connected.channel.claim("keeper")
        except ExchangeError as error:
            logger.debug("the run is kept without the other ranks: %s", error)
            connected = None
        context = connected or alone(self._plan, self._session, guesses=guesses)
        if context is None:
            return
        self._context = context
        if mine or (connected is None and context.channel.claim_on_node("keeper")):
            report_begin(context)
            # An outbox of its own: the thread of this rank, and `retract`, know only of their own requests.
            self._outbox = self._plan.outbox(context.agreed.reference, context.membership.token)
            enqueue_create(self._plan, creation_of(context, self._process), self._outbox)

    def _retract(self) -> None:
        if self._outbox is not None:
            self._outbox.retract()
            self._outbox = None


def alone(plan: Plan, session: Session, *, guesses: bool) -> RankContext | None:
    """This rank without the others, in the run that they agree on, or would; ``None`` if it cannot know which.

    The ranks of one node find the launch's token in the state of their node. Where there is none, rank 0 makes one: a
    guess, for the others may have made one too, unless the run is named.
    """
    topology = plan.topology
    membership = session.alone(plan.context, plan.host)
    state = membership.node_state
    is_first_node = topology.node_count == 1 or topology.node_rank == 0
    shared = state.is_persistent and (is_first_node or state.get("token") is not None)
    is_sure = isinstance(plan.decision, Named) or topology.world_size == 1
    if not shared and not (plan.is_rank_zero and (guesses or is_sure)):
        return None
    token = membership.agree_on_token(1, 0.0)
    channel = membership.run(plan.nth)
    agreed = agree(plan, channel, token)
    outbox = plan.outbox(agreed.reference, token)
    return RankContext(plan, membership, channel, agreed, None, outbox, threading.Event())


def creation_of(context: RankContext, process: Callable[[], Process] | None = None) -> CreationContext:
    """What this rank knows for the create-run call by now, without waiting for other ranks."""
    plan, membership = context.plan, context.membership
    document = None
    try:
        if plan.settings.metadata:
            document = cluster_document(plan.topology, membership.inventories(), process and process())
        return CreationContext.of(context, document)
    except ExchangeError as error:
        logger.debug("what the other ranks know is not recorded: %s", error)
        key = context.outbox.attempt or attempts.key(time.time(), plan.host)  # that of the create that it has sent
        return CreationContext(context.agreed, membership.token, key, (plan.host,), None, None, document)
