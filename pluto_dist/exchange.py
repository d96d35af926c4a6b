"""What the ranks of a launch say to each other, and under which key of the store.

This module carries messages; who sends which is ``joining`` and ``lifecycle``. Whatever is read back is data
from the network: JSON of at most 1 MiB, checked before it becomes a record. No key and no pickle travels.

Three scopes, because torchrun's store outlives the attempts of its launch:

- the launch: the token and the runs it began, meant to be found again by the next attempt;
- the attempt: which nodes take part, with which hardware;
- the run: the n-th ``init()`` of the attempt.

An attempt has no number that all agents agree on (torch 2.13: a restart count is the agent's own), so the
ranks make one: every node signs in with a nonce of its attempt, and whoever finds another nonce in the place
of its own node knows that the attempt on record is over, and opens the next.

>>> from pluto_dist.store import LocalStore
>>> store = LocalStore()
>>> def first(nonce): return Exchange(store, Member(rank=0, node="0", nonce=nonce, host="a")).attempt
>>> first("monday"), first("monday"), first("tuesday")
(0, 0, 1)
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pluto_dist.console import logger
from pluto_dist.errors import ExchangeError
from pluto_dist.identity import TOKEN, Reference
from pluto_dist.store import Store
from pluto_dist.wire import ContractError, CreateRunResponse, parse_document

MESSAGE_LIMIT = 1 << 20
NODE_LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class Member:
    """One rank as the others see it.

    Attributes:
        rank: global rank.
        node: names the node within the launch (its node rank, or its host where that is unknown).
        nonce: equal on the ranks of a node in one attempt, another in the next.
        host: host name, for messages.
    """

    rank: int
    node: str
    nonce: str
    host: str


@dataclass(frozen=True, slots=True)
class SignedId:
    """The id of a run, and who derived it from what."""

    reference: Reference
    source: str
    rank: int
    host: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the run came into being, equal on every rank.

    Attributes:
        kind: "online", "offline" (``message`` says why) or "error" (``error`` is its class).
        answer: the tracker's, when online.
        resumed: whether an earlier attempt or launch already lived in this run.
    """

    kind: Literal["online", "offline", "error"]
    answer: CreateRunResponse | None = None
    resumed: bool = False
    error: str = ""
    message: str = ""


class Exchange:
    """This rank's place in the current attempt of its launch."""

    def __init__(self, store: Store, member: Member) -> None:
        self.store = store
        self.member = member
        self.attempt, self.is_node_leader = self._sign_in()
        self.has_collected = False  # whether this rank has set out to publish its node's inventory
        self._nodes: dict[int, str] = {}
        self._inventories: dict[int, dict[str, Any] | None] = {}

    def goes_on_over(self, store: Store) -> bool:
        """Whether ``store``, connected anew, still holds this rank's attempt; it is used from then on, if so."""
        first = store.get(f"{self.attempt}/node/{self.member.node}") or ""
        if store.get("attempt") != str(self.attempt) or first.split(" ")[0] != self.member.nonce:
            return False
        self.store = store
        return True

    def _sign_in(self) -> tuple[int, bool]:
        mine = f"{self.member.nonce} {self.member.rank}"
        attempt = _number(self.store.compare_set("attempt", "", "0"))
        for _ in range(1000):
            first = self.store.compare_set(f"{attempt}/node/{self.member.node}", "", mine)
            if first.split(" ")[0] == self.member.nonce:
                if first == mine:
                    self.store.set(f"{attempt}/nodes/{self.store.add(f'{attempt}/nodes', 1)}", self.member.node)
                return attempt, first == mine
            attempt = _number(self.store.compare_set("attempt", str(attempt), str(attempt + 1)))
        raise ExchangeError("the store holds 1000 attempts of this launch; is another launch writing to it?")

    def token(self) -> str:
        """The launch's token: whoever asks first makes it, and every later attempt finds it."""
        fresh = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(20))
        token = self.store.compare_set("token", "", fresh)
        if not TOKEN.fullmatch(token):
            raise ExchangeError(
                f"the store holds {token[:40]!r} as this launch's token, which this package never made.\n"
                "Install the same version of pluto-dist on every node; keys under pluto_dist/ are its own."
            )
        return token

    def publish_inventory(self, document: Mapping[str, Any]) -> None:
        """Hand this node's inventory to the leader."""
        text = _dump({"node": self.member.node, "rank": self.member.rank, "inventory": document})
        self.store.set(f"{self.attempt}/inventories/{self.store.add(f'{self.attempt}/inventories', 1)}", text)

    def inventories(self) -> dict[str, dict[str, Any]]:
        """What the nodes published so far, by node; each is read once, and a garbled one is left out."""
        for n in self._unread("inventories", self._inventories):
            if (text := self.store.get(f"{self.attempt}/inventories/{n}")) is not None:
                try:
                    self._inventories[n] = _load(text, {"node": str, "rank": int, "inventory": dict})
                except ExchangeError as error:
                    logger.debug("an inventory cannot be read: %s", error)
                    self._inventories[n] = None
        return {entry["node"]: entry for entry in self._inventories.values() if entry is not None}

    def await_inventory(self, number: int, seconds: float) -> bool:
        """Whether the ``number``-th inventory (from 1) was there within ``seconds``."""
        return self.store.wait([f"{self.attempt}/inventories/{number}"], seconds)

    def nodes(self) -> tuple[str, ...]:
        """The nodes that signed in so far."""
        for n in self._unread("nodes", self._nodes):
            if (name := self.store.get(f"{self.attempt}/nodes/{n}")) is not None:
                self._nodes[n] = name
        return tuple(dict.fromkeys(self._nodes.values()))

    def _unread(self, counter: str, read: Mapping[int, object]) -> list[int]:
        # A writer takes its number before it writes, so a number may be there before its words.
        total = self.store.add(f"{self.attempt}/{counter}", 0)
        if total > NODE_LIMIT:
            raise ExchangeError(f"the store counts {total} {counter}; at most {NODE_LIMIT} are read")
        return [n for n in range(1, total + 1) if n not in read]

    def welcome(self, node: str) -> None:
        """Tell ``node`` that the leader lives in the attempt it signed in to."""
        self.store.set(f"{self.attempt}/welcome/{node}", "1")

    def await_welcome(self, seconds: float) -> bool:
        """Whether the leader has seen this node sign in."""
        return self.store.wait([f"{self.attempt}/welcome/{self.member.node}"], seconds)

    def is_over(self) -> bool:
        """Whether another node has opened a later attempt."""
        return _number(self.store.get("attempt") or "0") > self.attempt

    def run(self, nth: int) -> RunExchange:
        """The ``nth`` run (from 1) of this attempt."""
        return RunExchange(self, nth)


class RunExchange:
    """What the ranks say about one run."""

    def __init__(self, exchange: Exchange, nth: int) -> None:
        self._store = exchange.store
        self._member = exchange.member
        self._scope = f"{exchange.attempt}/run/{nth}"
        self._launch = f"began/{nth}"

    def sign_id(self, reference: Reference, source: str) -> SignedId:
        """Say which run this rank derived; what the first rank to speak derived."""
        mine = {"kind": reference.kind, "value": reference.value, "source": source}
        signed = _dump({**mine, "rank": self._member.rank, "host": self._member.host})
        shape = {"kind": str, "value": str, "source": str, "rank": int, "host": str}
        first = _load(self._store.compare_set(f"{self._scope}/id", "", signed), shape)
        if first["kind"] not in ("external id", "number", "display id"):
            raise ExchangeError(f"the store holds an id of unknown kind {first['kind'][:40]!r}")
        named = Reference(first["kind"], first["value"])
        return SignedId(named, first["source"], first["rank"], first["host"])

    def publish_outcome(self, outcome: Outcome) -> Outcome:
        """Say how the run came into being; what the first rank to speak said."""
        text = _dump({**dataclasses.asdict(outcome), "answer": outcome.answer and outcome.answer.to_json()})
        return _outcome(self._store.compare_set(f"{self._scope}/outcome", "", text))

    def outcome(self, seconds: float = 0) -> Outcome | None:
        """What was published, waiting up to ``seconds`` for it."""
        if seconds > 0:
            self._store.wait([f"{self._scope}/outcome"], seconds)
        text = self._store.get(f"{self._scope}/outcome")
        return None if text is None else _outcome(text)

    def began(self, run_id: int) -> None:
        """Remember for later attempts which run this launch lives in."""
        self._store.set(self._launch, str(run_id))

    def begun_before(self) -> int | None:
        """The tracker's number of the run, where an earlier attempt of this launch lived in it."""
        text = self._store.get(self._launch)
        return None if text is None else _number(text)

    def claim(self, role: str) -> bool:
        """Whether this rank is the first to take on ``role``."""
        mine = str(self._member.rank)
        return self._store.compare_set(f"{self._scope}/claim/{role}", "", mine) == mine

    def claimed(self, role: str) -> bool:
        """Whether any rank has taken on ``role``."""
        return self._store.get(f"{self._scope}/claim/{role}") is not None

    def count(self, event: str, amount: int = 1) -> int:
        """Count one more ``event`` (or, with amount 0, none); how many there were."""
        return self._store.add(f"{self._scope}/count/{event}", amount)


def _outcome(text: str) -> Outcome:
    shape = {"kind": str, "resumed": bool, "error": str, "message": str}
    fields = _load(text, shape)
    if fields["kind"] not in ("online", "offline", "error"):
        raise ExchangeError(f"the store holds an outcome of unknown kind {fields['kind'][:40]!r}")
    answer = None
    if fields["kind"] == "online":
        try:
            answer = CreateRunResponse.from_json(fields.get("answer"))
        except ContractError as error:
            raise ExchangeError(f"the store holds an answer that is {error}") from error
    return Outcome(fields["kind"], answer, fields["resumed"], fields["error"], fields["message"])


def _dump(message: Mapping[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))


def _load(text: str, shape: Mapping[str, type]) -> dict[str, Any]:
    if len(text) > MESSAGE_LIMIT:
        raise ExchangeError(f"a message in the store has {len(text)} characters; at most {MESSAGE_LIMIT} are read")
    try:
        message = parse_document(text)
    except ValueError as error:
        raise ExchangeError(f"a message in the store is not JSON: {text[:80]!r}") from error
    for name, wanted in shape.items():
        if not isinstance(message, dict) or type(message.get(name)) is not wanted:
            raise ExchangeError(f"a message in the store lacks {name!r} of type {wanted.__name__}: {text[:80]!r}")
    return dict(message)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ExchangeError(f"the store holds {text[:40]!r} where a number should be")
    return int(text)
