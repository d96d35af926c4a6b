"""A rank's own thread and the end of its part, whichever comes first."""

from __future__ import annotations

import threading
import time

import pytest

from pluto_dist.environments import detect
from pluto_dist.errors import ExchangeError, RunIdMismatchError
from pluto_dist.identity import decide
from pluto_dist.lifecycle.agreement import agree
from pluto_dist.lifecycle.election import follow
from pluto_dist.lifecycle.participant import Participant
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import Member
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.store import LocalStore
from pluto_dist.settings.arguments import Arguments, prepare


def test_a_node_that_finds_the_error_published_hears_it_in_time():
    """The leader disagrees and is about to leave; another node must not take its word for an old attempt's."""
    store = LocalStore()
    store.set("token", "a" * 20)

    def plan(rank: int, rendezvous_id: str) -> Plan:
        environ = {"RANK": str(rank), "GROUP_RANK": str(rank), "WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2"}
        context = detect(
            environ
            | {"TORCHELASTIC_RUN_ID": rendezvous_id, "LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
            | {"MASTER_ADDR": "here", "MASTER_PORT": "29400"}
        )
        prepared = prepare(Arguments(mode="offline"), {})
        return Plan(prepared.settings, context, decide(context), prepared.request, {}, 1, "here", time.monotonic())

    other, others_plan = Membership(store, Member(1, "1", "n", "there"), NodeState(None)), plan(1, "BBB")
    run = other.run(1)
    other.token = "a" * 20
    agree(others_plan, run, other.token)
    leaders_place = Membership(store, Member(0, "0", "n", "here"), NodeState(None))
    leader = Participant(plan(0, "AAA"), lambda _stop: leaders_place, lambda: None)
    assert run.outcome(20) is not None
    outcome = follow(others_plan, other, run, lambda: pytest.fail("there is nothing to take over"))
    assert outcome is not None
    assert outcome.error == "RunIdMismatchError"
    assert not leader.settled.done()
    run.count("heard")
    with pytest.raises(RunIdMismatchError):
        leader.settled.result(timeout=20)


@pytest.mark.parametrize("status", ["TERMINATED", "FAILED"])
def test_a_rank_that_ends_before_it_meets_the_others_begins_no_run(status):
    """It does not wait for them; where they are met all the same a moment later, nothing is said there."""
    store, late = LocalStore(), threading.Event()

    def meet(stop: threading.Event) -> Membership:
        assert stop.wait(20)
        assert late.wait(20)
        return Membership(store, Member(0, "0", "n", "here"), NodeState(None))

    prepared = prepare(Arguments(timeout=2, mode="offline"), {})
    context = detect({"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2"})
    plan = Plan(prepared.settings, context, decide(context), prepared.request, {}, 1, "here", time.monotonic())
    participation = Participant(plan, meet, lambda: None)
    participation.end(status)
    with pytest.raises(ExchangeError, match="is over"):
        participation.settled.result(timeout=0)
    with pytest.raises(ExchangeError, match="is over"):
        participation.agreed.result(timeout=0)
    late.set()
    participation._thread.join(20)
    assert not participation._thread.is_alive()
    assert store.get("0/run/1/id") is None
    assert store.add("0/run/1/count/joined", 0) == 0
