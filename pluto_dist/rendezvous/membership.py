"""This rank in the current attempt of its launch: the other nodes, their inventories, and what earlier attempts left.

An attempt has no number that all agents agree on (torch 2.13: a restart count is the agent's own), so the ranks make
one. Every node registers with a nonce of its attempt. A rank that finds another nonce in the place of its own node
knows that the attempt on record is over, and opens the next; so does a rank 0 that finds another rank 0 in it.

>>> from pluto_dist.rendezvous.store import LocalStore
>>> store = LocalStore()
>>> def first(nonce): return Membership(store, Member(0, "0", nonce, "a"), NodeState(None)).attempt
>>> first("monday"), first("monday"), first("tuesday")
(0, 0, 1)
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from pluto_dist.contract.failure import Failure
from pluto_dist.errors import ExchangeError
from pluto_dist.identity import TOKEN
from pluto_dist.log import logger
from pluto_dist.rendezvous.messages import MESSAGE_LIMIT, Member, dump, load, number
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.run_channel import RunChannel
from pluto_dist.rendezvous.store import Store
from pluto_dist.serialization import codec

NODE_LIMIT = 100_000
_HANDED_ON = "told"  # in the place of a failure that an attempt has in its record
_SLICE = 0.25  # how often a rank that waits for the token checks whether the attempt is over
_RUN_LIMIT = 100  # runs of a launch that a node copies to a new store
_text = codec.text_of(MESSAGE_LIMIT)


def new_token() -> str:
    """A token that no launch has."""
    return "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(20))


class AttemptOverError(ExchangeError):
    """The attempt in which this rank registered is over: it is to register in the next one."""


class Membership:
    """This rank in the current attempt of its launch.

    Args:
        store: shared by the ranks.
        member: this rank.
        node_state: what this node keeps of the launch.
        fresh_token: proposed if the launch has no token yet.

    Attributes:
        attempt: number of the attempt in this store, from 0.
        is_node_leader: whether this rank is the one of its node that acts for it.
        has_reported: whether this rank has contributed to its node's inventory.
        token: the launch's, once agreed; "" before.
    """

    def __init__(self, store: Store, member: Member, node_state: NodeState, fresh_token: str = "") -> None:
        self.store = store
        self.member = member
        self.node_state = node_state
        self.attempt, self.is_node_leader = self._register()
        self.has_reported = False
        self.token = ""
        self._fresh_token = fresh_token or new_token()
        self._nodes: dict[int, tuple[str, str]] = {}
        self._acknowledged: set[str] = set()
        self._inventories: dict[int, dict[str, Any] | None] = {}

    def continues_on(self, store: Store) -> bool:
        """Whether ``store``, connected anew, still holds this rank's attempt; if so, it is used from then on."""
        first = store.get(f"{self.attempt}/node/{self.member.node}") or ""
        if store.get("attempt") != str(self.attempt) or first.split(" ")[0] != self.member.nonce:
            return False
        self.store = store
        return True

    def _register(self) -> tuple[int, bool]:
        mine = f"{self.member.nonce} {self.member.rank}"
        attempt = number(self.store.compare_set("attempt", "", "0"))
        for _ in range(1000):
            first = self.store.compare_set(f"{attempt}/node/{self.member.node}", "", mine)
            if first.split(" ")[0] == self.member.nonce:
                if first == mine:
                    self._append(f"{attempt}/nodes", {"node": self.member.node, "host": self.member.host})
                return attempt, first == mine
            attempt = number(self.store.compare_set("attempt", str(attempt), str(attempt + 1)))
        raise ExchangeError("the store holds 1000 attempts of this launch; is another launch writing to it?")

    def agree_on_token(self, node_count: int | None, seconds: float) -> str:
        """The launch's token: one that a store or a node still has, else a new one.

        A store without a token may be a new launch's, or belong to an earlier launch whose store ended with its host;
        only a node of that launch can know. So a token is made only when every node has said that it has none, or after
        ``seconds``. Nobody waits if there is one node, or if the store has the token.

        Raises:
            AttemptOverError: another node has opened a later attempt.
            ExchangeError: the store is lost, or holds something that is not a token.
        """
        fresh = self._fresh_token
        mine = self.node_state.set_default("token", fresh) if node_count == 1 else self.node_state.get("token")
        if mine is not None and TOKEN.fullmatch(mine):
            self._restore(mine)
            token = self.store.compare_set("token", "", mine)
        else:
            waits = node_count is not None and node_count > 1
            known = self.store.get("token") or (self._ask_all_nodes(node_count or 1, seconds) if waits else None)
            token = known or self.store.compare_set("token", "", fresh)
        if not TOKEN.fullmatch(token):
            raise ExchangeError(
                f"the store holds {token[:40]!r} as this launch's token, which this package never made.\n"
                "Install the same version of pluto-dist on every node; keys under pluto_dist/ are its own."
            )
        self.token = token
        self.node_state.set("token", token)
        return token

    def _ask_all_nodes(self, node_count: int, seconds: float) -> str | None:
        """The token, once a node that has it has written it; ``None`` if no node has it, or none in time."""
        answered = self.store.add(f"{self.attempt}/forgot", 1 if self.is_node_leader else 0)
        if self.is_node_leader and answered >= node_count:
            return None
        until = time.monotonic() + seconds
        while (token := self.store.get("token", min(_SLICE, max(0.0, until - time.monotonic())))) is None:
            self.stay()
            if time.monotonic() >= until:
                break
        if token is None and self.is_node_leader:
            answered = self.store.add(f"{self.attempt}/forgot", 0)
            logger.warning(
                "%d of %d nodes called init() within %.0f s, and none was in an earlier attempt of this launch; "
                "if one of the others was, its run and this one are two",
                answered,
                node_count,
                seconds,
            )
        return token

    def _restore(self, token: str) -> None:
        """Copy what this node kept of the launch to a store that has nothing of it, before the token goes there."""
        if self.attempt or not self.is_node_leader:
            return
        for nth in range(1, _RUN_LIMIT + 1):
            if (begun := self.node_state.get(f"{token} run {nth}")) is None:
                break
            self.store.compare_set(f"began/{token}/{nth}", "", begun)
        failure = self.node_state.get(f"{token} failure")
        if failure not in (None, _HANDED_ON):
            self.store.compare_set("failure", "", failure or "")
            self.node_state.set(f"{token} failure", _HANDED_ON)  # it ended the attempt before this one, not the next

    def fail(self, failure: Failure) -> None:
        """Record for the next attempt why this one ends; the first failure of an attempt counts."""
        text = dump(failure.summary())
        self.node_state.set(f"{self.token} failure", text)
        self.store.compare_set(f"{self.attempt}/failure", "", text)

    def last_failure(self) -> Failure | None:
        """Why the attempt before this one ended; ``None`` if no rank recorded it."""
        text = self.store.get(f"{self.attempt - 1}/failure" if self.attempt else "failure")
        return None if text is None else load(text, Failure.from_json, "the last failure")

    def publish_view(self, view: Mapping[str, Any]) -> None:
        """Publish which GPUs this rank sees, for the leader of its node."""
        self._append(f"{self.attempt}/views/{self.member.node}", view)

    def await_view(self, number: int, seconds: float) -> bool:
        """Whether the ``number``-th view of this node (from 1) was there within ``seconds``."""
        return self.store.get(f"{self.attempt}/views/{self.member.node}/{number}", seconds) is not None

    def views(self) -> list[dict[str, Any]]:
        """The views of this node's ranks so far; one that cannot be read is left out."""
        found = (_hardware(text, _VIEW) for _, text in self._unread(f"views/{self.member.node}", {}))
        return [view for view in found if view is not None]

    def publish_inventory(self, document: Mapping[str, Any], first_rank: int | None = None) -> None:
        """Publish this node's inventory, with the node's lowest global rank (else this rank)."""
        rank = self.member.rank if first_rank is None else first_rank
        entry = {"node": self.member.node, "rank": rank, "inventory": document}
        self._append(f"{self.attempt}/inventories", entry)

    def inventories(self) -> dict[str, dict[str, Any]]:
        """The inventories so far, by node. Each is read once; one that cannot be read is left out."""
        for n, text in self._unread("inventories", self._inventories):
            self._inventories[n] = _hardware(text, _INVENTORY)
        return {entry["node"]: entry for entry in self._inventories.values() if entry is not None}

    def await_inventory(self, number: int, seconds: float) -> bool:
        """Whether the ``number``-th inventory (from 1) was there within ``seconds``."""
        return self.store.get(f"{self.attempt}/inventories/{number}", seconds) is not None

    def nodes(self) -> dict[str, str]:
        """The hosts of the nodes that have registered so far, by node; each is read once."""
        for n, text in self._unread("nodes", self._nodes):
            fields = load(text, _object(_NODE), "a node")
            self._nodes[n] = (fields["node"], fields["host"])
        return dict(self._nodes[n] for n in sorted(self._nodes))

    def _append(self, counter: str, message: Mapping[str, Any]) -> None:
        self.store.set(f"{counter}/{self.store.add(counter, 1)}", dump(message))

    def _unread(self, counter: str, read: Mapping[int, object]) -> list[tuple[int, str]]:
        # A writer takes its number before it writes, so a number may be there before its message.
        total = self.store.add(f"{self.attempt}/{counter}", 0)
        if total > NODE_LIMIT:
            raise ExchangeError(f"the store counts {total} {counter}; at most {NODE_LIMIT} are read")
        numbers = [n for n in range(1, total + 1) if n not in read]
        texts = self.store.get_all([f"{self.attempt}/{counter}/{n}" for n in numbers])
        return [(n, text) for n, text in zip(numbers, texts, strict=True) if text is not None]

    def acknowledge_node(self, node: str) -> None:
        """Confirm to ``node`` that the rank which creates the run is in the attempt in which it registered."""
        self.store.set(f"{self.attempt}/welcome/{node}", "1")

    def acknowledge_nodes(self) -> dict[str, str]:
        """Confirm that to each registered node, once; the hosts of all of them, by node."""
        nodes = self.nodes()
        for node in nodes.keys() - self._acknowledged:
            self.acknowledge_node(node)
            self._acknowledged.add(node)
        return nodes

    def await_acknowledgement(self, seconds: float) -> bool:
        """Whether that rank has confirmed this node within ``seconds``."""
        return self.store.get(f"{self.attempt}/welcome/{self.member.node}", seconds) is not None

    def is_over(self) -> bool:
        """Whether another node has opened a later attempt."""
        return number(self.store.get("attempt") or "0") > self.attempt

    def stay(self) -> None:
        """Raises AttemptOverError if another node has opened a later attempt."""
        if self.is_over():
            raise AttemptOverError("another node of this launch has opened a later attempt")

    def leave(self) -> NoReturn:
        """Open the next attempt, unless another node has, for this rank to register there; raises AttemptOverError."""
        self.store.compare_set("attempt", str(self.attempt), str(self.attempt + 1))
        raise AttemptOverError("another process leads the attempt in which this rank registered")

    def run(self, nth: int) -> RunChannel:
        """The messages about the ``nth`` run (from 1) of this attempt."""
        return RunChannel(self, nth, self.token)


_VIEW: dict[str, codec.Decode] = {"rank": codec.decode_int}
_INVENTORY: dict[str, codec.Decode] = {"node": _text, "rank": codec.decode_int, "inventory": codec.decode_object}
_NODE: dict[str, codec.Decode] = {"node": _text, "host": _text}


def _object(decoders: Mapping[str, codec.Decode]) -> codec.Decode:
    """A decoder of objects that have the fields of ``decoders``, and keep their others."""

    def decode(value: codec.Json, where: str) -> dict[str, Any]:
        return {**codec.decode_object(value, where), **codec.decode_fields(value, where, decoders, decoders)}

    return decode


def _hardware(text: str, decoders: Mapping[str, codec.Decode]) -> dict[str, Any] | None:
    """The message in ``text``; ``None`` if it cannot be read, so that the others still are."""
    try:
        message: dict[str, Any] = load(text, _object(decoders), "hardware")
        return message
    except ExchangeError as error:
        logger.debug("a message about hardware cannot be read: %s", error)
        return None
