"""Tags, log names, alerts and the model's graph."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest

from pluto_dist.server import LocalServer
from pluto_dist.server.db import logs
from pluto_dist.server.db.database import Database
from server.conftest import Client

Made = dict[str, Any]


@pytest.fixture
def run(client: Client, project: str) -> Made:
    return client.made(project, tags=["old"])


def post(client: Client, what: str, run: Made, **body: Any) -> Any:
    return client.post(f"/api/runs/{what}", {"runId": run["runId"], **body})


def test_tags_are_replaced(client: Client, run: Made) -> None:
    """The run has the tags that were sent last, in their order, and no other."""
    assert post(client, "tags/update", run, tags=["b", "a", "b"]).json() == {"success": True}
    assert client.details(run["runId"])["tags"] == ["b", "a", "b"]
    assert post(client, "tags/update", run, tags=[]).status_code == 200
    assert client.details(run["runId"])["tags"] == []


@pytest.mark.parametrize(
    "tags", [None, "a", [1], ["t"] * 51, ["group:a", "group:b"], ["a\x00"], ["\ud800"]], ids=lambda tags: str(tags)[:20]
)
def test_tags_that_cannot_be(client: Client, run: Made, tags: Any) -> None:
    """The rules of create hold for an update too, and the run keeps its tags."""
    answer = client.post(
        "/api/runs/tags/update",
        data=json.dumps({"runId": run["runId"], "tags": tags}),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 400
    assert client.details(run["runId"])["tags"] == ["old"]


def test_log_names(client: Client, run: Made) -> None:
    """A name is there once, with the type it was registered under first, and with its group."""
    post(client, "logName/add", run, logName=["b/loss", "acc"], logType="METRIC")
    assert post(client, "logName/add", run, logName=["acc"], logType="TEXT").json() == {"success": True}
    assert client.details(run["runId"])["logNames"] == [
        {"logName": "acc", "logType": "METRIC", "logGroup": ""},
        {"logName": "b/loss", "logType": "METRIC", "logGroup": "b"},
    ]


@pytest.mark.parametrize(
    "body", [{}, {"logName": "a", "logType": "T"}, {"logName": [""], "logType": "T"}, {"logName": ["a"], "logType": ""}]
)
def test_log_names_that_cannot_be(client: Client, run: Made, body: dict[str, Any]) -> None:
    """Names and types are texts, and not empty."""
    assert post(client, "logName/add", run, **body).status_code == 400


def test_an_alert_is_shown(client: Client, run: Made) -> None:
    """An alert stands on the run's page, escaped."""
    alert = {"title": "<b>T</b>", "body": "too hot", "level": "WARNING", "timestamp": 1, "email": True, "url": None}
    assert post(client, "alert", run, alert=alert).json() == {"success": True}
    assert post(client, "alert", run, alert={}).json() == {"success": True}
    page = client.get(run["url"].removeprefix(client.url)).text
    assert "&lt;b&gt;T&lt;/b&gt;" in page
    assert "too hot" in page


@pytest.mark.parametrize("alert", [None, [], "text", {"title": 1}, {"timestamp": "now"}], ids=str)
def test_an_alert_that_is_none(client: Client, run: Made, alert: Any) -> None:
    """An alert is an object of texts and a time."""
    assert post(client, "alert", run, alert=alert).status_code == 400


def test_the_models_graph(client: Client, server: LocalServer, run: Made) -> None:
    """The newest graph is the run's."""
    for nodes in ({"old": {}}, {".": {"type": "Linear", "depth": 0, "params": {"weight": [2, 3]}}}):
        assert post(client, "modelGraph/create", run, graph={"format": "torch", "nodes": nodes}).status_code == 200
    with closing(Database(server.db)) as database:
        assert logs.model_graph(database, run["runId"]) == ("torch", nodes)


@pytest.mark.parametrize("graph", [None, {}, {"format": "torch"}, {"format": 1, "nodes": {}}, {"nodes": []}], ids=str)
def test_a_graph_that_is_none(client: Client, run: Made, graph: Any) -> None:
    """A graph has a format and nodes."""
    assert post(client, "modelGraph/create", run, graph=graph).status_code == 400


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("tags/update", {"tags": []}),
    ("logName/add", {"logName": ["a"], "logType": "METRIC"}),
    ("alert", {"alert": {}}),
    ("modelGraph/create", {"graph": {"format": "torch", "nodes": {}}}),
]


@pytest.mark.parametrize(("what", "body"), REQUESTS, ids=str)
def test_another_run(client: Client, stranger: Client, run: Made, what: str, body: dict[str, Any]) -> None:
    """A run that is not there, or another organization's, is 404; half a run is 400."""
    assert client.post(f"/api/runs/{what}", {"runId": 2**40, **body}).json() == {"error": "Run not found"}
    assert post(stranger, what, run, **body).status_code == 404
    assert client.post(f"/api/runs/{what}", {"runId": 1.5, **body}).status_code == 400
