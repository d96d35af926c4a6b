"""Which attempt of the launch is this, who takes part in it, and what is remembered of the ones before?

An attempt has no number that all agents agree on (torch 2.13: a restart count is the agent's own), so the
ranks make one: every node signs in with a nonce of its attempt, and whoever finds another nonce in the place
of its own node knows that the attempt on record is over, and opens the next.

>>> from pluto_dist.rendezvous.store import LocalStore
>>> store = LocalStore()
>>> def first(nonce): return Membership(store, Member(0, "0", nonce, "a"), NodeState(None)).attempt
>>> first("monday"), first("monday"), first("tuesday")
(0, 0, 1)
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from pluto_dist.errors import ExchangeError
from pluto_dist.identity import TOKEN
from pluto_dist.log import logger
from pluto_dist.rendezvous.messages import Failure, Member, dump, load, number
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.run_channel import RunChannel
from pluto_dist.rendezvous.store import Store

NODE_LIMIT = 100_000
_TOLD = "told"
_RECALLED = 100  # runs of a launch that a node tells a new store of


class Membership:
    """This rank's place in the current attempt of its launch.

    Args:
        store: where the ranks meet.
        member: this rank.
        folder: what this node remembers of the launch.
    """

    def __init__(self, store: Store, member: Member, folder: NodeState) -> None:
        self.store = store
        self.member = member
        self.folder = folder
        self.attempt, self.is_node_leader = self._sign_in()
        self.has_reported = False  # whether this rank has done its part for its node's inventory
        self.token = ""  # once agreed
        self._nodes: dict[int, tuple[str, str]] = {}
        self._welcomed: set[str] = set()
        self._inventories: dict[int, dict[str, Any] | None] = {}

    def continues_on(self, store: Store) -> bool:
        """Whether ``store``, connected anew, still holds this rank's attempt; it is used from then on, if so."""
        first = store.get(f"{self.attempt}/node/{self.member.node}") or ""
        if store.get("attempt") != str(self.attempt) or first.split(" ")[0] != self.member.nonce:
            return False
        self.store = store
        return True

    def _sign_in(self) -> tuple[int, bool]:
        mine = f"{self.member.nonce} {self.member.rank}"
        attempt = number(self.store.compare_set("attempt", "", "0"))
        for _ in range(1000):
            first = self.store.compare_set(f"{attempt}/node/{self.member.node}", "", mine)
            if first.split(" ")[0] == self.member.nonce:
                if first == mine:
                    self._sign_up_node(attempt)
                return attempt, first == mine
            attempt = number(self.store.compare_set("attempt", str(attempt), str(attempt + 1)))
        raise ExchangeError("the store holds 1000 attempts of this launch; is another launch writing to it?")

    def _sign_up_node(self, attempt: int) -> None:
        self._append(f"{attempt}/nodes", {"node": self.member.node, "host": self.member.host})

    def agree_on_token(self, node_count: int | None, seconds: float) -> str:
        """The launch's token: one that a store or a node still knows, else one that a rank makes.

        A store that holds none may be a new launch's, or an old launch's whose store died with its host; only a
        node that lived through it can tell. So a token is made only when every node has said that it remembers
        none, or after ``seconds``. Nobody waits where there is one node, or where the store still knows.

        Raises:
            ExchangeError: the store is lost, or holds something that is no token.
        """
        fresh = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(20))
        mine = self.folder.set_default("token", fresh) if node_count == 1 else self.folder.get("token")
        if mine is not None and TOKEN.fullmatch(mine):
            self._recall(mine)
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
        self.folder.set("token", token)
        return token

    def _ask_all_nodes(self, node_count: int, seconds: float) -> str | None:
        """The token, once a node that remembers it has told; ``None`` where nobody does, or not in time."""
        spoken = self.store.add(f"{self.attempt}/forgot", 1 if self.is_node_leader else 0)
        if self.is_node_leader and spoken >= node_count:
            return None
        token = self.store.get("token", seconds)
        if token is None and self.is_node_leader:
            spoken = self.store.add(f"{self.attempt}/forgot", 0)
            logger.warning(
                "%d of %d nodes called init() within %.0f s, and none was in an earlier attempt of this launch; "
                "if one of the others was, its run and this one are two",
                spoken,
                node_count,
                seconds,
            )
        return token

    def _recall(self, token: str) -> None:
        """Tell a store that forgot what this node remembers of the launch, before the launch's token goes there."""
        if self.attempt or not self.is_node_leader:
            return
        for nth in range(1, _RECALLED + 1):
            if (begun := self.folder.get(f"{token} run {nth}")) is None:
                break
            self.store.compare_set(f"began/{token}/{nth}", "", begun)
        failure = self.folder.get(f"{token} failure")
        if failure not in (None, _TOLD):
            self.store.compare_set("failure", "", failure or "")
            self.folder.set(f"{token} failure", _TOLD)  # it ended the attempt before this one, not the next

    def fail(self, failure: Failure) -> None:
        """Leave word for the next attempt of why this one ends; the first rank's word counts."""
        text = dump(failure.to_json())
        self.folder.set(f"{self.token} failure", text)
        self.store.compare_set(f"{self.attempt}/failure", "", text)

    def last_failure(self) -> Failure | None:
        """Why the attempt before this one ended, where a rank left word of it."""
        text = self.store.get(f"{self.attempt - 1}/failure" if self.attempt else "failure")
        if text is None:
            return None
        fields = load(text, {"reason": str, "rank": int, "host": str})
        return Failure(fields["reason"], fields["rank"], fields["host"])

    def tell_view(self, view: Mapping[str, Any]) -> None:
        """Tell this node's leader what this rank sees of the node's GPUs."""
        self._append(f"{self.attempt}/views/{self.member.node}", view)

    def await_view(self, number: int, seconds: float) -> bool:
        """Whether the ``number``-th rank of this node (from 1) had told what it sees within ``seconds``."""
        return self.store.get(f"{self.attempt}/views/{self.member.node}/{number}", seconds) is not None

    def views(self) -> list[dict[str, Any]]:
        """What the ranks of this node told so far; a garbled one is left out."""
        found = (_read(text, {"rank": int}) for _, text in self._unread(f"views/{self.member.node}", {}))
        return [view for view in found if view is not None]

    def publish_inventory(self, document: Mapping[str, Any], first_rank: int | None = None) -> None:
        """Hand this node's inventory to the leader, with the node's lowest global rank (else this rank)."""
        rank = self.member.rank if first_rank is None else first_rank
        entry = {"node": self.member.node, "rank": rank, "inventory": document}
        self._append(f"{self.attempt}/inventories", entry)

    def inventories(self) -> dict[str, dict[str, Any]]:
        """What the nodes published so far, by node; each is read once, and a garbled one is left out."""
        for n, text in self._unread("inventories", self._inventories):
            self._inventories[n] = _read(text, {"node": str, "rank": int, "inventory": dict})
        return {entry["node"]: entry for entry in self._inventories.values() if entry is not None}

    def await_inventory(self, number: int, seconds: float) -> bool:
        """Whether the ``number``-th inventory (from 1) was there within ``seconds``."""
        return self.store.get(f"{self.attempt}/inventories/{number}", seconds) is not None

    def nodes(self) -> dict[str, str]:
        """The nodes that signed in so far, with their hosts; each is read once."""
        for n, text in self._unread("nodes", self._nodes):
            fields = load(text, {"node": str, "host": str})
            self._nodes[n] = (fields["node"], fields["host"])
        return dict(self._nodes[n] for n in sorted(self._nodes))

    def _append(self, counter: str, message: Mapping[str, Any]) -> None:
        self.store.set(f"{counter}/{self.store.add(counter, 1)}", dump(message))

    def _unread(self, counter: str, read: Mapping[int, object]) -> list[tuple[int, str]]:
        # A writer takes its number before it writes, so a number may be there before its words.
        total = self.store.add(f"{self.attempt}/{counter}", 0)
        if total > NODE_LIMIT:
            raise ExchangeError(f"the store counts {total} {counter}; at most {NODE_LIMIT} are read")
        numbers = [n for n in range(1, total + 1) if n not in read]
        texts = self.store.get_all([f"{self.attempt}/{counter}/{n}" for n in numbers])
        return [(n, text) for n, text in zip(numbers, texts, strict=True) if text is not None]

    def acknowledge_node(self, node: str) -> None:
        """Tell ``node`` that the leader lives in the attempt it signed in to."""
        self.store.set(f"{self.attempt}/acknowledge_node/{node}", "1")

    def acknowledge_nodes(self) -> dict[str, str]:
        """Tell each node that signed in so, once; all of them, with their hosts."""
        nodes = self.nodes()
        for node in nodes.keys() - self._welcomed:
            self.acknowledge_node(node)
            self._welcomed.add(node)
        return nodes

    def await_acknowledgement(self, seconds: float) -> bool:
        """Whether the leader has seen this node sign in."""
        return self.store.get(f"{self.attempt}/acknowledge_node/{self.member.node}", seconds) is not None

    def is_over(self) -> bool:
        """Whether another node has opened a later attempt."""
        return number(self.store.get("attempt") or "0") > self.attempt

    def run(self, nth: int) -> RunChannel:
        """The ``nth`` run (from 1) of this attempt."""
        return RunChannel(self, nth, self.token)


def _read(text: str, shape: Mapping[str, type]) -> dict[str, Any] | None:
    """The message in ``text``; ``None`` for a garbled one, which costs the reader nothing else."""
    try:
        return load(text, shape)
    except ExchangeError as error:
        logger.debug("what a rank told of its hardware cannot be read: %s", error)
        return None
