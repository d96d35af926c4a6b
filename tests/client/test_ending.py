"""The end of a run, over whatever end the tracker has by then."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from client.picky import PickyTracker
from pluto_dist.client.ending import report_end
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_requests import CreateRunRequest, UpdateStatusRequest
from pluto_dist.contract.secret import Secret
from pluto_dist.errors import RequestRefusedError

MONITOR = {"reason": "heartbeat-timeout", "grace_seconds": 150, "stale_for_seconds": 160}
JOB = {"reason": "ValueError: boom", "host": "node-a", "rank": 1, "at_ms": 5}


@pytest.fixture
def tracker() -> Iterator[PickyTracker]:
    with PickyTracker() as tracker:
        yield tracker


@pytest.fixture
def client(tracker: PickyTracker) -> Iterator[TrackerClient]:
    client = TrackerClient(tracker.url, tracker.url, Secret(tracker.behind.api_key), user_agent="test")
    yield client
    client.close()


def soon() -> float:
    return time.monotonic() + 30


TABLE: dict[str, tuple[str, Any, str, list[str]]] = {
    "it runs": ("RUNNING", None, "COMPLETED", ["COMPLETED"]),
    "by the monitor, then a success": ("FAILED", MONITOR, "COMPLETED", ["FAILED", "RUNNING", "COMPLETED"]),
    "by the monitor, then a preemption": ("FAILED", MONITOR, "TERMINATED", ["FAILED", "RUNNING", "TERMINATED"]),
    "by the monitor, then a failure": ("FAILED", MONITOR, "FAILED", ["FAILED"]),
    "without a reason, then a success": ("FAILED", None, "COMPLETED", ["FAILED", "RUNNING", "COMPLETED"]),
    "by another rank, then a success": ("FAILED", JOB, "COMPLETED", ["FAILED"]),
    "by a person, then a success": ("CANCELLED", None, "COMPLETED", ["CANCELLED"]),
    "by a person, then a failure": ("CANCELLED", None, "FAILED", ["CANCELLED"]),
    "a success, then a failure": ("COMPLETED", None, "FAILED", ["COMPLETED", "FAILED"]),
}


@pytest.mark.parametrize(("status", "metadata", "end", "history"), TABLE.values(), ids=TABLE)
def test_an_end_over_an_end(tracker, client, status, metadata, end, history):
    """What only silence ended is ended by its job; what a job failed of, or a person cancelled, stays."""
    run = client.create(CreateRunRequest("r", "ends", "job-7"), deadline=soon())
    if status != "RUNNING":
        document = None if metadata is None else json.dumps(metadata)
        body = {"runId": run.run_id, "status": status, "statusMetadata": document}
        tracker.ask("POST", "/api/runs/status/update", body)
    told = report_end(client, UpdateStatusRequest(run.run_id, end), deadline=soon())
    assert [change["to"] for change in tracker.run("ends")["statusHistory"]] == ["RUNNING", *history]
    assert told == (status != "CANCELLED")


def test_a_run_that_is_gone(client):
    """A run that was deleted meanwhile has no end; the error is that of the tracker."""
    with pytest.raises(RequestRefusedError, match="no run 99") as caught:
        report_end(client, UpdateStatusRequest(99, "COMPLETED"), deadline=soon())
    assert caught.value.status == 404
