"""Concurrent requests of many ranks: they get one run, no number is lost, every config key is kept, no 5xx.

The hosted tracker, as measured, answers 500 to some ranks in a new project, loses a number for most, and
loses two thirds of the config keys that are merged concurrently.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from pluto_dist.server import LocalServer
from server.conftest import Client

RANKS = 32


def concurrently(clients: list[Client], send: Callable[[Client, int], requests.Response]) -> list[requests.Response]:
    """The responses to one request of each client, all sent at the same moment from different threads."""
    barrier = threading.Barrier(len(clients))

    def one(rank: int) -> requests.Response:
        barrier.wait(30)
        return send(clients[rank], rank)

    with ThreadPoolExecutor(len(clients)) as pool:
        return [each.result(60) for each in [pool.submit(one, rank) for rank in range(len(clients))]]


@pytest.mark.parametrize("burst", range(3))
def test_ranks_of_one_run(client: Client, connect: Any, project: str, burst: int) -> None:
    """One rank creates run number 1, the others resume it; every config key is kept; the next run has number 2."""
    responses = concurrently(
        [connect() for _ in range(RANKS)],
        lambda one, rank: one.create(project, "job", config=json.dumps({f"k{rank}": rank, "all": {str(rank): 1}})),
    )
    assert {response.status_code for response in responses} == {200}
    bodies = [response.json() for response in responses]
    assert len({body["runId"] for body in bodies}) == 1
    assert {body["number"] for body in bodies} == {1}
    assert sum(not body["resumed"] for body in bodies) == 1
    found = client.details(bodies[0]["runId"])
    assert {f"k{rank}" for rank in range(RANKS)} | {"all"} == set(found["config"])
    assert len(found["config"]["all"]) == RANKS
    assert found["attachCount"] == RANKS
    assert [c["to"] for c in found["statusHistory"]] == ["RUNNING"]
    assert client.create_run(project)["number"] == 2


def test_different_runs_in_a_new_project(client: Client, connect: Any, project: str) -> None:
    """The runs are numbered without gaps."""
    responses = concurrently([connect() for _ in range(RANKS)], lambda one, rank: one.create(project, f"job-{rank}"))
    assert {response.status_code for response in responses} == {200}
    assert sorted(response.json()["number"] for response in responses) == list(range(1, RANKS + 1))


def test_config_updates(client: Client, connect: Any, project: str) -> None:
    """Every rank's config key is kept."""
    run = client.create_run(project, config='{"base":1}')["runId"]
    responses = concurrently(
        [connect() for _ in range(RANKS)],
        lambda one, rank: one.post(
            "/api/runs/config/update", {"runId": run, "config": json.dumps({f"k{rank}": "x" * 20_000})}
        ),
    )
    assert {response.status_code for response in responses} == {200}
    assert len(client.details(run)["config"]) == RANKS + 1


def test_several_servers_on_one_file(tmp_path: Path, project: str) -> None:
    """Servers keep no state: the same holds for ranks that use four servers on one database."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(LocalServer(tmp_path / "shared.db", api_key="mlps_shared-by-all")) for _ in range(4)
        ]
        clients = [Client(servers[n % 4]) for n in range(RANKS)]
        for client in clients:
            stack.callback(client.session.close)
        responses = concurrently(
            clients, lambda one, rank: one.create(project, "job", config=json.dumps({f"k{rank}": 1}))
        )
        assert {response.status_code for response in responses} == {200}
        bodies = [response.json() for response in responses]
        assert len({body["runId"] for body in bodies}) == 1
        assert sum(not body["resumed"] for body in bodies) == 1
        assert len(clients[0].details(bodies[0]["runId"])["config"]) == RANKS
        assert clients[1].create_run(project)["number"] == 2
