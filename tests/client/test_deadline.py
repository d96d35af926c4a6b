"""Connections through proxies and with private certificates, which the deadline adapter makes."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import trustme

from client.misbehaving import RUN, Misbehaving, run
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_requests import CreateRunRequest
from pluto_dist.contract.secret import Secret
from pluto_dist.errors import TrackerUnavailableError

REQUEST = CreateRunRequest("ddp", "digits", "job-7")
PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of this machine's proxies and certificates."""
    for name in (*PROXIES, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def create(url: str, *, retry: bool = True) -> int:
    """The number of the run that the tracker at ``url`` answers."""
    client = TrackerClient(url, url, Secret("mlps_k"), user_agent="test")
    try:
        return client.create(REQUEST, deadline=time.monotonic() + 60, retry=retry).run_id
    finally:
        client.close()


@pytest.fixture
def proxy() -> Iterator[Any]:
    """A forward proxy that answers for everyone; ``.asked`` lists the URLs it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({**RUN, "runId": 8}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.asked = asked  # type: ignore[attr-defined]
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_a_proxy_is_used(monkeypatch, proxy):
    """HTTP_PROXY is obeyed, as users of requests expect."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
    assert create("http://tracker.invalid") == 8
    assert proxy.asked == ["http://tracker.invalid/api/runs/create"]


def test_no_proxy_is_obeyed(monkeypatch, proxy):
    """A tracker named in NO_PROXY is asked directly."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Misbehaving(run(runId=7)) as server:
        assert create(server.url) == 7
    assert proxy.asked == []


class Encrypted:
    """A server that speaks TLS with a certificate of ``authority``, and answers one run to everyone."""

    def __init__(self, authority: trustme.CA) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._server = context.wrap_socket(self._socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        body = json.dumps({**RUN, "runId": 9}).encode()
        while True:
            try:
                connection, _ = self._server.accept()
            except ssl.SSLError:
                continue  # a client that does not trust us
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                )

    def __enter__(self) -> Encrypted:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)


def test_a_private_certificate(monkeypatch, tmp_path):
    """A self-signed server is refused with its reason, and trusted where REQUESTS_CA_BUNDLE says so."""
    authority = trustme.CA()
    with Encrypted(authority) as server:
        with pytest.raises(TrackerUnavailableError, match="certificate"):
            create(server.url, retry=False)
        bundle = tmp_path / "authority.pem"
        authority.cert_pem.write_to_path(str(bundle))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        assert create(server.url) == 9
