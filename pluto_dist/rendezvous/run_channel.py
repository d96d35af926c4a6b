"""Messages about one run: its id, its creation, roles that one rank takes on, counters of what is done.

All keys belong to the n-th ``init()`` of one attempt, except what later attempts must know, which is kept for the
whole launch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from pluto_dist.contract.run_ref import Reference
from pluto_dist.errors import TrackerUnavailableError
from pluto_dist.rendezvous.messages import AgreedId, Member, Outcome, PriorAttempt, dump, load, number
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.store import Store

SLOWDOWN_LIMIT = 6  # to a 64th of the rate
LEADER = "leader"  # the role of rank 0
SIGNED_OFF = "off"  # in the place of a node's sign of life
_KEY_LIMIT = 64


class Place(Protocol):
    """A rank in an attempt, as :class:`RunChannel` needs it."""

    store: Store
    member: Member
    node_state: NodeState
    attempt: int
    is_node_leader: bool


class RunChannel:
    """The messages about one run.

    Args:
        place: this rank in the current attempt.
        nth: number of the run within the attempt, from 1.
        token: the launch's.
    """

    def __init__(self, place: Place, nth: int, token: str) -> None:
        self._store = place.store
        self._member = place.member
        self._node_state = place.node_state
        self._writes_node_state = place.is_node_leader
        self._scope = f"{place.attempt}/run/{nth}"
        self._begun_key = f"began/{token}/{nth}"
        self._state_name = f"{token} run {nth}"

    def propose_run_id(self, reference: Reference, source: str, variables: tuple[tuple[str, str], ...]) -> AgreedId:
        """Propose an id for the run; the id of the first rank to propose one."""
        mine = AgreedId(reference, source, self._member.rank, self._member.host, variables)
        first = self._store.compare_set(f"{self._scope}/id", "", dump(mine.to_json()))
        agreed: AgreedId = load(first, AgreedId.from_json, "the run's id")
        return agreed

    def publish_outcome(self, outcome: Outcome) -> Outcome:
        """Publish how the creation of the run ended; the outcome that was published first."""
        return _outcome(self._store.compare_set(f"{self._scope}/outcome", "", dump(outcome.to_json())))

    def outcome(self, seconds: float = 0.0) -> Outcome | None:
        """The outcome, waiting up to ``seconds`` for it."""
        text = self._store.get(f"{self._scope}/outcome", seconds)
        return None if text is None else _outcome(text)

    def publish_late(self, outcome: Outcome) -> None:
        """Publish that the tracker has the run now, which began offline."""
        self._store.compare_set(f"{self._scope}/late", "", dump(outcome.to_json()))

    def late(self) -> Outcome | None:
        """The outcome of :meth:`publish_late`, once there is one."""
        text = self._store.get(f"{self._scope}/late")
        return None if text is None else _outcome(text)

    def begin(self) -> None:
        """Record for later attempts that the run may exist from now on, whatever happens to this rank."""
        self._store.set(self._begun_key, "begun")
        self._node_state.set(self._state_name, "begun")

    def begin_to_wait(self) -> None:
        """Record that this launch waits until it is known whether it may continue the run."""
        self.claim("waits")

    def end_wait(self) -> None:
        """Record that it may."""
        self.claim("granted")

    @property
    def waits(self) -> bool:
        """Whether this launch still waits for that."""
        return self.claimed("waits") and not self.claimed("granted")

    def remember(self, outcome: Outcome, *, in_store: bool) -> None:
        """Record the outcome for later attempts: on this node, and if ``in_store`` in the store."""
        if outcome.kind == "error":
            return
        text = f"lived {outcome.answer.run_id if outcome.answer else ''}".strip()
        if in_store:
            self._store.set(self._begun_key, text)
        if self._writes_node_state or in_store:
            self._node_state.set(self._state_name, text)
            self.claim_on_node("keeper")

    def prior_attempt(self) -> PriorAttempt | None:
        """What an earlier attempt of this launch recorded of this run; ``None`` if it recorded nothing."""
        text = self._store.get(self._begun_key)
        if text is None:
            return None
        word, _, run_id = text.partition(" ")
        return PriorAttempt(number(run_id) if run_id else None, word == "lived")

    def attempt_key(self, mine: str) -> str:
        """The key of the attempt's record in the run's config: that of the first rank to ask, of the node at least."""
        mine = self._node_state.set_default(f"{self._state_name} key {self._member.nonce}", mine)
        return self._store.compare_set(f"{self._scope}/key", "", mine)[:_KEY_LIMIT]

    def recorded_key(self) -> str | None:
        """The key of the attempt's record, if there is one."""
        key = self._store.get(f"{self._scope}/key")
        return None if key is None else key[:_KEY_LIMIT]

    def sign(self) -> None:
        """Give a sign of life of this rank's node, unless it has signed off."""
        key = self._sign_key(self._member.node)
        if self._store.get(key) != SIGNED_OFF:  # torch closes the connection of who adds to what is no number
            self._store.add(key, 1)

    def sign_off(self) -> None:
        """Record that this rank's node gives no more signs, because its part in the run is over."""
        self._store.set(self._sign_key(self._member.node), SIGNED_OFF)

    def signs(self, nodes: Sequence[str]) -> dict[str, str]:
        """The sign of each node that has given one: a number that grows, or :data:`SIGNED_OFF`."""
        found = self._store.get_all([self._sign_key(node) for node in nodes])
        return {node: sign for node, sign in zip(nodes, found, strict=True) if sign is not None}

    def _sign_key(self, node: str) -> str:
        return f"{self._scope}/sign/{node}"

    @contextmanager
    def attaching(self) -> Iterator[bool]:
        """A block that creates the run or attaches to it; whether the run is open to that.

        An attach to a run that has ended would revive it. So each is counted before it asks whether the run is closed,
        and the rank that closes the run waits for the count. One that was given up may be executed a moment later.
        """
        self.count("attach begun")
        try:
            yield not self.claimed("closed")
        except TrackerUnavailableError:
            self.claim("attach given up")
            raise
        finally:
            self.count("attach over")

    def close(self) -> None:
        """Close the run to attaches."""
        self.claim("closed")

    @property
    def has_attaches(self) -> bool:
        """Whether an attach has begun, and is not over."""
        return self.count("attach over", 0) < self.count("attach begun", 0)

    @property
    def has_given_up(self) -> bool:
        """Whether the sender of an attach has given up waiting for its answer."""
        return self.claimed("attach given up")

    def slowdowns(self) -> tuple[int, ...]:
        """The slots from which on attaches go at half the rate, one for each time that the tracker refused some."""
        found: list[int] = []
        while len(found) < SLOWDOWN_LIMIT and (text := self._store.get(f"{self._scope}/slower/{len(found)}")):
            found.append(number(text))
        return tuple(found)

    def slow_down(self, known: int, slot: int) -> None:
        """Halve the rate from ``slot`` on; of all ranks that knew of ``known`` slowdowns only the first one counts."""
        if known < SLOWDOWN_LIMIT:
            self._store.compare_set(f"{self._scope}/slower/{known}", "", str(slot))

    def claim(self, role: str) -> bool:
        """Whether this rank is the first to claim ``role``."""
        mine = str(self._member.rank)
        return self._store.compare_set(f"{self._scope}/claim/{role}", "", mine) == mine

    def lead(self) -> bool:
        """Whether this rank 0 leads the attempt: no rank 0 on another node, or of another attempt of its own, does."""
        nonce = self._member.nonce
        return self._store.compare_set(f"{self._scope}/claim/{LEADER}", "", nonce) == nonce

    def claim_on_node(self, role: str) -> bool:
        """Whether this rank is the first of its node to claim ``role`` in this attempt; needs no store.

        Where the node keeps no state every rank is the first.
        """
        mine, name = str(self._member.rank), f"{self._state_name} {role} {self._member.nonce}"
        return self._node_state.set_default(name, mine) == mine

    def claimed(self, role: str) -> bool:
        """Whether any rank has claimed ``role``."""
        return self._store.get(f"{self._scope}/claim/{role}") is not None

    def count(self, event: str, amount: int = 1) -> int:
        """Add ``amount`` (0 to read) to the counter of ``event``; its value."""
        return self._store.add(f"{self._scope}/count/{event}", amount)


def _outcome(text: str) -> Outcome:
    found: Outcome = load(text, Outcome.from_json, "the outcome")
    return found
