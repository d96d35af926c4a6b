"""Limits on the size and the duration of a request's body."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from pluto_dist.server import LocalServer
from server.conftest import Client, error_shape, send_raw


def test_body_timeout(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """408 in shape A."""
    monkeypatch.setattr("pluto_dist.server.transport.bodies.BODY_TIMEOUT_S", 0.3)
    head = f"POST /api/slug HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.api_key}\r\n"
    create = head.replace("/api/slug", "/api/runs/create") + "Content-Type: application/json\r\nContent-Length: 50\r\n"
    received = send_raw(server.url, f"{create}\r\n{{".encode(), timeout=5)
    assert received.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("encoding", ["length", "chunked"])
def test_body_over_the_limit(encoding: str) -> None:
    """413 in shape A, with and without a Content-Length; the next request succeeds."""
    with LocalServer(body_limit=100_000) as server, requests.Session() as session:
        session.trust_env = False
        body = json.dumps({"runName": "r", "projectName": "p", "config": json.dumps("x" * 5_000_000)}).encode()
        data: Any = body if encoding == "length" else iter([body[n : n + 65536] for n in range(0, len(body), 65536)])
        headers = {"Authorization": f"Bearer {server.api_key}", "Content-Type": "application/json"}
        rejected = session.post(f"{server.url}/api/runs/create", data=data, headers=headers, timeout=60)
        assert (rejected.status_code, set(rejected.json())) == (413, {"error"})
        accepted = session.post(
            f"{server.url}/api/runs/create", json={"runName": "r", "projectName": "p"}, headers=headers, timeout=20
        )
        assert (accepted.status_code, accepted.json()["number"]) == (200, 1)


def test_create_over_the_limit(project: str) -> None:
    """A create request over the limit takes no run number."""
    with LocalServer(body_limit=100_000) as server:
        client = Client(server)
        try:
            rejected = client.create(project, config=json.dumps("x" * 5_000_000))
            assert (rejected.status_code, error_shape(rejected)) == (413, "A")
            assert client.create_run(project)["number"] == 1
        finally:
            client.session.close()
