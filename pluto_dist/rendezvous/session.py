"""The connection of this process to the other ranks, kept over the runs of the process."""

from __future__ import annotations

import secrets
import threading

from pluto_dist.environments.context import LaunchContext
from pluto_dist.errors import ExchangeError
from pluto_dist.rendezvous import node_state
from pluto_dist.rendezvous.connect import connect
from pluto_dist.rendezvous.file_store import FileStore
from pluto_dist.rendezvous.membership import Membership, new_token
from pluto_dist.rendezvous.messages import Member
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.store import LocalStore


class Session:
    """The membership of this process in its launch; made by the first run, used again by the later ones."""

    def __init__(self) -> None:
        self._slot = secrets.token_hex(8)
        self._fresh_token = new_token()
        self._membership: Membership | None = None
        self._context: LaunchContext | None = None

    def connect(self, context: LaunchContext, host: str, *, deadline: float, stop: threading.Event) -> Membership:
        """Connect to the store of ``context``, and register in its current attempt.

        Args:
            context: the launch.
            host: this node's name.
            deadline: on the monotonic clock.
            stop: ends the wait for ranks that are not there yet.

        Raises:
            LaunchError: the ranks share no store, or it does not answer; or ``stop`` is set.
        """
        folder = node_state.find(context)
        kept = self._membership if self._context == context else None
        own = kept.store if kept is not None and isinstance(kept.store, (LocalStore, FileStore)) else None
        store = own or connect(context, folder, self._slot, deadline=deadline, stop=stop)
        if stop.is_set():  # connected too late to begin a run
            if own is None:
                store.close()
            raise ExchangeError("this rank's part in the run is over")
        if kept is not None and kept.store is not store:
            kept.store.close()  # and with it its thread: this rank registers again, or begins its next run
        if kept is None or not kept.continues_on(store):
            kept = Membership(store, _member(context, host), _kept_state(context, folder), self._fresh_token)
        self._membership, self._context = kept, context
        return kept

    @property
    def began_alone(self) -> bool:
        """Whether this process has had a run without a launcher, which ranks that it started may have joined."""
        return self._context is not None and self._context.launcher == "single"

    def alone(self, context: LaunchContext, host: str) -> Membership:
        """This rank in a store of its own, for as long as it is not connected; it shares only its node's state."""
        state = _kept_state(context, node_state.find(context))
        return Membership(LocalStore(), _member(context, host), state, self._fresh_token)


def _kept_state(context: LaunchContext, folder: NodeState) -> NodeState:
    """The node's state, if it is this launch's: only torchrun restarts workers, and has a folder for each launch."""
    return folder if context.restart_count is not None else NodeState(None)


def _member(context: LaunchContext, host: str) -> Member:
    return Member(
        rank=context.topology.rank,
        node=host if context.topology.node_rank is None else str(context.topology.node_rank),
        nonce="one" if context.restart_count is None else node_state.attempt_nonce(context),
        host=host,
    )
