"""What workers report to the launcher above them: it must know of the run before any of them can fail in it."""

from __future__ import annotations

import dataclasses
import os

import pytest

from client.misbehaving import RUN
from lifecycle.ranks import context_of, plan_of
from pluto_dist.contract.run_requests import CreateRunResponse
from pluto_dist.environments.process_facts import process_name
from pluto_dist.lifecycle.supervision import report_begin, report_run
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import Member, Outcome
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.store import LocalStore
from pluto_dist.rendezvous.worker_reports import read_run

ONLINE = Outcome("online", CreateRunResponse.from_json(RUN))
OFFLINE = Outcome("offline", message="refused")


@pytest.fixture
def report(tmp_path):
    """Reports an outcome as one of two ranks of this node, in one attempt; what the launcher then reads."""
    folder, store = NodeState(tmp_path), LocalStore()
    places = [Membership(store, Member(rank, "0", "n", "here"), folder) for rank in (0, 1)]

    def report(rank: int, outcome: Outcome | None, nth: int = 1, *, owns: bool = False) -> tuple[int, int, bool] | None:
        plan = plan_of({"TORCHELASTIC_RUN_ID": "x", "RANK": str(rank), "WORLD_SIZE": "2"})
        supervised = dataclasses.replace(plan.context, supervisor=process_name(os.getppid()), worker_marks=())
        plan = dataclasses.replace(plan, context=supervised, nth=nth)
        context = context_of(plan, places[rank])
        if outcome is None:
            report_begin(context)
        else:
            report_run(context, outcome, owns=owns)
        reported = read_run(folder)
        return None if reported is None else (reported.nth, reported.run_id, reported.owns)

    return report


def test_any_rank_reports_a_run_that_is_not_reported(report):
    """The node leader may be killed as soon as another rank knows of the run, so each sees that it is reported."""
    assert report(1, OFFLINE) == (1, 0, False)
    assert report(1, ONLINE, nth=2) == (2, RUN["runId"], False)


def test_a_late_rank_does_not_overwrite_what_is_known(report):
    """What the node leader has reported since stays, though another rank learns only now that the job began offline."""
    assert report(0, OFFLINE) == (1, 0, False)
    assert report(0, ONLINE) == (1, RUN["runId"], False)
    assert report(1, OFFLINE) == (1, RUN["runId"], False)


def test_a_run_that_no_tracker_will_have_is_not_reported(report):
    """An error that all ranks got leaves nothing for the launcher to end."""
    assert report(0, Outcome("error", error="RequestRefusedError", message="no")) is None


def test_a_run_that_is_being_created_is_reported(report):
    """The rank that creates it may be killed before it knows the answer: the launcher ends the run by its name."""
    assert report(1, None) == (1, 0, True)
    assert report(0, ONLINE) == (1, RUN["runId"], True), "it may be the owner, which has not reported the answer yet"
    assert report(1, ONLINE) == (1, RUN["runId"], False), "another node's rank was faster"


def test_the_owner_reports_that_it_is_on_this_node(report):
    """Its node's launcher reports the success of the job, whichever rank the owner is."""
    assert report(0, ONLINE) == (1, RUN["runId"], False)
    assert report(1, ONLINE, owns=True) == (1, RUN["runId"], True)
    assert report(0, ONLINE) == (1, RUN["runId"], True)
