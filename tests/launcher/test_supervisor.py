"""The launcher's side of a run: a cancel reaches it, and claims on the run are answered, by one launcher."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from client.misbehaving import Exchange, reply_json
from client.picky import BusyTracker, PickyTracker
from pluto_dist.client.tracker_client import HEARTBEAT_PATH, TrackerClient
from pluto_dist.contract import claims
from pluto_dist.contract.run_requests import CreateRunRequest, UpdateConfigRequest, UpdateStatusRequest
from pluto_dist.contract.secret import Secret
from pluto_dist.launcher.supervisor import CHECK_EVERY, Supervisor
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.worker_reports import RunReport, report_owner, report_run

HEARTBEAT = 0.2
DETAILS = "/api/runs/details/"


class WithoutDetails(PickyTracker):
    """A tracker that does not show runs, but takes whatever is said of them."""

    def _answer(self, exchange: Exchange) -> None:
        if exchange.request.path.startswith(DETAILS):
            return reply_json({"error": "Forbidden"}, 403)(exchange)
        return super()._answer(exchange)


def soon() -> float:
    return time.monotonic() + 30


def wait_for(condition: Callable[[], bool]) -> None:
    until = soon()
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def came(tracker: PickyTracker, path: str) -> int:
    """How many requests to this path, or below it, the tracker has had."""
    return sum(seen.path.startswith(path) for seen in list(tracker.requests))


def client_of(tracker: PickyTracker) -> TrackerClient:
    return TrackerClient(tracker.url, tracker.url, Secret(tracker.behind.api_key), user_agent="test")


@contextmanager
def a_run(tracker: PickyTracker) -> Iterator[tuple[int, TrackerClient]]:
    """The number of a run of this launch, and a client of the tracker."""
    with closing(client_of(tracker)) as client:
        yield client.create(CreateRunRequest("ddp", "jobs", "job-7"), deadline=soon()).run_id, client


@contextmanager
def supervised(
    tracker: PickyTracker, folder: Path, run_id: int, node_rank: int, *, continues_job: bool = True
) -> Iterator[threading.Event]:
    """The launcher of a node whose workers are in the run; set once the run was cancelled in the tracker."""
    folder.mkdir(mode=0o700)
    state, cancelled = NodeState(folder), threading.Event()
    name = (tracker.url, "jobs", "external id", "job-7")
    run = RunReport(run_id, "JOB-1", 1, "nonce", node_rank, *name, "mine", continues_job, owns=node_rank == 0)
    report_owner(state, run, node_rank)
    report_run(state, run)
    supervisor = Supervisor(state, lambda: client_of(tracker), None, HEARTBEAT, cancelled.set)
    try:
        yield cancelled
    finally:
        supervisor.end("COMPLETED")
        supervisor._thread.join(30)


def test_a_cancel_is_seen_without_details(tmp_path):
    """A tracker that does not show the run hides no cancel: the heartbeat's answer is enough."""
    with WithoutDetails() as tracker, a_run(tracker) as (run_id, client):
        client.update_status(UpdateStatusRequest(run_id, "CANCELLED"), deadline=soon())
        with supervised(tracker, tmp_path / "0", run_id, 0) as cancelled:
            wait_for(lambda: came(tracker, DETAILS) > 0)
            assert cancelled.wait(30)


def test_claims_are_answered_by_the_launcher_of_the_owner_only(tmp_path):
    """On a tracker that loses concurrent changes of a config, the nodes of a launch do not answer all at once."""
    with PickyTracker() as tracker, a_run(tracker) as (run_id, client):
        claim = json.dumps({"pluto_dist": claims.claim("other", "node-b")})
        client.update_config(UpdateConfigRequest(run_id, claim), deadline=soon())

        def unanswered() -> list[str]:
            return claims.unanswered(tracker.run("jobs")["config"], "mine")

        with supervised(tracker, tmp_path / "1", run_id, 1):
            wait_for(lambda: came(tracker, DETAILS) >= 2)  # it has had CHECK_EVERY turns
        with supervised(tracker, tmp_path / "once", run_id, 0, continues_job=False):
            wait_for(lambda: came(tracker, HEARTBEAT_PATH) >= CHECK_EVERY)
        assert unanswered() == ["other"]
        with supervised(tracker, tmp_path / "0", run_id, 0):
            wait_for(lambda: unanswered() == [])
        assert claims.answered_by(tracker.run("jobs")["config"], "other") is not None


def test_a_claim_is_answered_while_heartbeats_are_refused(tmp_path):
    """Whoever claims the run would take this launch for ended."""
    with BusyTracker() as tracker, a_run(tracker) as (run_id, client):
        claim = json.dumps({"pluto_dist": claims.claim("other", "node-b")})
        client.update_config(UpdateConfigRequest(run_id, claim), deadline=soon())
        began = time.monotonic()
        with supervised(tracker, tmp_path / "0", run_id, 0):
            wait_for(lambda: claims.unanswered(tracker.run("jobs")["config"], "mine") == [])
            assert time.monotonic() - began < 10
            wait_for(lambda: came(tracker, HEARTBEAT_PATH) > 2)


def test_a_run_that_refused_the_workers_is_left_alone(tmp_path):
    """Its launcher neither ends it nor looks for it, which would wake a run that has ended."""
    with PickyTracker() as tracker, a_run(tracker):
        state, folder = NodeState(tmp_path / "0"), tmp_path / "0"
        folder.mkdir(mode=0o700)
        name = (tracker.url, "jobs", "external id", "job-7")
        begun = RunReport(0, "", 1, "nonce", 0, *name, "mine", owns=True, is_settled=False)
        for report in (begun, dataclasses.replace(begun, is_refused=True)):
            report_run(state, report)
        before = len(tracker.requests)
        Supervisor(state, lambda: client_of(tracker), tmp_path / "spool", HEARTBEAT, lambda: None).end("FAILED")
        assert tracker.run("jobs")["status"] == "RUNNING"
        assert len(tracker.requests) == before
