"""A rank's own thread and the end of its part, whichever comes first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from lifecycle.ranks import context_of, member_of, plan_of
from pluto_dist.errors import ExchangeError, RunIdMismatchError
from pluto_dist.lifecycle.election import elect
from pluto_dist.lifecycle.participant import Participant
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.session import Session
from pluto_dist.rendezvous.store import LocalStore


class Connected(Session):
    """A session that connects as the test has it."""

    def __init__(self, connect: Callable[[threading.Event], Membership]) -> None:
        super().__init__()
        self._connect = connect

    def connect(self, *_: Any, stop: threading.Event, **__: Any) -> Membership:
        return self._connect(stop)


def test_a_node_that_finds_the_error_published_gets_it_in_time():
    """Rank 0 disagrees and is about to leave; another node must not take its outcome for an old attempt's."""
    store = LocalStore()
    store.set("token", "a" * 20)
    shared = {"WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "here"}
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": "29400"}

    def environ(rank: int, rendezvous_id: str) -> dict[str, str]:
        return {**shared, "RANK": str(rank), "GROUP_RANK": str(rank), "TORCHELASTIC_RUN_ID": rendezvous_id}

    other = member_of(store, 1, "1", host="there")
    other.token = "a" * 20
    context = context_of(plan_of(environ(1, "BBB"), mode="offline"), other)
    first = member_of(store, 0, "0")
    rank_zero = Participant(plan_of(environ(0, "AAA"), mode="offline"), Connected(lambda _stop: first))
    assert context.channel.outcome(20) is not None
    election = elect(context, lambda: pytest.fail("there is nothing to take over"))
    assert election is not None
    assert election.outcome.error == "RunIdMismatchError"
    assert not rank_zero.settled.done()
    context.channel.count("heard")
    with pytest.raises(RunIdMismatchError):
        rank_zero.settled.result(timeout=20)


@pytest.mark.parametrize("status", ["TERMINATED", "FAILED"])
def test_a_rank_that_ends_before_it_is_connected_begins_no_run(status):
    """It does not wait for the other ranks; if it is connected all the same a moment later, it writes nothing there."""
    store, late = LocalStore(), threading.Event()

    def connect(stop: threading.Event) -> Membership:
        assert stop.wait(20)
        assert late.wait(20)
        return member_of(store)

    plan = plan_of({"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2"}, timeout=2, mode="offline")
    participant = Participant(plan, Connected(connect))
    participant.end(status)
    with pytest.raises(ExchangeError, match="is over"):
        participant.settled.result(timeout=0)
    with pytest.raises(ExchangeError, match="is over"):
        participant.agreed.result(timeout=0)
    late.set()
    participant._thread.join(20)
    assert not participant._thread.is_alive()
    assert store.get("0/run/1/id") is None
    assert store.add("0/run/1/count/joined", 0) == 0
