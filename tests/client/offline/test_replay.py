"""Requests that were kept, as they are sent."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from client.misbehaving import Misbehaving, reply
from pluto_dist.client.claims import answer_claims
from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.client.offline.queue import SET_ASIDE, RunQueue
from pluto_dist.client.offline.replay import replay
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_ref import RunName, reference
from pluto_dist.contract.run_requests import CreateRunRequest, UpdateStatusRequest
from pluto_dist.contract.secret import Secret
from pluto_dist.errors import RunInUseError
from pluto_dist.server import LocalServer

FIRST, THEN = "2026-11-28T09:00:00.000Z a", "2026-11-28T10:00:00.000Z b"  # keys of attempts
BEAT = 0.2  # seconds between two heartbeats of the launch that is in the run


def record(launch: str, start: str) -> dict[str, object]:
    return {"number": 1, "launch": launch, "start": start, "hosts": ["here"], "world_size": 1, "heartbeat": BEAT}


def create_of(launch: str, key: str) -> CreateRunRequest:
    config = {"pluto_dist": {"run_id": "job-7", "attempts": {key: record(launch, key)}}}
    return CreateRunRequest("r", "digits", "job-7", config=json.dumps(config))


FOREIGN = [
    pytest.param(CreateRunRequest("sdk", "digits", "job-7"), id="a run of another program"),
    pytest.param(create_of("another", FIRST), id="a run of another launch"),
]


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


def test_what_an_offline_launch_kept_enters_a_run_only_by_a_claim(tmp_path: Path):
    """While another launch is alive in the run it stays on disk, and the run stays as it was."""
    with LocalServer() as server:
        name = RunName(server.url, "digits", reference("job-7"))
        client = TrackerClient(server.url, server.url, Secret(server.api_key), user_agent="test")
        until = time.monotonic() + 30
        run = client.create(create_of("living", FIRST), deadline=until).run_id
        before = client.details(run, deadline=until)
        outbox = Outbox(tmp_path / "spool", name, "offline", resumes=True)
        outbox.enqueue(create_of("offline", THEN), THEN)
        outbox.enqueue(UpdateStatusRequest(0, "FAILED"))

        assert outbox.flush(client, until) is None, "nobody waits for an answer"
        assert client.details(run, deadline=until) == before

        def answered(seconds: float) -> None:
            answer_claims(client, run, "living", "node-a", deadline=until)

        with pytest.raises(RunInUseError, match="on node-a"):
            outbox.flush(client, until, pause=answered)
        state = client.details(run, deadline=until)
        assert state is not None and before is not None
        assert (state.status, list(state.config["pluto_dist"]["attempts"])) == (
            "RUNNING",
            [FIRST],
        )
        assert outbox.check()

        assert outbox.flush(client, until, pause=time.sleep) is not None
        state = client.details(run, deadline=until)
        client.close()
    assert state is not None
    assert state.status == "FAILED"
    assert state.config["pluto_dist"]["attempts"][THEN]["number"] == 2
    assert state.config["pluto_dist"]["claims"] == {"offline": None}


@pytest.mark.parametrize("created", FOREIGN)
def test_an_end_is_told_only_to_a_run_that_knows_its_launch(tmp_path: Path, created: CreateRunRequest):
    """A launcher whose workers were refused keeps the end of a launch that was never in the run."""
    with LocalServer() as server:
        name = RunName(server.url, "digits", reference("job-7"))
        client = TrackerClient(server.url, server.url, Secret(server.api_key), user_agent="test")
        until = time.monotonic() + 30
        run = client.create(created, deadline=until).run_id
        before = client.details(run, deadline=until)
        outbox = Outbox(tmp_path / "spool", name, "refused")
        outbox.enqueue(UpdateStatusRequest(0, "FAILED"))
        outbox.flush(client, until)
        after = client.details(run, deadline=until)
        client.close()
    assert after is not None and before is not None
    assert (after.status, after.status_metadata) == (before.status, before.status_metadata)
    assert outbox.check()


@pytest.mark.parametrize("ended", ["COMPLETED", "FAILED"])
def test_what_a_lost_node_kept_revives_nothing(tmp_path: Path, ended: str):
    """Its launch has been ended elsewhere since: the create adds its record, and the status stays."""
    with LocalServer() as server:
        name = RunName(server.url, "digits", reference("job-7"))
        client = TrackerClient(server.url, server.url, Secret(server.api_key), user_agent="test")
        until = time.monotonic() + 30
        run = client.create(create_of("job", FIRST), deadline=until).run_id
        client.update_status(UpdateStatusRequest(run, ended), deadline=until)
        before = client.status_history(run, deadline=until)
        outbox = Outbox(tmp_path / "spool", name, "job")
        outbox.enqueue(create_of("job", FIRST[:-1] + "z"), FIRST[:-1] + "z")
        queue = RunQueue(tmp_path / "spool", name)
        done = replay(queue, client, deadline=until)
        after, state = client.status_history(run, deadline=until), client.details(run, deadline=until)
        client.close()
    assert state is not None
    assert (state.status, after) == (ended, before)
    assert (done.sent, queue.is_empty) == (1, True)


@pytest.mark.parametrize("created", FOREIGN)
def test_what_resume_false_refuses_is_refused_when_it_is_sent(tmp_path: Path, created: CreateRunRequest):
    """Its launch began offline, and could not know that the run is there: what it kept is set aside."""
    with LocalServer() as server:
        name = RunName(server.url, "digits", reference("job-7"))
        client = TrackerClient(server.url, server.url, Secret(server.api_key), user_agent="test")
        until = time.monotonic() + 30
        run = client.create(created, deadline=until).run_id
        client.update_status(UpdateStatusRequest(run, "FAILED"), deadline=until)
        before = client.details(run, deadline=until)
        outbox = Outbox(tmp_path / "spool", name, "offline", begins=True)
        outbox.enqueue(create_of("offline", THEN), THEN)
        outbox.enqueue(UpdateStatusRequest(0, "COMPLETED"), THEN)
        queue = RunQueue(tmp_path / "spool", name)
        replay(queue, client, deadline=until)
        after = client.details(run, deadline=until)
        client.close()
    assert after is not None and before is not None
    assert (after.status, after.config) == (before.status, before.config)
    assert queue.is_empty
    assert len(list((queue.folder / SET_ASIDE).iterdir())) == 2
    assert "resume=False, and run DIG-1" in queue.warnings[0]
