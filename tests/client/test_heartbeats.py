"""Heartbeats to an address that takes none: one warning, and no outage."""

from __future__ import annotations

import logging
import time

import pytest

from client.misbehaving import Answer, Misbehaving, raw, reply, reply_json
from client.picky import PickyTracker
from pluto_dist.client import heartbeats
from pluto_dist.client.heartbeats import HeartbeatSender
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_requests import CreateRunRequest
from pluto_dist.contract.secret import Secret
from pluto_dist.errors import TrackerUnavailableError, UnexpectedAnswerError

TAKEN = reply_json({"status": "RUNNING", "triggers": None})
ELSEWHERE: dict[str, Answer] = {
    "the web service": reply(404, b"404 Not Found", Content_Type="text/plain"),
    "another API": reply_json({"detail": "Not Found"}, 404),
    "static pages": reply(405, b"<html>Method Not Allowed</html>", Content_Type="text/html"),
    "a page for everything": reply(200, b"<html>Pluto</html>", Content_Type="text/html"),
    "a redirect": reply(308, Location="https://pluto.example.com/"),
    "another installation": reply_json({"detail": "Invalid or expired API key for this run"}, 401),
}


def sent(count: int, *answers: Answer) -> list[str | None]:
    """The statuses that ``count`` heartbeats of one sender get."""
    with Misbehaving(*answers) as server:
        client = TrackerClient("http://api.invalid", server.url, Secret("mlps_k"), user_agent="test")
        try:
            sender = HeartbeatSender(client)
            return [sender.send(7, deadline=time.monotonic() + 30) for _ in range(count)]
        finally:
            client.close()


@pytest.mark.parametrize("answer", ELSEWHERE.values(), ids=ELSEWHERE)
def test_an_address_that_takes_none(caplog, answer):
    """Whatever is there, it is said once, with the variable to set; the heartbeats go on."""
    with caplog.at_level(logging.WARNING, "pluto_dist"):
        assert sent(3, answer) == [None, None, None]
    (line,) = caplog.messages
    assert "heartbeats are not taken" in line
    assert "Set PLUTO_URL_PY" in line
    assert "PLUTO_URL_API" not in line


@pytest.mark.parametrize("body", [{"error": "Run not found"}, {"detail": "Run not found"}], ids=["web", "py"])
def test_a_run_that_is_gone(caplog, body):
    """A run that was deleted is no fault of the address: nothing is said."""
    with caplog.at_level(logging.WARNING, "pluto_dist"):
        assert sent(2, reply_json(body, 404)) == [None, None]
    assert caplog.messages == []


def test_an_address_that_took_some(caplog):
    """An odd answer of an address that has taken heartbeats is an outage, as no answer is."""
    with caplog.at_level(logging.WARNING, "pluto_dist"):
        assert sent(2, TAKEN) == ["RUNNING", "RUNNING"]
        with pytest.raises(UnexpectedAnswerError):
            sent(2, TAKEN, ELSEWHERE["a page for everything"])
        with pytest.raises(TrackerUnavailableError, match="PLUTO_URL_PY"):
            sent(1, raw(b""))
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("status", "silent", "history"),
    [
        ("FAILED", 0.0, ["FAILED", "RUNNING"]),
        ("FAILED", 60.0, ["FAILED"]),
        ("CANCELLED", 0.0, ["CANCELLED"]),
    ],
    ids=["after an outage", "without an outage", "cancelled"],
)
def test_a_run_that_was_ended_during_an_outage(monkeypatch, status, silent, history):
    """The first heartbeat after an outage sets a run to RUNNING that the tracker ended; not one that is cancelled."""
    monkeypatch.setattr(heartbeats, "OUTAGE_SECONDS", silent)
    with PickyTracker() as tracker:
        client = TrackerClient(tracker.url, tracker.url, Secret(tracker.behind.api_key), user_agent="test")
        try:
            run = client.create(CreateRunRequest("r", "beats", "job-7"), deadline=time.monotonic() + 30).run_id
            tracker.ask("POST", "/api/runs/status/update", {"runId": run, "status": status})
            assert HeartbeatSender(client).send(run, deadline=time.monotonic() + 30) == status
        finally:
            client.close()
        assert [change["to"] for change in tracker.run("beats")["statusHistory"]] == ["RUNNING", *history]
