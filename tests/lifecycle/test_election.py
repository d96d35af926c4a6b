"""A run that the tracker did not take is kept by one rank, on its disk, before any other rank learns of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from client.misbehaving import RUN
from lifecycle.ranks import context_of, member_of, plan_of
from pluto_dist.client.offline.queue import RunQueue
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_requests import CreateRunResponse
from pluto_dist.contract.secret import Secret
from pluto_dist.lifecycle.election import create_as_owner
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import Outcome
from pluto_dist.rendezvous.run_channel import RunChannel
from pluto_dist.rendezvous.store import LocalStore

ONLINE = Outcome("online", CreateRunResponse.from_json(RUN))
OFFLINE = Outcome("offline", message="another rank's")


class WatchedChannel(RunChannel):
    """Looks at the disk when this rank publishes, after another rank may have published."""

    def __init__(self, membership: Membership, queue: RunQueue, faster: Outcome | None) -> None:
        super().__init__(membership, 1, membership.token)
        self._queue, self._faster = queue, faster
        self.kept_when_published: bool | None = None

    def publish_outcome(self, outcome: Outcome) -> Outcome:
        self.kept_when_published = not self._queue.is_empty
        if self._faster is not None:
            super().publish_outcome(self._faster)
        return super().publish_outcome(outcome)


def created_by(rank: int, spool: Path, *, leader_came: bool, faster: Outcome | None = None) -> tuple[bool | None, int]:
    """Rank ``rank`` creates a run that the tracker refuses: was it kept when published, and how much is kept then."""
    plan = plan_of({"TORCHELASTIC_RUN_ID": "x", "RANK": str(rank), "WORLD_SIZE": "2"}, timeout=0.5)
    membership = member_of(LocalStore(), rank)
    client = TrackerClient("http://127.0.0.1:9", "http://127.0.0.1:9", Secret("mlps_k"), user_agent="test")
    context = context_of(plan, membership, client=client, spool=spool)
    queue = RunQueue(spool, context.outbox.name)
    channel = WatchedChannel(membership, queue, faster)
    if leader_came:
        channel.claim("leader")
    try:
        create_as_owner(dataclasses.replace(context, channel=channel), {})
    finally:
        client.close()
    assert context.outbox.has_pending == (not queue.is_empty)
    return channel.kept_when_published, len(queue.entries())


@pytest.mark.parametrize(
    ("rank", "leader_came", "faster", "expected"),
    [
        pytest.param(0, True, None, (True, 1), id="rank 0"),
        pytest.param(0, True, ONLINE, (True, 0), id="rank 0, and another rank reached the tracker"),
        pytest.param(0, True, OFFLINE, (True, 1), id="rank 0, and another rank published first"),
        pytest.param(1, True, None, (None, 0), id="another rank beside rank 0, which publishes"),
        pytest.param(1, False, None, (True, 1), id="another rank without rank 0"),
        pytest.param(1, False, OFFLINE, (True, 0), id="another rank, and a third published first"),
    ],
)
def test_who_keeps_it(tmp_path, rank, leader_came, faster, expected):
    """One rank keeps it, before it publishes the outcome: a rank that learns of an outage may end at once."""
    assert created_by(rank, tmp_path / "spool", leader_came=leader_came, faster=faster) == expected
