"""Lists of runs: search, tags, pages, order, and the filter of the SDK's query module."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from pluto_dist.server.db.filters import FilterError, holds
from server.conftest import Client

RUN = {
    "status": "FAILED",
    "name": "run",
    "tags": ["a", "b"],
    "createdAt": "2026-01-02T00:00:00.000Z",
    "updatedAt": None,
    "heartbeatAt": None,
    "config": {"lr": 0.1, "net": {"depth": 2}, "opt.name": "adam", "on": True},
    "systemMetadata": None,
}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ({}, True),
        ({"status": "FAILED"}, True),
        ({"state": "crashed"}, True),
        ({"state": {"$in": ["running", "finished"]}}, False),
        ({"state": {"$nin": ["running"]}}, True),
        ({"tags": "a"}, True),
        ({"tags": {"$in": ["z", "b"]}}, True),
        ({"tags": {"$ne": "a"}}, False),
        ({"tags": ["a", "b"]}, True),
        ({"config.lr": {"$gte": 0.1, "$lt": 0.2}}, True),
        ({"config.lr.value": 0.1}, True),
        ({"config.net.depth": {"$gt": 2}}, False),
        ({"config.opt.name": "adam"}, True),
        ({"config.missing": {"$lt": 1}}, False),
        ({"config.missing": None}, True),
        ({"config.opt.name": {"$gt": 1}}, False),
        ({"systemMetadata.host": "x"}, False),
        ({"summaryMetrics.loss": {"$lt": 1}}, True),
        ({"summary_metrics.other": {"$lt": 1}}, False),
        ({"created_at": {"$gte": "2026-01-01"}}, True),
        ({"heartbeat_at": {"$lt": "2026-01-01"}}, False),
        ({"$or": [{"name": "x"}, {"name": "run"}]}, True),
        ({"$and": [{"name": "x"}, {"name": "run"}]}, False),
        ({"$not": {"name": "x"}}, True),
        ({"name": "run", "status": "RUNNING"}, False),
    ],
    ids=str,
)
def test_the_filter(question: dict[str, Any], answer: bool) -> None:
    """A question holds for a run or does not, whatever the run lacks."""
    assert holds(question, RUN.get, {"loss": 0.5}.get) is answer


def nested(depth: int) -> dict[str, Any]:
    return {"$not": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    "question",
    [[], "x", {"$nor": []}, {"$or": {}}, {"name": {"$regex": "(a+)+$"}}, {"nonsense": 1}, {"config": 1}, nested(30)],
    ids=lambda question: str(question)[:30],
)
def test_a_question_that_is_none(question: Any) -> None:
    """An unknown word is refused and not passed over, for the answer would be wrong."""
    with pytest.raises(FilterError):
        holds(question, RUN.get, {"loss": 0.5}.get)


@pytest.fixture
def runs(client: Client, project: str) -> dict[str, int]:
    made = {}
    for number, (name, tags) in enumerate({"alpha": ["x"], "beta": ["x", "y"], "Alphabet": ["y"]}.items()):
        run = client.made(project, runName=name, tags=tags, config=json.dumps({"lr": number}), createdAt=1000 + number)
        made[name] = run["runId"]
    client.status(made["beta"], "FAILED")
    line = {"time": 1, "step": 1, "data": {"loss": 0.1}}
    client.post("/ingest/metrics", data=json.dumps(line), headers={"X-Run-Id": str(made["alpha"])})
    return made


def ask(client: Client, project: str, **query: Any) -> requests.Response:
    return client.get("/api/runs/list", params={"projectName": project, **query})


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, ["Alphabet", "beta", "alpha"]),
        ({"search": "ALPHA"}, ["Alphabet", "alpha"]),
        ({"tags": "x"}, ["beta", "alpha"]),
        ({"tags": "x, y"}, ["beta"]),
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
def test_what_is_listed(
    client: Client, project: str, runs: dict[str, int], query: dict[str, Any], names: list[str]
) -> None:
    """All conditions hold at once; the newest come first unless another order is asked for."""
    assert runs
    found = ask(client, project, **query).json()["runs"]
    assert [run["name"] for run in found] == names


def test_a_page_knows_the_whole(client: Client, project: str, runs: dict[str, int]) -> None:
    """The total counts beyond the page; a run in the list has its config and its address."""
    answer = ask(client, project, limit=1, sort="name").json()
    assert answer["total"] == len(runs)
    (run,) = answer["runs"]
    assert run["config"] == {"lr": 2}
    assert run["url"] == client.details(run["id"])["url"]


@pytest.mark.parametrize(
    "query", [{"filter": "{"}, {"filter": "[]"}, {"sort": "nonsense"}, {"offset": -1}, {"filter": '{"$x": 1}'}], ids=str
)
def test_a_list_that_cannot_be(client: Client, project: str, runs: dict[str, int], query: dict[str, Any]) -> None:
    """What a query asks for and this server does not know is a 400."""
    assert runs
    assert ask(client, project, **query).status_code == 400
