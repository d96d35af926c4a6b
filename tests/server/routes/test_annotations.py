"""Tags, notes, log names, alerts and the model graph."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest

from pluto_dist.server import LocalServer
from pluto_dist.server.db import logs
from pluto_dist.server.db.database import Database
from server.conftest import TIMEOUT, Client, Run


@pytest.fixture
def run(client: Client, project: str) -> Run:
    return client.create_run(project, tags=["old"])


def post(client: Client, path: str, run: Run, **body: Any) -> Any:
    return client.post(f"/api/runs/{path}", {"runId": run["runId"], **body})


def test_tags_are_replaced(client: Client, run: Run) -> None:
    """The run has exactly the tags of the last request, in their order."""
    assert post(client, "tags/update", run, tags=["b", "a", "b"]).json() == {"success": True}
    assert client.details(run["runId"])["tags"] == ["b", "a", "b"]
    assert post(client, "tags/update", run, tags=[]).status_code == 200
    assert client.details(run["runId"])["tags"] == []


@pytest.mark.parametrize(
    "tags", [None, "a", [1], ["t"] * 51, ["group:a", "group:b"], ["a\x00"], ["\ud800"]], ids=lambda tags: str(tags)[:20]
)
def test_invalid_tags(client: Client, run: Run, tags: Any) -> None:
    """Tags that a create rejects are rejected by an update, too; the run keeps its tags."""
    response = client.post(
        "/api/runs/tags/update",
        data=json.dumps({"runId": run["runId"], "tags": tags}),
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code == 400
    assert client.details(run["runId"])["tags"] == ["old"]


def test_notes(client: Client, run: Run) -> None:
    """The notes are on the run's page, escaped; null and an empty text remove them, and what is invalid leaves them."""

    def shown() -> bool:
        return "a &lt;b&gt; note" in client.session.get(run["url"], timeout=TIMEOUT).text

    for removed in (None, ""):
        assert post(client, "notes/update", run, notes="a <b> note").json() == {"success": True}
        for invalid in ("n" * 1001, "a\0", 1):
            assert post(client, "notes/update", run, notes=invalid).status_code == 400
        assert shown()
        assert post(client, "notes/update", run, notes=removed).status_code == 200
        assert not shown()


def test_log_names(client: Client, run: Run) -> None:
    """A log name is listed once, with the type of its first registration and with its group."""
    post(client, "logName/add", run, logName=["b/loss", "acc"], logType="METRIC")
    assert post(client, "logName/add", run, logName=["acc"], logType="TEXT").json() == {"success": True}
    assert client.details(run["runId"])["logNames"] == [
        {"logName": "acc", "logType": "METRIC", "logGroup": ""},
        {"logName": "b/loss", "logType": "METRIC", "logGroup": "b"},
    ]


@pytest.mark.parametrize(
    "body",
    [{}, {"logName": "a", "logType": "DATA"}, {"logName": [""], "logType": "DATA"}, {"logName": ["a"], "logType": "T"}],
)
def test_invalid_log_names(client: Client, run: Run, body: dict[str, Any]) -> None:
    """Names and types are non-empty strings."""
    assert post(client, "logName/add", run, **body).status_code == 400


def test_alert_is_shown_on_the_page(client: Client, run: Run) -> None:
    """The run's page shows the alert, escaped."""
    alert = {"title": "<b>T</b>", "body": "too hot", "level": "WARNING", "timestamp": 1, "email": True, "url": None}
    assert post(client, "alert", run, alert=alert).json() == {"success": True}
    assert post(client, "alert", run, alert={}).json() == {"success": True}
    page = client.get(run["url"].removeprefix(client.url)).text
    assert "&lt;b&gt;T&lt;/b&gt;" in page
    assert "too hot" in page


@pytest.mark.parametrize("alert", [None, [], "text", {"title": 1}, {"timestamp": "now"}], ids=str)
def test_invalid_alert(client: Client, run: Run, alert: Any) -> None:
    """An alert is an object with strings and a timestamp."""
    assert post(client, "alert", run, alert=alert).status_code == 400


def test_model_graph(client: Client, server: LocalServer, run: Run) -> None:
    """The latest graph is stored."""
    for nodes in ({"old": {}}, {".": {"type": "Linear", "depth": 0, "params": {"weight": [2, 3]}}}):
        assert post(client, "modelGraph/create", run, graph={"format": "torch", "nodes": nodes}).status_code == 200
    with closing(Database(server.db)) as database:
        assert logs.model_graph(database, run["runId"]) == ("torch", nodes)


@pytest.mark.parametrize("graph", [None, {}, {"format": "torch"}, {"format": 1, "nodes": {}}, {"nodes": []}], ids=str)
def test_invalid_model_graph(client: Client, run: Run, graph: Any) -> None:
    """A graph has a format and an object of nodes."""
    assert post(client, "modelGraph/create", run, graph=graph).status_code == 400


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("tags/update", {"tags": []}),
    ("logName/add", {"logName": ["a"], "logType": "METRIC"}),
    ("alert", {"alert": {}}),
    ("modelGraph/create", {"graph": {"format": "torch", "nodes": {}}}),
]


@pytest.mark.parametrize(("path", "body"), REQUESTS, ids=str)
def test_invalid_run(client: Client, other_organization: Client, run: Run, path: str, body: dict[str, Any]) -> None:
    """404 for an unknown run and for another organization's run, 400 for a run id that is not an integer."""
    assert client.post(f"/api/runs/{path}", {"runId": 2**40, **body}).json() == {"error": "Run not found"}
    assert post(other_organization, path, run, **body).status_code == 404
    assert client.post(f"/api/runs/{path}", {"runId": 1.5, **body}).status_code == 400
