"""What the workers tell the launcher above them: it must know of the run before any of them can fail in it."""

from __future__ import annotations

import dataclasses
import os
import time

import pytest
from client.misbehaving import RUN

from pluto_dist.contract.run_ref import Reference
from pluto_dist.contract.run_requests import CreateRunResponse
from pluto_dist.environments import detect
from pluto_dist.identity import decide
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.lifecycle.supervision import note_run
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import AgreedId, Member, Outcome
from pluto_dist.rendezvous.node_state import NodeState, process_name
from pluto_dist.rendezvous.store import LocalStore
from pluto_dist.rendezvous.worker_reports import noted_run
from pluto_dist.settings.arguments import Arguments, prepare

ONLINE = Outcome("online", CreateRunResponse.from_json(RUN))
OFFLINE = Outcome("offline", message="refused")
SIGNED = AgreedId(Reference("external id", "torchrun-x"), "a token", 0, "here")


@pytest.fixture
def note(tmp_path):
    """Notes an outcome as one of two ranks of this node, in one attempt; what the launcher then reads."""
    folder, store = NodeState(tmp_path), LocalStore()
    prepared = prepare(Arguments(), {})
    places = [Membership(store, Member(rank, "0", "n", "here"), folder) for rank in (0, 1)]

    def note(rank: int, outcome: Outcome, nth: int = 1) -> tuple[int, int] | None:
        context = detect({"TORCHELASTIC_RUN_ID": "x", "RANK": str(rank), "WORLD_SIZE": "2"})
        context = dataclasses.replace(context, supervisor=process_name(os.getppid()), worker_marks=())
        request = prepared.request
        plan = Plan(prepared.settings, context, decide(context), request, {}, nth, "here", time.monotonic())
        note_run(plan, places[rank], SIGNED, outcome)
        noted = noted_run(folder)
        return None if noted is None else (noted.nth, noted.run_id)

    return note


def test_any_rank_notes_a_run_that_is_not_noted(note):
    """The node's leader may be killed as soon as another rank hears of the run, which therefore sees to it itself."""
    assert note(1, OFFLINE) == (1, 0)
    assert note(1, ONLINE, nth=2) == (2, RUN["runId"])


def test_who_comes_late_does_not_unsay_what_is_known(note):
    """What the node's leader has learnt since stands, though another rank hears only now that the job began offline."""
    assert note(0, OFFLINE) == (1, 0)
    assert note(0, ONLINE) == (1, RUN["runId"])
    assert note(1, OFFLINE) == (1, RUN["runId"])


def test_a_run_that_nobody_will_record_is_not_noted(note):
    """An error that all ranks got leaves nothing for the launcher to end."""
    assert note(0, Outcome("error", error="RequestRefusedError", message="no")) is None
