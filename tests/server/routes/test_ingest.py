"""Logging over HTTP: valid and invalid batches, and batches that are sent twice."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from pluto_dist.server import LocalServer
from server.conftest import TIMEOUT, Client, Run

PATHS = ("/ingest/metrics", "/ingest/logs", "/ingest/data")
LINES = {
    "/ingest/metrics": {"time": 1_700_000_000_000, "step": 3, "data": {"loss": 0.5, "acc": 1}},
    "/ingest/logs": {"time": 1_700_000_000_000, "lineNumber": 1, "logType": "INFO", "message": "hello"},
    "/ingest/data": {"time": 1_700_000_000_000, "step": 3, "dataType": "TABLE", "logName": "t", "data": "[]"},
}


@pytest.fixture
def run(client: Client, project: str) -> Run:
    return client.create_run(project)


def send(client: Client, run: int, path: str, *lines: Any, **headers: str) -> requests.Response:
    body = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n"
    return client.post(path, data=body.encode(), headers={"X-Run-Id": str(run), **headers})


def read(client: Client, run: Run, path: str) -> list[dict[str, Any]]:
    name = path.rpartition("/")[2]
    return list(client.query(name, run).json()[name])


@pytest.mark.parametrize("path", PATHS)
def test_repeated_batch_is_stored_once(client: Client, run: Run, path: str) -> None:
    """A client that did not receive the response may send the batch again; nothing is duplicated."""
    for _ in range(2):
        response = send(client, run["runId"], path, LINES[path])
        assert response.status_code == 200
        assert response.text.startswith("Stream processed successfully: ")
    assert len(read(client, run, path)) == (2 if path == "/ingest/metrics" else 1)


@pytest.mark.parametrize("path", PATHS)
def test_invalid_line_rejects_the_body(client: Client, run: Run, path: str) -> None:
    """One invalid line is answered 400 with its number, and nothing of the body is stored."""
    response = send(client, run["runId"], path, LINES[path], "{", LINES[path])
    assert response.status_code == 400
    assert response.json()["error"].startswith("line 2 is not JSON")
    assert read(client, run, path) == []


@pytest.mark.parametrize("path", PATHS)
def test_key_and_run_are_checked(
    client: Client, other_organization: Client, server: LocalServer, run: Run, path: str
) -> None:
    """401 without a key; 400 without a number that a run can have; 404 for one that the organization has not."""
    body = json.dumps(LINES[path])
    assert requests.post(server.url + path, data=body, timeout=TIMEOUT).status_code == 401
    assert client.post(path, data=body).json() == {"error": "Missing required header: X-Run-Id"}
    for invalid in ("-1", "1.5", "x", "", "٣"):
        assert client.post(path, data=body, headers={"X-Run-Id": invalid.encode()}).status_code == 400
    assert send(client, 10**30, path, LINES[path]).status_code == 400
    assert send(client, 2**40, path, LINES[path]).status_code == 404
    assert send(other_organization, run["runId"], path, LINES[path]).status_code == 404
    assert read(client, run, path) == []


def test_project_header_is_ignored(client: Client, run: Run) -> None:
    """After a resume by number the SDK may send another project; the points still belong to the run."""
    headers = {"X-Project-Name": "elsewhere"}
    assert send(client, run["runId"], "/ingest/metrics", LINES["/ingest/metrics"], **headers).status_code == 200
    assert len(read(client, run, "/ingest/metrics")) == 2


def test_compressed_body_is_rejected(client: Client, run: Run) -> None:
    """A body with a Content-Encoding is answered 400."""
    response = client.post(
        PATHS[0], data=b"\x1f\x8b", headers={"X-Run-Id": str(run["runId"]), "Content-Encoding": "gzip"}
    )
    assert response.status_code == 400
    assert "compressed" in response.json()["error"]


def test_body_limit() -> None:
    """A body over the limit is answered 413, and nothing is stored."""
    with LocalServer(body_limit=10_000) as server:
        client = Client(server)
        run = client.create_run("p")
        lines = [{**LINES["/ingest/metrics"], "step": step} for step in range(500)]
        assert send(client, run["runId"], "/ingest/metrics", *lines).status_code == 413
        assert read(client, run, "/ingest/metrics") == []
        client.session.close()


def test_two_ranks_at_one_step(client: Client, run: Run) -> None:
    """Different values at one step are different points; neither replaces the other."""
    for value in (1.0, 2.0):
        send(client, run["runId"], PATHS[0], {**LINES[PATHS[0]], "data": {"loss": value}})
    assert [row["value"] for row in read(client, run, PATHS[0])] == [1.0, 2.0]
