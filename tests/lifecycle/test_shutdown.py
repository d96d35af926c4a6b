"""Which rank reports the end of a run, whatever the others know of it."""

from __future__ import annotations

import json
import time

import pytest

from client.picky import PickyTracker
from lifecycle.ranks import member_of, plan_of
from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_ref import Reference, RunName
from pluto_dist.contract.run_requests import CreateRunRequest, UpdateStatusRequest
from pluto_dist.contract.secret import Secret
from pluto_dist.errors import ExchangeError
from pluto_dist.lifecycle.shutdown import ShutdownStep
from pluto_dist.rendezvous.store import LocalStore, StoreAnswerError
from pluto_dist.rendezvous.store_thread import StoreSilentError

TWO_NODES = {"GROUP_RANK": "0", "GROUP_WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}


def step_of(store: LocalStore, rank: int, *, owner: int = 0, **environ: str) -> ShutdownStep:
    launch = {"TORCHELASTIC_RUN_ID": "x", "RANK": str(rank), "WORLD_SIZE": "3", **environ}
    plan = plan_of(launch, timeout=1, mode="offline")
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


class LostStore(LocalStore):
    """A store that does not answer any more."""

    error: type[ExchangeError] = StoreSilentError
    is_lost = False

    def compare_set(self, key: str, expected: str, desired: str) -> str:
        if self.is_lost:
            raise self.error("lost")
        return super().compare_set(key, expected, desired)

    def add(self, key: str, amount: int) -> int:
        return int(self.compare_set(key, "", "")) if self.is_lost else super().add(key, amount)


@pytest.mark.parametrize("error", [StoreSilentError, StoreAnswerError, ExchangeError])
def test_a_failure_is_told_if_the_store_is_silent(error):
    """Or answers garbage: it tells nothing to others; one that has ended was that of a rank that told its own."""
    store = LostStore()
    steps = [step_of(store, rank) for rank in range(3)]
    store.error, store.is_lost = error, True
    told = [each.is_mine_to_report("FAILED", in_tracker=True) for each in steps]
    assert told == [True, *[error is not ExchangeError] * 2]
    assert [each.is_mine_to_report("COMPLETED", in_tracker=True) for each in steps] == [True, False, False]


@pytest.mark.parametrize(
    ("newest", "status", "history"),
    [
        ("mine", "RUNNING", ["COMPLETED"]),
        ("later", "RUNNING", []),
        ("mine", "CANCELLED", ["CANCELLED"]),
    ],
    ids=["the last attempt", "a later attempt", "cancelled"],
)
def test_the_run_is_asked_once(newest, status, history):
    """Whether a later attempt is in the run, and whether it is cancelled, is seen in one answer of the tracker."""
    step = step_of(LocalStore(), 0, WORLD_SIZE="2", **TWO_NODES)
    key = step.channel.attempt_key("k")
    records = {key: {"number": 1}, **({"later": {"number": 2}} if newest == "later" else {})}
    config = json.dumps({"pluto_dist": {"attempts": records}})
    with PickyTracker() as tracker:
        client = TrackerClient(tracker.url, tracker.url, Secret(tracker.behind.api_key), user_agent="test")
        deadline = time.monotonic() + 30
        run_id = client.create(CreateRunRequest("r", "ends", "job-7", config=config), deadline=deadline).run_id
        if status != "RUNNING":
            client.update_status(UpdateStatusRequest(run_id, status), deadline=deadline)
        outbox = Outbox(None, RunName(tracker.url, "ends", Reference("external id", "job-7")), "launch")
        step.report(client, outbox, UpdateStatusRequest(run_id, "COMPLETED"))

        asked = [seen.path for seen in tracker.requests if seen.path == f"/api/runs/details/{run_id}"]
        told = [change["to"] for change in tracker.run("ends")["statusHistory"]]
    assert told == ["RUNNING", *history]
    assert len(asked) == 1
