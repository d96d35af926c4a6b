"""A node that falls silent while the job goes on is recorded once, and once more when it comes back."""

from __future__ import annotations

import pytest

from lifecycle.ranks import context_of, member_of, plan_of
from pluto_dist.contract.hardware import Silence
from pluto_dist.lifecycle.context import RankContext
from pluto_dist.lifecycle.node_signs import NodeWatch, signs_of_life, silence_limit
from pluto_dist.rendezvous.store import LocalStore

HEARTBEAT = 10.0
WORKER = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "3", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
Change = list[tuple[str, bool]]


@pytest.fixture
def nodes() -> list[RankContext]:
    """The leaders of three nodes."""
    store = LocalStore()
    return [leader(store, rank) for rank in range(3)]


def leader(store: LocalStore, rank: int, count: int = 3) -> RankContext:
    environ = WORKER | {"RANK": str(rank), "GROUP_RANK": str(rank), "GROUP_WORLD_SIZE": str(count)}
    plan = plan_of(environ | {"PLUTO_DIST_HEARTBEAT": str(HEARTBEAT)}, mode="offline")
    return context_of(plan, member_of(store, rank, node=str(rank), host=f"node-{rank}"))


class Owner:
    """The owner's watch, on a clock that the test moves: a look at every heartbeat."""

    def __init__(self, context: RankContext, *silences: Silence) -> None:
        self.now = 0.0
        self.watch = NodeWatch(context, silences, lambda: self.now)

    def looks(self, number: int, living: tuple[RankContext, ...] = ()) -> list[Change]:
        """The changes of the record, while ``living`` give signs: each silence's host, and whether it lasts."""
        found = []
        for _ in range(number):
            self.now += HEARTBEAT
            for each in living:
                each.channel.sign()
            if (changed := self.watch.look()) is not None:
                found.append([(entry["host"], "back" not in entry) for entry in changed])
        return found


def test_a_node_that_falls_silent(nodes, caplog):
    """One change names it; the others, that live, are not in it. It comes back, and that is the second change."""
    first, victim, other = nodes
    owner = Owner(first)
    assert owner.looks(3, (first, victim, other)) == []
    assert owner.looks(4, (first, other)) == []
    assert owner.looks(3, (first, other)) == [[("node-1", True)]]
    assert "no sign of life from node-1 for 40 s" in caplog.text
    assert owner.looks(3, (first, victim, other)) == [[("node-1", False)]]
    assert owner.looks(20, (first, victim, other)) == []


def test_a_node_that_signs_off_is_not_silent(nodes):
    """Its leader gives signs until its part in the run ends; nor is a node that has never given one."""
    first, ended, _ = nodes
    owner = Owner(first)
    with signs_of_life(ended):
        while not first.channel.signs(["1"]):
            pass
        assert owner.looks(1, (first,)) == []
    assert first.channel.signs(["1", "2"]) == {"1": "off"}
    assert owner.looks(20, (first,)) == []


def test_nodes_that_come_and_go_do_not_change_the_record_all_the_time(nodes):
    """Two changes are ever farther apart, up to a limit, and the last one has the last state."""
    first, victim, _ = nodes
    owner, changes = Owner(first), []
    for _ in range(50):
        changes += owner.looks(5, (first, victim)) + owner.looks(5, (first,))
    assert len(changes) < 15
    assert owner.looks(70, (first,))[-1:] == [[("node-1", True)]]


def test_an_owner_that_was_suspended_takes_nobody_for_silent(nodes):
    """It has not seen whether they gave signs: it watches from then on."""
    first, other, _ = nodes
    owner = Owner(first)
    owner.looks(1, (first, other))
    owner.now += 3600
    assert owner.looks(4, (first,)) == []
    assert owner.looks(2, (first,)) == [[("node-1", True)]]


def test_a_stand_in_keeps_what_is_recorded(nodes):
    """A node that was silent before it took over stays so, since when it was, until it comes back."""
    first, silent, victim = nodes
    silent.channel.sign()
    victim.channel.sign()
    owner = Owner(first, Silence("1", "node-1", "long ago"))
    assert owner.looks(6, (first,)) == [[("node-1", True), ("node-2", True)]]
    silent.channel.sign()
    owner.now += 2 * HEARTBEAT
    changed = owner.watch.look()
    assert changed is not None
    assert (changed[0]["since"], "back" in changed[0]) == ("long ago", True)


def test_a_job_on_one_node_gives_no_signs():
    alone = leader(LocalStore(), 0, count=1)
    with signs_of_life(alone):
        assert NodeWatch(alone).look() is None
    assert alone.channel.signs(["0"]) == {}


def test_the_limit_is_that_of_the_owner():
    assert silence_limit(10.0) == 40.0
