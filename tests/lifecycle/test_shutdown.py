"""Which rank reports the end of a run, whatever the others know of it."""

from __future__ import annotations

import time

import pytest

from lifecycle.ranks import member_of, plan_of
from pluto_dist.lifecycle.shutdown import ShutdownStep
from pluto_dist.rendezvous.store import LocalStore


def step_of(store: LocalStore, rank: int, *, owner: int = 0) -> ShutdownStep:
    plan = plan_of({"TORCHELASTIC_RUN_ID": "x", "RANK": str(rank), "WORLD_SIZE": "3"}, timeout=1, mode="offline")
    membership = member_of(store, rank)
    membership.agree_on_token(None, 0)
    channel = membership.run(1)
    channel.count("joined")
    return ShutdownStep(plan, channel, rank == owner, time.monotonic())


@pytest.mark.parametrize("in_tracker", [True, False])
def test_the_owner_reports_a_success(in_tracker):
    store = LocalStore()
    steps = [step_of(store, rank) for rank in range(3)]
    steps[0].channel.claim("leader")
    assert [each.is_mine_to_report("COMPLETED", in_tracker=in_tracker) for each in steps] == [True, False, False]


def test_the_last_to_leave_reports_the_success_of_a_run_without_an_owner():
    """Rank 0 did not call init(), and the run is not in the tracker: nobody else would report it."""
    store = LocalStore()
    steps = [step_of(store, rank) for rank in (1, 2)]
    assert [each.is_mine_to_report("COMPLETED", in_tracker=False) for each in steps] == [False, True]


@pytest.mark.parametrize("status", ["FAILED", "TERMINATED"])
def test_the_first_to_fail_reports_it(status):
    """Also when it goes through its end twice, in a hurry."""
    store = LocalStore()
    steps = [step_of(store, rank) for rank in range(3)]
    order = [steps[each].is_mine_to_report(status, in_tracker=False) for each in (1, 0, 1, 2)]
    assert order == [True, False, True, False]
