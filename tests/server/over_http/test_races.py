"""Ranks that come at once: one run, its number burned by nobody, every key kept, no answer of 5xx.

The measured server answers 500 to some of them in a new project, burns a number for most, and loses
two thirds of the concurrent config merges.
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


def at_once(clients: list[Client], send: Callable[[Client, int], requests.Response]) -> list[requests.Response]:
    """All clients send in the same moment, each from a thread with a connection of its own."""
    barrier = threading.Barrier(len(clients))

    def one(rank: int) -> requests.Response:
        barrier.wait(30)
        return send(clients[rank], rank)

    with ThreadPoolExecutor(len(clients)) as pool:
        return [each.result(60) for each in [pool.submit(one, rank) for rank in range(len(clients))]]


@pytest.mark.parametrize("burst", range(3))
def test_ranks_in_a_new_project(client: Client, connect: Any, project: str, burst: int) -> None:
    """One run with number 1, one creator, every rank's config key kept, and the next run is number 2."""
    answers = at_once(
        [connect() for _ in range(RANKS)],
        lambda one, rank: one.create(project, "job", config=json.dumps({f"k{rank}": rank, "all": {str(rank): 1}})),
    )
    assert {answer.status_code for answer in answers} == {200}
    bodies = [answer.json() for answer in answers]
    assert len({body["runId"] for body in bodies}) == 1
    assert {body["number"] for body in bodies} == {1}
    assert sum(not body["resumed"] for body in bodies) == 1
    found = client.details(bodies[0]["runId"])
    assert {f"k{rank}" for rank in range(RANKS)} | {"all"} == set(found["config"])
    assert len(found["config"]["all"]) == RANKS
    assert found["attachCount"] == RANKS
    assert [c["to"] for c in found["statusHistory"]] == ["RUNNING"]
    assert client.made(project)["number"] == 2


def test_different_runs_in_a_new_project(client: Client, connect: Any, project: str) -> None:
    answers = at_once([connect() for _ in range(RANKS)], lambda one, rank: one.create(project, f"job-{rank}"))
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(answer.json()["number"] for answer in answers) == list(range(1, RANKS + 1))


def test_config_updates(client: Client, connect: Any, project: str) -> None:
    run = client.made(project, config='{"base":1}')["runId"]
    answers = at_once(
        [connect() for _ in range(RANKS)],
        lambda one, rank: one.post(
            "/api/runs/config/update", {"runId": run, "config": json.dumps({f"k{rank}": "x" * 20_000})}
        ),
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len(client.details(run)["config"]) == RANKS + 1


def test_several_servers_on_one_file(tmp_path: Path, project: str) -> None:
    """No state lives in a server: four of them share a file, and the laws hold across them."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(LocalServer(tmp_path / "shared.db", api_key="mlps_shared-by-all")) for _ in range(4)
        ]
        clients = [Client(servers[n % 4]) for n in range(RANKS)]
        for one in clients:
            stack.callback(one.session.close)
        answers = at_once(clients, lambda one, rank: one.create(project, "job", config=json.dumps({f"k{rank}": 1})))
        assert {answer.status_code for answer in answers} == {200}
        bodies = [answer.json() for answer in answers]
        assert len({body["runId"] for body in bodies}) == 1
        assert sum(not body["resumed"] for body in bodies) == 1
        assert len(clients[0].details(bodies[0]["runId"])["config"]) == RANKS
        assert clients[1].made(project)["number"] == 2
