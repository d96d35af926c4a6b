"""Limits on the size and the duration of a request's head."""

from __future__ import annotations

import json

import pytest

from pluto_dist.server import LocalServer
from pluto_dist.server.transport import connection
from server.conftest import send_raw


@pytest.mark.parametrize(
    "content",
    [
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000,
        b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(20_000)),
    ],
    ids=["request line", "header", "headers"],
)
def test_head_over_the_limit(server: LocalServer, content: bytes) -> None:
    """431 in shape A, even if the head never ends (400 if the parser rejects it); the connection is closed."""
    received = send_raw(server.url, content)
    assert received.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 ")), received[:80]
    if received.startswith(b"HTTP/1.1 431 "):
        assert "error" in json.loads(received.split(b"\r\n\r\n", 1)[1])
    else:
        assert content.startswith(b"GET /xxx")


@pytest.mark.parametrize("content", [b"", b"GET / HTTP/1.1\r\nX"], ids=["nothing", "half a head"])
def test_head_timeout(server: LocalServer, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """408, and the connection is closed."""
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.3)
    assert send_raw(server.url, content).startswith(b"HTTP/1.1 408 ")
