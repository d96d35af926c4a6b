"""Lists of runs: search, tags, filter, sort and pages."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from server.conftest import Client


@pytest.fixture
def runs(client: Client, project: str) -> dict[str, int]:
    created = {}
    for number, (name, tags) in enumerate({"alpha": ["x"], "beta": ["x", "y"], "Alphabet": ["y"]}.items()):
        run = client.create_run(
            project, runName=name, tags=tags, config=json.dumps({"lr": number}), createdAt=1000 + number
        )
        created[name] = run["runId"]
    client.status(created["beta"], "FAILED")
    line = {"time": 1, "step": 1, "data": {"loss": 0.1}}
    client.post("/ingest/metrics", data=json.dumps(line), headers={"X-Run-Id": str(created["alpha"])})
    return created


def list_runs(client: Client, project: str, **params: Any) -> requests.Response:
    return client.get("/api/runs/list", params={"projectName": project, **params})


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({}, ["Alphabet", "beta", "alpha"]),
        ({"search": "ALPHA"}, ["Alphabet", "alpha"]),
        ({"tags": "x"}, ["beta", "alpha"]),
        ({"tags": "x, y"}, ["Alphabet", "beta", "alpha"]),
        ({"tags": "y, z"}, ["Alphabet", "beta"]),
        ({"status": "FAILED"}, ["beta"]),
        ({"status": "FAILED, RUNNING", "tags": "y"}, ["Alphabet", "beta"]),
        ({"sort": "-updated_at"}, ["beta", "Alphabet", "alpha"]),
        ({"offset": 1}, ["beta", "alpha"]),
        ({"offset": 1, "limit": 1}, ["beta"]),
        ({"sort": "name"}, ["Alphabet", "alpha", "beta"]),
        ({"sort": "+created_at"}, ["alpha", "beta", "Alphabet"]),
        ({"sort": "-config.lr.value"}, ["Alphabet", "beta", "alpha"]),
        ({"sort": "summary_metrics.loss"}, ["alpha", "Alphabet", "beta"]),
        ({"filter": '{"state": "failed"}'}, ["beta"]),
        ({"filter": '{"summaryMetrics.loss": {"$lt": 1}}'}, ["alpha"]),
        ({"filter": '{"config.lr": {"$gte": 1}}', "search": "a", "sort": "name"}, ["Alphabet", "beta"]),
    ],
    ids=str,
)
def test_list_parameters(
    client: Client, project: str, runs: dict[str, int], params: dict[str, Any], names: list[str]
) -> None:
    """All parameters apply together; the order is newest first unless ``sort`` is given."""
    assert runs
    found = list_runs(client, project, **params).json()["runs"]
    assert [run["name"] for run in found] == names


def test_total_counts_all_pages(client: Client, project: str, runs: dict[str, int]) -> None:
    """The total includes the runs of all pages."""
    page = list_runs(client, project, limit=1, sort="name").json()
    assert page["total"] == len(runs)
    assert [run["name"] for run in page["runs"]] == ["Alphabet"]


@pytest.mark.parametrize(
    "params",
    [
        {"filter": "{"},
        {"filter": "[]"},
        {"sort": "nonsense"},
        {"offset": -1},
        {"filter": '{"$x": 1}'},
        {"status": "FAILED,failed"},
        {"projectName": ""},
    ],
    ids=str,
)
def test_invalid_parameters(client: Client, project: str, runs: dict[str, int], params: dict[str, Any]) -> None:
    """Unknown words and invalid values are answered 400."""
    assert runs
    assert list_runs(client, project, **params).status_code == 400
