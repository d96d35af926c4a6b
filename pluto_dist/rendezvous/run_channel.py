"""What the ranks say about one run: which it is, how it came into being, who does what, and what is done.

Everything here belongs to the n-th ``init()`` of one attempt, but for what later attempts must know: that is
kept for the whole launch.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

from pluto_dist.contract.run_ref import Reference
from pluto_dist.errors import ExchangeError
from pluto_dist.rendezvous.messages import AgreedId, Member, Outcome, PriorAttempt, dump, load, number, read_outcome
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.store import Store

SLOWDOWN_LIMIT = 6  # to a 64th of the rate
_KEY_LIMIT = 64


class Place(Protocol):
    """A rank's place in an attempt, as :class:`RunChannel` needs it."""

    store: Store
    member: Member
    folder: NodeState
    attempt: int
    is_node_leader: bool


class RunChannel:
    """What the ranks say about one run."""

    def __init__(self, exchange: Place, nth: int, token: str) -> None:
        self._store = exchange.store
        self._member = exchange.member
        self._folder = exchange.folder
        self._keeps = exchange.is_node_leader
        self._scope = f"{exchange.attempt}/run/{nth}"
        self._began = f"began/{token}/{nth}"
        self._kept = f"{token} run {nth}"

    def propose_run_id(self, reference: Reference, source: str, variables: tuple[tuple[str, str], ...]) -> AgreedId:
        """Say which run this rank derived; what the first rank to speak derived."""
        mine = {"kind": reference.kind, "value": reference.value, "source": source, "variables": dict(variables)}
        signed = dump({**mine, "rank": self._member.rank, "host": self._member.host})
        shape = {"kind": str, "value": str, "source": str, "variables": dict, "rank": int, "host": str}
        first = load(self._store.compare_set(f"{self._scope}/id", "", signed), shape)
        try:
            named = Reference.of(first["kind"], first["value"])
        except ValueError as error:
            raise ExchangeError(f"the store holds {error}") from error
        theirs = tuple((str(name), str(value)) for name, value in first["variables"].items())
        return AgreedId(named, first["source"], first["rank"], first["host"], theirs)

    def publish_outcome(self, outcome: Outcome) -> Outcome:
        """Say how the run came into being; what the first rank to speak said."""
        text = dump({**dataclasses.asdict(outcome), "answer": outcome.answer and outcome.answer.to_json()})
        return read_outcome(self._store.compare_set(f"{self._scope}/outcome", "", text))

    def outcome(self, seconds: float = 0.0) -> Outcome | None:
        """What was published, waiting up to ``seconds`` for it."""
        text = self._store.get(f"{self._scope}/outcome", seconds)
        return None if text is None else read_outcome(text)

    def publish_late(self, outcome: Outcome) -> None:
        """Say that the tracker knows of the run by now, which began without it."""
        text = dump({**dataclasses.asdict(outcome), "answer": outcome.answer and outcome.answer.to_json()})
        self._store.compare_set(f"{self._scope}/late", "", text)

    def late(self) -> Outcome | None:
        """What was said so."""
        text = self._store.get(f"{self._scope}/late")
        return None if text is None else read_outcome(text)

    def begin(self) -> None:
        """Remember for later attempts that the run may exist from here on, whatever becomes of this rank."""
        self._store.set(self._began, "begun")
        self._folder.set(self._kept, "begun")

    def remember(self, outcome: Outcome, *, tell: bool) -> None:
        """Remember for later attempts how this one fared: on this node, and (``tell``) in the store."""
        if outcome.kind == "error":
            return
        text = f"lived {outcome.answer.run_id if outcome.answer else ''}".strip()
        if tell:
            self._store.set(self._began, text)
        if self._keeps or tell:
            self._folder.set(self._kept, text)

    def prior_attempt(self) -> PriorAttempt | None:
        """What an earlier attempt of this launch left of this run; ``None`` where it never came so far."""
        text = self._store.get(self._began)
        if text is None:
            return None
        word, _, run_id = text.partition(" ")
        return PriorAttempt(number(run_id) if run_id else None, word == "lived")

    def attempt_key(self, mine: str) -> str:
        """The key under which the attempt is recorded: that of the first rank to create the run."""
        return self._store.compare_set(f"{self._scope}/key", "", mine)[:_KEY_LIMIT]

    def recorded_key(self) -> str | None:
        """The key under which the attempt was recorded, where it was."""
        return self._store.get(f"{self._scope}/key")

    def slowdowns(self) -> tuple[int, ...]:
        """The tickets from which on attaches go at half the rate, for each time that the tracker had too many."""
        found: list[int] = []
        while len(found) < SLOWDOWN_LIMIT and (text := self._store.get(f"{self._scope}/slower/{len(found)}")):
            found.append(number(text))
        return tuple(found)

    def slow_down(self, known: int, ticket: int) -> None:
        """Go at half the rate from ``ticket`` on; of all who knew of ``known`` slowdowns only the first counts."""
        if known < SLOWDOWN_LIMIT:
            self._store.compare_set(f"{self._scope}/slower/{known}", "", str(ticket))

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
