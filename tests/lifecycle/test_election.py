"""Who keeps a run that the tracker did not take: one rank, on its disk before any other rank hears of it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from client.misbehaving import RUN

from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.client.offline.queue import RunQueue
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_requests import CreateRunResponse
from pluto_dist.contract.secret import Secret
from pluto_dist.environments import detect
from pluto_dist.identity import decide
from pluto_dist.lifecycle.agreement import agree
from pluto_dist.lifecycle.creation import run_name
from pluto_dist.lifecycle.election import lead
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import Member, Outcome
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.run_channel import RunChannel
from pluto_dist.rendezvous.store import LocalStore
from pluto_dist.settings.arguments import Arguments, prepare

ONLINE = Outcome("online", CreateRunResponse.from_json(RUN), at=1.0)
OFFLINE = Outcome("offline", message="another rank's", at=1.0)


class WatchedRun(RunChannel):
    """The ranks' word on a run; looks at the disk when this rank speaks, after another rank may have spoken."""

    def __init__(self, exchange: Membership, spooled: RunQueue, faster: Outcome | None) -> None:
        super().__init__(exchange, 1, exchange.token)
        self._spooled, self._faster = spooled, faster
        self.kept_when_told: bool | None = None

    def publish_outcome(self, outcome: Outcome) -> Outcome:
        self.kept_when_told = not self._spooled.is_empty
        if self._faster is not None:
            super().publish_outcome(self._faster)
        return super().publish_outcome(outcome)


def led_by(rank: int, folder: Path, *, leader_came: bool, faster: Outcome | None = None) -> tuple[bool | None, int]:
    """Rank ``rank`` creates the run at a tracker that refuses: was it kept when told, and how much is kept at last."""
    prepared = prepare(Arguments(timeout=0.5), {})
    context = detect({"TORCHELASTIC_RUN_ID": "x", "RANK": str(rank), "WORLD_SIZE": "2"})
    plan = Plan(prepared.settings, context, decide(context), prepared.request, {}, 1, "here", time.monotonic())
    exchange = Membership(LocalStore(), Member(rank, "0", "n", "here"), NodeState(None))
    token = exchange.agree_on_token(None, 0)
    signed = agree(plan, exchange.run(1), token)
    outbox = Outbox(folder, run_name(plan, signed.reference), token)
    spooled = RunQueue(folder, outbox.name)
    run = WatchedRun(exchange, spooled, faster)
    if leader_came:
        run.claim("leader")
    client = TrackerClient("http://127.0.0.1:9", "http://127.0.0.1:9", Secret("mlps_k"), user_agent="test")
    try:
        lead(plan, exchange, run, signed, client, outbox, {})
    finally:
        client.close()
    assert outbox.has_pending == (not spooled.is_empty)
    return run.kept_when_told, len(spooled.entries())


@pytest.mark.parametrize(
    ("rank", "leader_came", "faster", "expected"),
    [
        pytest.param(0, True, None, (True, 1), id="the leader"),
        pytest.param(0, True, ONLINE, (True, 0), id="the leader, and another rank reached the tracker"),
        pytest.param(0, True, OFFLINE, (True, 1), id="the leader, and another rank said so first"),
        pytest.param(1, True, None, (None, 0), id="another rank beside the leader, whose word it is"),
        pytest.param(1, False, None, (True, 1), id="another rank, and no leader came"),
        pytest.param(1, False, OFFLINE, (True, 0), id="another rank, and a third said so first"),
    ],
)
def test_who_keeps_it(tmp_path, rank, leader_came, faster, expected):
    """One rank keeps it, and does before it tells: who hears of an outage may die at once."""
    assert led_by(rank, tmp_path / "spool", leader_came=leader_came, faster=faster) == expected
