"""A torchrun worker of the benchmark ``init``: its rank's part in each contender's round.

torch, requests and pluto_dist are imported before any clock starts.
"""

from __future__ import annotations

import gc
import json
import os
import time
from datetime import timedelta
from typing import Any

import requests
import torch.distributed as dist
from ranks import serve

import pluto_dist
from pluto_dist.rendezvous import store

RANK = int(os.environ["RANK"])
LIMIT = timedelta(seconds=60)
init = pluto_dist.init  # naming it loads what it is made of, before any clock starts
_open: list[pluto_dist.Run] = []


def ours(message: dict[str, Any]) -> dict[str, Any]:
    """``init()`` as a launch calls it first: connect, sign in, agree, collect the hardware, create."""
    began = time.perf_counter()
    run = init(project=message["project"], config=message["config"])
    seconds = time.perf_counter() - began
    _open.append(run)
    return {"seconds": seconds, "mode": run.mode, "run": run.id}


def finish(message: dict[str, Any]) -> dict[str, Any]:
    """End the run, and forget the launch: under another prefix the store holds nothing of earlier rounds."""
    while _open:
        _open.pop().finish()
    store.PREFIX = f"pluto_dist after {message['id']}"
    gc.collect()
    return {}


def post(message: dict[str, Any]) -> dict[str, Any]:
    """A create-run call as a script would write it by hand."""
    began = time.perf_counter()
    answer = requests.post(
        f"{os.environ['PLUTO_URL_API']}/api/runs/create",
        json={
            "runName": message["id"],
            "projectName": message["project"],
            "externalId": message["id"],
            "config": json.dumps(message["config"]),
        },
        headers={"Authorization": f"Bearer {os.environ['PLUTO_API_KEY']}"},
        timeout=60,
    )
    answer.raise_for_status()
    run = answer.json()["runId"]
    return {"seconds": time.perf_counter() - began, "run": run}


def bare_store(message: dict[str, Any]) -> dict[str, Any]:
    """The least that agreeing can cost: a client of the agent's store, one compare_set, one key waited for."""
    began = time.perf_counter()
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    client = dist.TCPStore(host, port, None, False, LIMIT, wait_for_workers=False)
    connected = time.perf_counter()
    client.compare_set(f"bench/{message['id']}/id", "", str(RANK))
    if RANK == 0:
        client.set(f"bench/{message['id']}/answer", "x" * 250)
    client.wait([f"bench/{message['id']}/answer"], LIMIT)
    ended = time.perf_counter()
    return {"seconds": ended - began, "connected": ended - connected}


if __name__ == "__main__":
    serve(RANK, {"ours": ours, "finish": finish, "post": post, "store": bare_store})
