"""What ranks say to each other: over the store of a world of one, and over torch's with a thread as each rank."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pluto_dist.contract.run_ref import Reference
from pluto_dist.contract.run_requests import CreateRunResponse
from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.topology import Topology
from pluto_dist.errors import ExchangeError, NoSharedRunError
from pluto_dist.identity import TOKEN
from pluto_dist.rendezvous.connect import connect
from pluto_dist.rendezvous.file_store import FileStore
from pluto_dist.rendezvous.membership import AttemptOverError, Membership
from pluto_dist.rendezvous.messages import MESSAGE_LIMIT, Member, Outcome, PriorAttempt, dump
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.run_channel import RunChannel
from pluto_dist.rendezvous.store import PREFIX, LocalStore, Store, TorchStore

T = TypeVar("T")
NODES, RANKS_PER_NODE = 4, 4
ANSWER = CreateRunResponse(7, 3, "DIG-3", "digits", "local", "http://127.0.0.1/x", False)
REFERENCE = Reference("external id", "torchrun-123-abc")


class Meeting:
    """A place to meet: each call gives one rank's own store. ``end`` takes the server away."""

    def __init__(self, kind: str) -> None:
        self._local = LocalStore() if kind == "local" else None
        self._server: Any = None
        if self._local is None:
            from torch.distributed import TCPStore

            self._server = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
            self.port = self._server.port

    def __call__(self) -> Store:
        if self._local is not None:
            return self._local
        topology = Topology(0, NODES * RANKS_PER_NODE)
        return connect(
            LaunchContext("torchrun", topology, store_address=("127.0.0.1", self.port)),
            NodeState(None),
            "slot",
            deadline=time.monotonic() + 20,
        )

    def end(self) -> None:
        self._server = None

    def plant(self, key: str, value: str | bytes) -> None:
        """Write under our prefix with torch's own client, as anybody on the network can."""
        from torch.distributed import PrefixStore, TCPStore

        client = TCPStore("127.0.0.1", self.port, None, False, wait_for_workers=False)
        PrefixStore(PREFIX, client).set(key, value)
        client.check([key])  # a set is not answered; this is


@pytest.fixture(params=["local", "torch"])
def meeting(request: pytest.FixtureRequest) -> Iterator[Meeting]:
    place = Meeting(request.param)
    yield place
    place.end()


@pytest.fixture
def torch_meeting() -> Iterator[Meeting]:
    place = Meeting("torch")
    yield place
    place.end()


def member(rank: int = 0, nonce: str = "monday") -> Member:
    node = rank // RANKS_PER_NODE
    return Member(rank=rank, node=str(node), nonce=nonce, host=f"node-{node}")


def at_once(calls: list[Callable[[], T]]) -> list[T]:
    """All calls released together, each in a thread; their results in order."""
    barrier = threading.Barrier(len(calls))

    def released(call: Callable[[], T]) -> T:
        barrier.wait(30)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(60) for future in [pool.submit(released, call) for call in calls]]


def place_of(store: Store, member: Member, folder: Path | None = None) -> Membership:
    """A rank's place, on a node that remembers in ``folder`` or not at all."""
    return Membership(store, member, NodeState(folder))


def token(place: Membership) -> str:
    """The launch's token, with nobody to ask."""
    return place.agree_on_token(None, 0)


def online_in(run: RunChannel) -> None:
    """Remember, as the leader, that the run came into being."""
    run.remember(Outcome("online", ANSWER), in_store=True)


def sign_in(stores: list[Store], nonce: Callable[[int], str]) -> list[Membership]:
    """Every rank signs in at once; ``nonce`` is its node's."""
    members = [member(rank, nonce(rank // RANKS_PER_NODE)) for rank in range(len(stores))]
    return at_once([lambda s=s, m=m: place_of(s, m) for s, m in zip(stores, members, strict=True)])


def test_a_whole_job_meets(meeting):
    """One attempt, one token, one leader per node, every node on the list, and one winner of every race."""
    stores = [meeting() for _ in range(NODES * RANKS_PER_NODE)]
    places = sign_in(stores, lambda node: f"monday{node}")

    assert {place.attempt for place in places} == {0}
    tokens = set(at_once([lambda place=place: token(place) for place in places]))
    assert len(tokens) == 1
    assert TOKEN.fullmatch(tokens.pop())
    leaders = [place.member.node for place in places if place.is_node_leader]
    assert sorted(leaders) == sorted(places[0].nodes()) == [str(node) for node in range(NODES)]

    runs = [place.run(1) for place in places]
    assert sum(at_once([lambda run=run: run.claim("taker") for run in runs])) == 1
    assert all(run.claimed("taker") for run in runs)
    assert sorted(at_once([lambda run=run: run.count("joined") for run in runs])) == list(range(1, len(runs) + 1))
    assert runs[0].count("joined", 0) == len(runs)
    outcomes = at_once(
        [lambda n=n, run=run: run.publish_outcome(Outcome("offline", message=str(n))) for n, run in enumerate(runs)]
    )
    assert len(set(outcomes)) == 1
    assert runs[5].outcome() == outcomes[0]
    signed = at_once(
        [
            lambda n=n, run=run: run.propose_run_id(Reference("external id", f"id{n}"), "test", ())
            for n, run in enumerate(runs)
        ]
    )
    assert len(set(signed)) == 1
    assert signed[0].reference.value == f"id{signed[0].rank}"


@pytest.mark.parametrize("changed", [[0], [0, 2], [0, 1, 2, 3]], ids=["one node", "two nodes", "all nodes"])
def test_a_new_nonce_opens_the_next_attempt_once(meeting, changed):
    """However many ranks find their node's old nonce, one attempt is opened; the others learn that theirs is over."""
    stores = [meeting() for _ in range(NODES * RANKS_PER_NODE)]
    before = sign_in(stores, lambda node: "monday")
    again = sign_in(stores, lambda node: "tuesday" if node in changed else "monday")

    # A node with its old nonce that comes first finds itself in the old attempt, and hears of the new one.
    stayed = [place for place in again if place.attempt == 0]
    assert {place.attempt for place in again} <= {0, 1}
    assert all(int(place.member.node) not in changed for place in stayed)
    assert all(place.is_over() for place in [*stayed, *before])
    moved = [place for place in again if place.attempt == 1] + [place_of(p.store, p.member) for p in stayed]
    assert {place.attempt for place in moved} == {1}
    assert not any(place.is_over() for place in moved)
    assert sorted(moved[0].nodes()) == [str(node) for node in range(NODES)]
    assert sum(place.is_node_leader for place in moved) == NODES


def test_signing_in_again_is_the_same_place(meeting):
    """A rank that signs in twice in an attempt is counted once, and leads its node as before."""
    store = meeting()
    first, second = place_of(store, member()), place_of(store, member())
    assert (first.attempt, first.is_node_leader) == (second.attempt, second.is_node_leader) == (0, True)
    assert second.nodes() == {"0": "node-0"}


def test_what_an_attempt_leaves_to_the_next(meeting):
    """The token and the run that the launch began are found again; nothing else of an attempt is."""
    store = meeting()
    old = place_of(store, member())
    secret, run = token(old), old.run(1)
    run.propose_run_id(REFERENCE, "test", ())
    run.publish_outcome(Outcome("online", ANSWER))
    online_in(run)
    run.claim("closed")
    run.count("joined", 5)
    old.publish_inventory({"host": "a"})
    old.acknowledge_node("0")
    assert old.await_acknowledgement(0)

    new = place_of(store, member(nonce="tuesday"))
    assert new.attempt == 1
    assert token(new) == secret
    again = new.run(1)
    assert again.prior_attempt() == PriorAttempt(7, joined=True)
    assert again.outcome() is None
    assert not again.claimed("closed")
    assert again.claim("closed")
    assert again.count("joined", 0) == 0
    assert new.inventories() == {}
    assert new.nodes() == {"0": "node-0"}
    assert not new.await_acknowledgement(0)
    other = Reference("external id", "another")
    assert again.propose_run_id(other, "test", ()).reference == other
    assert run.outcome() == Outcome("online", ANSWER)  # the old attempt's is where it was


def test_a_rank_0_of_a_new_node_opens_the_attempt_that_is_its_own(meeting):
    """It is first in its attempt and was in none before: in the one on record another rank 0 leads."""
    old = place_of(meeting(), member())
    token(old)
    assert old.run(1).lead()
    assert old.run(1).lead()  # the same process, again
    newcomer = place_of(meeting(), Member(0, "7", "tuesday", "node-7"))
    token(newcomer)
    assert newcomer.attempt == 0
    assert not newcomer.run(1).lead()
    with pytest.raises(AttemptOverError, match="another process leads"):
        newcomer.leave()
    again = place_of(meeting(), Member(0, "7", "tuesday", "node-7"))
    assert again.attempt == 1
    assert token(again) == old.token
    assert again.run(1).lead()
    with pytest.raises(AttemptOverError, match="later attempt"):
        old.stay()


def test_who_waits_for_the_token_learns_that_the_attempt_is_over(meeting):
    """A node that nobody of its attempt meets in the old one registers again, long before its wait is over."""
    early = place_of(meeting(), Member(0, "7", "tuesday", "node-7"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(early.agree_on_token, 3, 60.0)
        place_of(meeting(), member())
        place_of(meeting(), member(nonce="tuesday"))
        with pytest.raises(AttemptOverError):
            waiting.result(timeout=30)


def test_runs_of_an_attempt_are_apart(meeting):
    """The n-th run shares nothing with the others but the token."""
    place = place_of(meeting(), member())
    first, second = place.run(1), place.run(2)
    first.publish_outcome(Outcome("offline", message="first"))
    online_in(first)
    first.claim("leader")
    first.count("left")
    assert second.outcome() is None
    assert second.prior_attempt() is None
    assert not second.claimed("leader")
    assert second.count("left", 0) == 0


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("online", ANSWER, resumed=True),
        Outcome("offline", message="作業 \x00 \ud800 \n"),
        Outcome("error", error="AuthenticationError", message="no"),
    ],
    ids=lambda outcome: outcome.kind,
)
def test_an_outcome_arrives_whole(meeting, outcome):
    """What one rank publishes is what another reads, whatever its text."""
    place_of(meeting(), member(0)).run(1).publish_outcome(outcome)
    assert place_of(meeting(), member(1)).run(1).outcome(seconds=5) == outcome


def test_an_outcome_wakes_those_who_wait(meeting):
    """A rank that waits has the outcome as soon as it is there."""
    leader, follower = place_of(meeting(), member(0)).run(1), place_of(meeting(), member(1)).run(1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(follower.outcome, 30)
        time.sleep(0.1)
        leader.publish_outcome(Outcome("online", ANSWER))
        assert waiting.result(30) == Outcome("online", ANSWER)


def test_waits_are_bounded(meeting):
    """A wait for what never comes ends at its time, and says so."""
    place = place_of(meeting(), member())
    began = time.monotonic()
    assert place.run(1).outcome(0.3) is None
    assert not place.await_acknowledgement(0.3)
    assert place.store.get("missing", 0.3) is None
    assert 0.8 < time.monotonic() - began < 30
    assert place.store.get("attempt", 0) == "0"


def test_inventories_arrive_once_each(meeting):
    """Read in pieces, every node's inventory comes exactly once."""
    places = [place_of(meeting(), member(rank)) for rank in range(0, 16, RANKS_PER_NODE)]
    for number, place in enumerate(places, start=1):
        place.publish_inventory({"host": place.member.host})
        assert len(places[0].inventories()) == number
    found = places[0].inventories()
    assert {node: entry["inventory"]["host"] for node, entry in found.items()} == {
        str(n): f"node-{n}" for n in range(NODES)
    }


def test_a_slow_writer_loses_nothing():
    """A node that is between its number and its words hides neither its own inventory nor another's."""

    class Slow(LocalStore):
        """Holds back the first inventory until it is told to go on."""

        held: tuple[str, str] | None = None

        def set(self, key: str, value: str) -> None:
            if self.held is None and "/inventories/" in key:
                self.held = (key, value)
            else:
                super().set(key, value)

    store = Slow()
    places = [place_of(store, member(rank)) for rank in (0, RANKS_PER_NODE)]
    for place in places:
        place.publish_inventory({})
    assert set(places[0].inventories()) == {"1"}
    assert store.held is not None
    LocalStore.set(store, *store.held)
    assert set(places[0].inventories()) == {"0", "1"}


def online(**changes: Any) -> str:
    fields = {"kind": "online", "resumed": False, "error": "", "message": "", "answer": ANSWER.to_json()}
    return dump({**fields, **changes})


JSON_GARBAGE = {
    "no JSON": "hello",
    "cut": online()[:-5],
    "null": "null",
    "list": "[]",
    "empty object": "{}",
    "number": "7",
    "NaN": "NaN",
    "NUL": "\x00",
    "not UTF-8": "\ufffd\ufffd",
    "pickle": "\x80\x04\x95cos\nsystem\n(S'true'\ntR.",
    "nested": "[" * 200_000,
    "nested objects": '{"a":' * 100_000,
    "digits": "9" * 5000,
    "unknown kind": (
        '{"kind":"sideways","value":"x","source":"s","rank":0,"host":"h","resumed":false,"error":"","message":""}'
    ),
    "kind no text": online(kind=1),
    "too long": '"' + "x" * MESSAGE_LIMIT + '"',
}
OUTCOME_GARBAGE = {
    **JSON_GARBAGE,
    "resumed a number": online(resumed=1),
    "message null": online(message=None),
    "no answer": online(answer=None),
    "answer of another shape": online(answer={"runId": 7}),
    "run id as text": online(answer={**ANSWER.to_json(), "runId": "7"}),
    "run id NaN": online(answer={**ANSWER.to_json(), "runId": float("nan")}),
    "answer a list": online(answer=[]),
}
ID_GARBAGE = {
    **JSON_GARBAGE,
    "rank a flag": '{"kind":"number","value":"7","source":"s","variables":{},"rank":true,"host":"h"}',
    "variables a list": '{"kind":"number","value":"7","source":"s","variables":[],"rank":1,"host":"h"}',
}
BEGUN_GARBAGE = {"word": "lived seven", "negative": "lived -1", "digits": "lived " + "9" * 5000}
NUMBER_GARBAGE = {
    "word": "seven",
    "negative": "-1",
    "fraction": "1.5",
    "blank": " 7",
    "other digits": "\u0667",
    "superscript": "²",
    "JSON": '{"a":1}',
    "NUL": "\x00",
    "digits": "9" * 5000,
}
READINGS: list[tuple[str, str, Callable[[RunChannel, Membership], Any], dict[str, str]]] = [
    ("outcome", "0/run/1/outcome", lambda run, place: run.outcome(), OUTCOME_GARBAGE),
    ("publish", "0/run/1/outcome", lambda run, place: run.publish_outcome(Outcome("offline")), OUTCOME_GARBAGE),
    ("id", "0/run/1/id", lambda run, place: run.propose_run_id(REFERENCE, "test", ()), ID_GARBAGE),
    ("token", "token", lambda run, place: token(place), NUMBER_GARBAGE | JSON_GARBAGE),
    ("began", "began//1", lambda run, place: run.prior_attempt(), BEGUN_GARBAGE),
    ("over", "attempt", lambda run, place: place.is_over(), NUMBER_GARBAGE),
    ("sign in", "attempt", lambda run, place: place_of(place.store, member()), NUMBER_GARBAGE),
]
PLANTED = [
    pytest.param(key, text, read, id=f"{name}: {kind}")
    for name, key, read, garbage in READINGS
    for kind, text in garbage.items()
]


@pytest.mark.parametrize(("key", "text", "read"), PLANTED)
def test_garbage_in_the_store(key, text, read):
    """Whatever somebody wrote under our keys, reading it is ExchangeError, short, and nothing else."""
    store = LocalStore()
    place = place_of(store, member())
    store.set(key, text)
    with pytest.raises(ExchangeError) as caught:
        read(place.run(1), place)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("text", JSON_GARBAGE.values(), ids=JSON_GARBAGE)
def test_a_garbled_inventory_costs_nobody_else_theirs(text):
    """An inventory that cannot be read is left out; those before and after it are there."""
    store = LocalStore()
    places = [place_of(store, member(rank)) for rank in range(0, 12, RANKS_PER_NODE)]
    places[0].publish_inventory({})
    store.set(f"0/inventories/{store.add('0/inventories', 1)}", text)
    places[2].publish_inventory({})
    assert set(places[0].inventories()) == {"0", "2"}


@pytest.mark.parametrize("counter", ["0/nodes", "0/inventories"])
def test_a_counter_that_somebody_drove_up(counter):
    """A count beyond any launch is ExchangeError, not a search without end."""
    store = LocalStore()
    place = place_of(store, member())
    store.set(counter, str(10**12))
    with pytest.raises(ExchangeError):
        (place.nodes if "nodes" in counter else place.inventories)()


@pytest.mark.parametrize("text", ["seven", "9" * 5000, b"\xff\xfe"], ids=["word", "digits", "not UTF-8"])
@pytest.mark.parametrize("key", ["attempt", "0/node/0", "0/nodes", "0/inventories", "0/run/1/count/joined", "token"])
def test_garbage_in_torchs_store(torch_meeting, key, text):
    """Over torch, where a counter that is no number costs the connection, it is ExchangeError too."""
    place = place_of(torch_meeting(), member())
    torch_meeting.plant(key, text)
    steps: list[Callable[[], Any]] = [
        place.nodes,
        place.inventories,
        place.is_over,
        lambda: place.run(1).count("joined"),
        lambda: token(place),
        lambda: place_of(torch_meeting(), member()),
    ]
    for step in steps:
        try:
            step()
        except ExchangeError as error:
            assert len(str(error)) < 1000  # some steps do not meet the garbage


def test_a_store_with_another_launch_in_it(meeting):
    """A node's place that is always taken ends in an error, not in an endless search."""
    store = meeting()
    for attempt in range(1000):
        store.set(f"{attempt}/node/0", f"other{attempt} 0")
    with pytest.raises(ExchangeError, match="another launch"):
        place_of(store, member())


def every_call(place: Membership, run: RunChannel) -> dict[str, Callable[[], Any]]:
    return {
        "token": lambda: token(place),
        "publish_inventory": lambda: place.publish_inventory({}),
        "inventories": place.inventories,
        "nodes": place.nodes,
        "acknowledge_node": lambda: place.acknowledge_node("0"),
        "await_acknowledgement": lambda: place.await_acknowledgement(5),
        "is_over": place.is_over,
        "propose_run_id": lambda: run.propose_run_id(REFERENCE, "test", ()),
        "publish_outcome": lambda: run.publish_outcome(Outcome("offline")),
        "outcome": lambda: run.outcome(5),
        "began": lambda: online_in(run),
        "prior_attempt": run.prior_attempt,
        "claim": lambda: run.claim("x"),
        "claimed": lambda: run.claimed("x"),
        "count": lambda: run.count("x"),
        "sign in": lambda: place_of(place.store, member()),
    }


def test_a_store_that_died(torch_meeting):
    """Once the store's server is gone, every call is ExchangeError, soon; only an unanswered write may pass once."""
    place = place_of(torch_meeting(), member())
    run = place.run(1)
    torch_meeting.end()
    gc.collect()  # torch's server ends with its last reference
    time.sleep(0.2)
    began = time.monotonic()
    with pytest.raises(ExchangeError):
        run.claimed("x")
    for name, call in every_call(place, run).items():
        if name not in ("acknowledge_node", "began"):  # torch does not wait for an answer to set()
            with pytest.raises(ExchangeError):
                call()
    assert time.monotonic() - began < 30


def test_nobody_hosts_the_store():
    """An agent's store that does not answer is ExchangeError with its address, within torch's overshoot."""
    gone = Meeting("torch")
    gone.end()
    context = LaunchContext("torchrun", Topology(1, 2), store_address=("127.0.0.1", gone.port))
    began = time.monotonic()
    with pytest.raises(ExchangeError, match=f"127.0.0.1:{gone.port}"):
        connect(context, NodeState(None), "slot", deadline=time.monotonic() + 1)
    assert time.monotonic() - began < 40


@pytest.mark.parametrize(
    ("context", "told"),
    [
        (LaunchContext("process_group", Topology(0, 2)), "MASTER_ADDR"),
        (LaunchContext("openmpi", Topology(0, 2)), "openmpi gives them none"),
        (LaunchContext("environment", Topology(0, 2)), "init_process_group"),
    ],
)
def test_ranks_that_share_no_store(context, told):
    """Several ranks without a store get an error that says what to do."""
    with pytest.raises(NoSharedRunError, match=told):
        connect(context, NodeState(None), "slot", deadline=time.monotonic() + 1)


def test_a_store_that_this_rank_left(meeting):
    """A rank that has closed its store gets ExchangeError at most; the others notice nothing."""
    mine, theirs = meeting(), meeting()
    places = [place_of(store, member(rank)) for rank, store in enumerate((mine, theirs))]
    secret = token(places[1])
    mine.close()
    for name, call in every_call(places[0], places[0].run(1)).items():
        try:
            call()
        except ExchangeError as error:
            assert str(error), name  # a world of one has nothing to leave
    assert token(places[1]) == secret


def test_a_world_of_one_needs_no_torch():
    """One process that no launcher started meets nobody."""
    assert isinstance(connect(LaunchContext("single", Topology(0, 1)), NodeState(None), "slot", deadline=0), FileStore)
    assert isinstance(connect(LaunchContext("flux", Topology(0, 1)), NodeState(None), "slot", deadline=0), LocalStore)


class CountingStore(TorchStore):
    """Counts what it asks."""

    asked = 0

    def _call(self, method: str, *arguments: Any) -> Any:
        self.asked += method == "check"
        return super()._call(method, *arguments)


def test_many_who_wait_ask_ever_less_often():
    """A rank that waits in slices, and looks at another key in between, goes on with the pause that it had reached."""
    from torch.distributed import TCPStore

    server = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    store = CountingStore(server, world_size=10_000)
    for _ in range(4):
        assert store.get("outcome", 0.5) is None
        assert store.get("attempt") is None
    assert store.asked <= 4 + 14  # four looks at the other key; 20 at the outcome if each slice began anew
