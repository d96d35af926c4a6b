"""The heartbeats of a run without a launcher of ours: what they wait for, and what they do not."""

from __future__ import annotations

import json
import threading
import time
from contextlib import closing

from client.picky import BusyTracker
from lifecycle.ranks import context_of, member_of, plan_of
from pluto_dist.client.tracker_client import HEARTBEAT_PATH, TrackerClient
from pluto_dist.contract import claims
from pluto_dist.contract.run_requests import CreateRunRequest, UpdateConfigRequest
from pluto_dist.contract.secret import Secret
from pluto_dist.lifecycle.heartbeat import Heartbeat
from pluto_dist.rendezvous.store import LocalStore

ENVIRON = {"RANK": "0", "WORLD_SIZE": "1", "SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "lab"}


def client_of(tracker: BusyTracker) -> TrackerClient:
    return TrackerClient(tracker.url, tracker.url, Secret(tracker.behind.api_key), user_agent="test")


def test_a_claim_is_answered_while_heartbeats_are_refused(tmp_path):
    """Whoever claims the run would take this launch for ended; and the next heartbeat is tried when it is due."""
    with BusyTracker() as tracker, closing(client_of(tracker)) as client:
        plan = plan_of({**ENVIRON, "PLUTO_DIST_HEARTBEAT": "0.2", "PLUTO_DIR": str(tmp_path)}, resume=True)
        assert plan.continues_job
        context = context_of(plan, member_of(LocalStore()), client=client)
        until = time.monotonic() + 30
        run_id = client.create(CreateRunRequest("ddp", "jobs", "job-7"), deadline=until).run_id
        claim = json.dumps({"pluto_dist": claims.claim("other", "node-b")})
        client.update_config(UpdateConfigRequest(run_id, claim), deadline=until)
        thread = threading.Thread(target=Heartbeat(context, client, run_id).run, args=(frozenset(),), daemon=True)
        began = time.monotonic()
        thread.start()

        def answered() -> bool:
            return claims.answered_by(tracker.run("jobs")["config"], "other") is not None

        while not answered() or sum(seen.path == HEARTBEAT_PATH for seen in list(tracker.requests)) < 3:
            assert time.monotonic() < began + 10
            time.sleep(0.02)
        context.stop.set()
        thread.join(30)
        assert not thread.is_alive()
