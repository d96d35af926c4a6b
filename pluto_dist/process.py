"""What this process remembers between two calls of ``init()``: the open run, how many there were, its place.

A forked child starts with an empty memory: the parent's run and store client are not its own.
"""

from __future__ import annotations

import os
import secrets
import threading
from dataclasses import dataclass, field

from pluto_dist.environments.context import LaunchContext
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.rendezvous import connect, node_state, store
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import Member
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.run import Run
from pluto_dist.settings.arguments import Arguments


@dataclass
class Process:
    """One process's memory.

    Attributes:
        runs: how many runs this process has set out to join.
        run: the last of them, open or not.
        given: the arguments it was asked for with.
        parent_has_run: whether this is a forked child of a process whose run was open.
    """

    parent_has_run: bool = False
    runs: int = 0
    run: Run | None = None
    given: Arguments = field(default_factory=Arguments)
    pid: int = field(default_factory=os.getpid)
    _seat: str = field(default_factory=lambda: secrets.token_hex(8))
    _exchange: Membership | None = None
    _met: LaunchContext | None = None

    @property
    def open_run(self) -> Run | None:
        """The run that another ``init()`` returns again; one whose ``with`` block failed is ended first."""
        if self.run is not None and self.run.failed:
            self.run.survived()
        return None if self.run is None or self.run.finished else self.run

    def meet(self, plan: Plan, stop: threading.Event) -> Membership:
        """This process's place among the ranks: found once, kept for its later runs, left by each run's end.

        Args:
            plan: what ``init()`` set out to do.
            stop: ends the wait for ranks that have not come.

        Raises:
            LaunchError: the ranks share no store, or it does not answer.
        """
        folder = node_state.find(plan.context)
        kept = self._exchange if self._met == plan.context else None
        own = kept.store if kept is not None and isinstance(kept.store, store.LocalStore) else None
        shared = own or connect.connect(plan.context, folder, self._seat, deadline=plan.deadline, stop=stop)
        if kept is None or not kept.continues_on(shared):
            # Only torchrun starts workers again; elsewhere a launch that finds a memory is another launch.
            memory = folder if plan.context.restart_count is not None else NodeState(None)
            kept = Membership(shared, _member(plan), memory)
        self._exchange, self._met = kept, plan.context
        return kept


_remembered = Process()


def current() -> Process:
    """The memory of the process that asks."""
    global _remembered  # noqa: PLW0603  # a forked child must forget what its parent remembers
    if _remembered.pid != os.getpid():
        run = _remembered.run
        _remembered = Process(parent_has_run=run is not None and not run.finished)
    return _remembered


def _member(plan: Plan) -> Member:
    context = plan.context
    return Member(
        rank=context.topology.rank,
        node=plan.host if context.topology.node_rank is None else str(context.topology.node_rank),
        nonce="one" if context.store_address is None else node_state.attempt_nonce(context),
        host=plan.host,
    )
