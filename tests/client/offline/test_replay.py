"""Requests that were kept, as they are sent."""

from __future__ import annotations

import time
from pathlib import Path

from client.misbehaving import Misbehaving, reply
from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.client.offline.queue import SET_ASIDE, RunQueue
from pluto_dist.client.offline.replay import replay
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_ref import RunName, reference
from pluto_dist.contract.run_requests import CreateRunRequest, UpdateStatusRequest
from pluto_dist.contract.secret import Secret


def test_an_id_that_no_run_can_have(tmp_path: Path):
    """What an earlier version kept of such a run is set aside with the reason, and no request is sent."""
    name = RunName("http://tracker", "digits", reference("JOB-20261128093000"))
    outbox = Outbox(tmp_path / "spool", name, "k3")
    outbox.enqueue(CreateRunRequest("r", "digits"))
    outbox.enqueue(UpdateStatusRequest(0, "COMPLETED"))
    queue = RunQueue(tmp_path / "spool", name)
    with Misbehaving(reply(500)) as server:
        client = TrackerClient(server.url, server.url, Secret("mlps_k"), user_agent="test")
        try:
            done = replay(queue, client, deadline=time.monotonic() + 30)
        finally:
            client.close()
        assert server.requests == []
    assert (done.sent, queue.is_empty) == (0, True)
    assert len(queue.warnings) == 2
    assert "no run has a number above" in queue.warnings[0]
    assert len(list((queue.folder / SET_ASIDE).iterdir())) == 2
