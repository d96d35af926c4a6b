"""A rank's own thread and the end of its part, whichever comes first."""

from __future__ import annotations

import threading
import time

import pytest

from pluto_dist.arguments import Arguments, prepare
from pluto_dist.errors import ExchangeError
from pluto_dist.exchange import Exchange, Member
from pluto_dist.identity import decide
from pluto_dist.launch_folder import LaunchFolder
from pluto_dist.launchers import detect
from pluto_dist.lifecycle import Participation
from pluto_dist.plan import Plan
from pluto_dist.store import LocalStore


@pytest.mark.parametrize("status", ["TERMINATED", "FAILED"])
def test_a_rank_that_ends_before_it_meets_the_others_begins_no_run(status):
    """It does not wait for them; where they are met all the same a moment later, nothing is said there."""
    store, late = LocalStore(), threading.Event()

    def meet(stop: threading.Event) -> Exchange:
        assert stop.wait(20)
        assert late.wait(20)
        return Exchange(store, Member(0, "0", "n", "here"), LaunchFolder(None))

    prepared = prepare(Arguments(timeout=2, mode="offline"), {})
    context = detect({"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2"})
    plan = Plan(prepared.settings, context, decide(context), prepared.request, {}, 1, "here", time.monotonic())
    participation = Participation(plan, meet, lambda: None)
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
