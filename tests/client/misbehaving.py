"""A real HTTP server on loopback that answers what a test scripts, down to the bytes.

Not a tracker: it knows no run. Each request takes the next answer of the script; the last one repeats.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Seen:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Exchange:
    """What an answer has to work with: the connection, the request, and whether the server is closing."""

    connection: socket.socket
    request: Seen
    closing: threading.Event

    def send(self, content: bytes) -> None:
        self.connection.sendall(content)


Answer = Callable[[Exchange], None]

RUN = {
    "runId": 7,
    "number": 3,
    "displayId": "DIG-3",
    "projectName": "digits",
    "organizationSlug": "local",
    "url": "http://127.0.0.1/o/local/projects/digits/x",
    "resumed": False,
    "forkedFromRunId": None,
    "forkStep": None,
}


def reply(status: int, body: bytes = b"", **headers: str) -> Answer:
    """A whole answer; underscores in header names stand for dashes."""
    lines = [f"HTTP/1.1 {status} Scripted", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    content = "\r\n".join([*lines, "", ""]).encode() + body
    return lambda exchange: exchange.send(content)


def reply_json(value: Any, status: int = 200, **headers: str) -> Answer:
    return reply(status, json.dumps(value).encode(), Content_Type="application/json", **headers)


def run(**changes: Any) -> Answer:
    """The contract's answer to create, with changes."""
    return reply_json({**RUN, **changes})


def gzipped(value: Any) -> Answer:
    return reply(
        200, gzip.compress(json.dumps(value).encode()), Content_Encoding="gzip", Content_Type="application/json"
    )


def raw(content: bytes) -> Answer:
    """These bytes, and the end of the connection."""
    return lambda exchange: exchange.send(content)


def truncated(body: bytes, missing: int = 10) -> Answer:
    """An answer that ends before its length."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body) + missing}\r\n\r\n".encode()
    return raw(head + body)


def stall(exchange: Exchange) -> None:
    """No answer at all."""
    exchange.closing.wait(60)


def reset(exchange: Exchange) -> None:
    """A TCP reset instead of an answer."""
    exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def drip(content: bytes, pause: float) -> Answer:
    """One byte at a time, so that no single read is ever late."""

    def answer(exchange: Exchange) -> None:
        for byte in content:
            exchange.send(bytes([byte]))
            if exchange.closing.wait(pause):
                return

    return answer


class Misbehaving:
    """The server, for the length of a ``with`` block."""

    def __init__(self, *script: Answer) -> None:
        self.script = list(script)
        self.requests: list[Seen] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Misbehaving:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._acceptor = threading.Thread(target=self._accept, name="misbehaving")
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._acceptor.join(10)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()
        assert not any(thread.is_alive() for thread in (self._acceptor, *self._threads))

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            thread = threading.Thread(target=self._serve, args=(connection,))
            thread.start()
            self._threads.append(thread)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            try:
                seen = _read(connection)
                if seen is None:
                    return
                with self._lock:
                    answer = self.script[min(len(self.requests), len(self.script) - 1)]
                    self.requests.append(seen)
                answer(Exchange(connection, seen, self._closing))
            except OSError:
                pass  # the client went away; that is its right


def _read(connection: socket.socket) -> Seen | None:
    content = b""
    while b"\r\n\r\n" not in content:
        chunk = connection.recv(65536)
        if not chunk:
            return None
        content += chunk
    head, _, body = content.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    method, path, _ = first.split(" ")
    return Seen(method, path, headers, body)
