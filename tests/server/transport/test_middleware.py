"""The Host header check, the security header and the access log."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import pytest

from pluto_dist.server import LocalServer
from server.conftest import TIMEOUT, Client


def raw_get(server: LocalServer, path: str, host: str | None) -> tuple[int, str]:
    """A GET request with this Host header, or without one."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(server.url).port, timeout=TIMEOUT)
    try:
        connection.putrequest("GET", path, skip_host=True)
        if host is not None:
            connection.putheader("Host", host)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:1", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:80", 200),
        ("LOCALHOST.", 200),
        ("evil.example", 400),
        ("evil.example:8420", 400),
        ("localhost.evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("127.0.0.1@evil.example", 400),
        ("", 400),
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/health", "/static/pluto.css"])
def test_host_header(server: LocalServer, host: str, status: int, path: str) -> None:
    """Requests with a foreign Host header (DNS rebinding) are answered 400."""
    received, body = raw_get(server, path, host)
    assert received == status
    if status == 400:
        assert "evil" not in body


def test_allowed_hosts() -> None:
    """``allow_hosts`` are accepted regardless of case and port."""
    with LocalServer(allow_hosts=("tracker.cluster",)) as server:
        assert raw_get(server, "/api/health", "Tracker.Cluster:8420")[0] == 200
        assert raw_get(server, "/api/health", "other.cluster")[0] == 400


@pytest.mark.parametrize("path", ["/", "/api/health", "/nothing", "/static/pluto.css", "/o/x/projects/y"])
def test_every_response_is_nosniff(client: Client, path: str) -> None:
    assert client.get(path).headers["X-Content-Type-Options"] == "nosniff"


def test_access_log_line(server: LocalServer, client: Client) -> None:
    """Client, request line without the query string, and status."""
    before = len(server.requests())
    client.get("/api/runs/list?projectName=hidden-value")
    client.get("/a%0Ab")
    lines = server.requests()[before:]
    assert [line.split(" ", 1)[1] for line in lines] == [
        '"GET /api/runs/list HTTP/1.1" 200',
        '"GET /a%0Ab HTTP/1.1" 404',
    ]
    assert lines[0].startswith("127.0.0.1:")
