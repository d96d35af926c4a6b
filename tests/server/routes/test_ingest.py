"""Logging over HTTP: what is taken, what is refused, and that a batch sent twice is there once."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from pluto_dist.server import LocalServer
from server.conftest import TIMEOUT, Client

Made = dict[str, Any]
PATHS = ("/ingest/metrics", "/ingest/logs", "/ingest/data")
LINES = {
    "/ingest/metrics": {"time": 1_700_000_000_000, "step": 3, "data": {"loss": 0.5, "acc": 1}},
    "/ingest/logs": {"time": 1_700_000_000_000, "lineNumber": 1, "logType": "INFO", "message": "hello"},
    "/ingest/data": {"time": 1_700_000_000_000, "step": 3, "dataType": "TABLE", "logName": "t", "data": "[]"},
}
READ = {"/ingest/metrics": "metrics", "/ingest/logs": "logs", "/ingest/data": "data"}


@pytest.fixture
def run(client: Client, project: str) -> Made:
    return client.made(project)


def send(client: Client, run: int, path: str, *lines: Any, **headers: str) -> requests.Response:
    body = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n"
    return client.post(path, data=body.encode(), headers={"X-Run-Id": str(run), **headers})


def read(client: Client, run: Made, path: str) -> list[dict[str, Any]]:
    query = {"runId": run["runId"], "projectName": run["projectName"]}
    return list(client.get(f"/api/runs/{READ[path]}", params=query).json()[READ[path]])


@pytest.mark.parametrize("path", PATHS)
def test_sent_twice_is_there_once(client: Client, run: Made, path: str) -> None:
    """A sender that did not hear the answer may send again: nothing is doubled."""
    for _ in range(2):
        answer = send(client, run["runId"], path, LINES[path])
        assert answer.status_code == 200
        assert answer.text.startswith("Stream processed successfully: ")
    assert len(read(client, run, path)) == (2 if path == "/ingest/metrics" else 1)


@pytest.mark.parametrize("path", PATHS)
def test_a_bad_line_refuses_the_body(client: Client, run: Made, path: str) -> None:
    """One bad line is a 400 that names it, and nothing of the body is stored."""
    answer = send(client, run["runId"], path, LINES[path], "{", LINES[path])
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("line 2 is not JSON")
    assert read(client, run, path) == []


@pytest.mark.parametrize("path", PATHS)
def test_whose_run_it_is(client: Client, stranger: Client, server: LocalServer, run: Made, path: str) -> None:
    """Without a key 401, without a run or with a bad one 400, for a run that is not there or another's 404."""
    body = json.dumps(LINES[path])
    assert requests.post(server.url + path, data=body, timeout=TIMEOUT).status_code == 401
    assert client.post(path, data=body).json() == {"error": "Missing required header: X-Run-Id"}
    for odd in ("-1", "1.5", "x", "", "٣"):
        assert client.post(path, data=body, headers={"X-Run-Id": odd.encode()}).status_code == 400
    for absent in (2**40, 10**30):
        assert send(client, absent, path, LINES[path]).status_code == 404
    assert send(stranger, run["runId"], path, LINES[path]).status_code == 404
    assert read(client, run, path) == []


def test_the_project_header_does_not_matter(client: Client, run: Made) -> None:
    """After a resume by number the SDK names another project: the points are the run's all the same."""
    headers = {"X-Project-Name": "elsewhere"}
    assert send(client, run["runId"], "/ingest/metrics", LINES["/ingest/metrics"], **headers).status_code == 200
    assert len(read(client, run, "/ingest/metrics")) == 2


def test_a_compressed_body_is_refused(client: Client, run: Made) -> None:
    """A body in an encoding is a clear 400, not garbage."""
    answer = client.post(
        PATHS[0], data=b"\x1f\x8b", headers={"X-Run-Id": str(run["runId"]), "Content-Encoding": "gzip"}
    )
    assert answer.status_code == 400
    assert "compressed" in answer.json()["error"]


def test_a_body_has_a_limit() -> None:
    """A body beyond the limit is 413 and stores nothing."""
    with LocalServer(body_limit=10_000) as server:
        client = Client(server)
        run = client.made("p")
        lines = [{**LINES["/ingest/metrics"], "step": step} for step in range(500)]
        assert send(client, run["runId"], "/ingest/metrics", *lines).status_code == 413
        assert read(client, run, "/ingest/metrics") == []
        client.session.close()


def test_two_ranks_at_one_step(client: Client, run: Made) -> None:
    """Different values at the same step are different points; none replaces the other."""
    for value in (1.0, 2.0):
        send(client, run["runId"], PATHS[0], {**LINES[PATHS[0]], "data": {"loss": value}})
    assert [row["value"] for row in read(client, run, PATHS[0])] == [1.0, 2.0]
