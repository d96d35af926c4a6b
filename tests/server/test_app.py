"""What holds for every route: the key, unknown paths, limits; and the routes that the contract's table does not ask.

The contract itself, row by row, is in tests/contract.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from pluto_dist.server import LocalServer
from pluto_dist.server.db.database import Database
from server.conftest import TIMEOUT, Client

CREATE = "/api/runs/create"


def shape_of(answer: requests.Response) -> str:
    """ok, or the shape of the error: A, B or C."""
    body = answer.json()
    if answer.status_code == 200:
        return "ok"
    if isinstance(body["error"], dict):
        return "C"
    return "B" if "message" in body else "A"


LOCKED = [
    ("POST", CREATE),
    ("POST", "/api/runs/resume"),
    ("POST", "/api/runs/status/update"),
    ("POST", "/api/runs/config/update"),
    ("POST", "/api/runs/trigger"),
    ("POST", "/api/slug"),
    ("GET", "/api/runs/details/1"),
    ("GET", "/api/runs/details/by-display-id/A-1"),
    ("GET", "/api/runs/list"),
    ("GET", "/api/runs/auth/validate"),
    ("POST", "/api/runs/tags/update"),
    ("POST", "/api/runs/logName/add"),
    ("POST", "/api/runs/alert"),
    ("POST", "/api/runs/modelGraph/create"),
    ("POST", "/ingest/metrics"),
    ("POST", "/ingest/logs"),
    ("POST", "/ingest/data"),
    ("POST", "/files"),
    ("GET", "/api/runs/projects"),
    ("GET", "/api/runs/metric-names"),
    ("GET", "/api/runs/metrics"),
    ("GET", "/api/runs/logs"),
    ("GET", "/api/runs/data"),
    ("GET", "/api/runs/files"),
    ("GET", "/api/runs/statistics"),
    ("GET", "/api/runs/compare"),
    ("GET", "/api/runs/leaderboard"),
]


@pytest.mark.parametrize(("method", "path"), LOCKED, ids=str)
def test_every_route_wants_the_key(server: LocalServer, method: str, path: str) -> None:
    answer = requests.request(method, server.url + path, timeout=TIMEOUT)
    assert (answer.status_code, answer.json()) == (401, {"error": "Unauthorized"})


UNKNOWN = [
    ("PUT", CREATE),
    ("POST", CREATE + "/"),
    ("POST", "/api/runs/auth/validate"),
    ("GET", "/api/slug"),
    ("GET", "/api/runs/no-sqid"),
    ("DELETE", "/"),
    ("GET", "/static/../app.py"),
]


@pytest.mark.parametrize(("method", "path"), UNKNOWN, ids=str)
def test_unknown_paths_and_methods_are_plain_404(client: Client, method: str, path: str) -> None:
    answer = client.session.request(method, client.url + path, timeout=TIMEOUT)
    assert (answer.status_code, answer.text) == (404, "404 Not Found")


def test_another_organization_has_runs_of_its_own(
    server: LocalServer, client: Client, connect: Any, project: str
) -> None:
    other = Database(server.db)
    try:
        other.add_key("mlps_other-org-key", organization="other-org")
    finally:
        other.close()
    theirs = connect("mlps_other-org-key")
    mine = client.made(project, "job")
    made = theirs.made(project, "job")
    assert (made["resumed"], made["number"], made["organizationSlug"]) == (False, 1, "other-org")
    assert made["runId"] != mine["runId"]
    assert theirs.get(f"/api/runs/details/{mine['runId']}").status_code == 404
    assert theirs.status(mine["runId"], "FAILED").status_code == 404
    fork = theirs.create(project, forkRunId=mine["runId"], forkStep=1)
    assert fork.json() == {"error": "Fork parent run not found in this project"}


def test_config_update(client: Client, project: str) -> None:
    run = client.made(project, config='{"a":{"x":1}}')["runId"]
    for config, status in [
        ('{"a":{"y":2},"b":3}', 200),
        ("null", 200),
        ("{", 400),
        (r'{"z":"\u0000"}', 400),
        ('{"q":NaN}', 400),
    ]:
        answer = client.post("/api/runs/config/update", {"runId": run, "config": config})
        assert answer.status_code == status, answer.text
        assert shape_of(answer) == ("ok" if status == 200 else "A")
    assert client.details(run)["config"] == {"a": {"x": 1, "y": 2}, "b": 3}
    unknown = client.post("/api/runs/config/update", {"runId": 10**9, "config": "{}"})
    assert (unknown.status_code, unknown.json()) == (404, {"error": "Run not found"})


def test_a_body_beyond_the_limit_is_413(project: str) -> None:
    with LocalServer(body_limit=100_000) as small:
        one = Client(small)
        try:
            answer = one.create(project, config=json.dumps("x" * 5_000_000))
            assert (answer.status_code, shape_of(answer)) == (413, "A")
            assert one.made(project)["number"] == 1
        finally:
            one.session.close()


def test_list_is_newest_first(client: Client, project: str) -> None:
    made = [client.made(project, runName=f"r{n}", tags=[str(n)])["runId"] for n in range(5)]
    answer = client.get("/api/runs/list", params={"projectName": project, "limit": 3}).json()
    assert [run["id"] for run in answer["runs"]] == made[::-1][:3]
    assert answer["total"] == 5
    assert {"id", "name", "number", "displayId", "status", "tags", "createdAt"} <= set(answer["runs"][0])
    for wrong in ({}, {"projectName": project, "limit": "0"}, {"projectName": project, "limit": "x"}):
        refused = client.get("/api/runs/list", params=wrong)
        assert (refused.status_code, shape_of(refused)) == (400, "C")
