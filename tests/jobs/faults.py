"""A tracker that misbehaves when it is told to: a real server before the embedded one, and the ways in which it fails.

Each fault is a function that is given the connection, with the request read, and answers as it will; without one
the request goes on to the tracker. ``refuse`` is the listener's: nobody listens any more.
"""

from __future__ import annotations

import datetime
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import trustme

from hosted.columns import AnyTracker, TrackerClass
from hosted.tracker import HostedTracker
from pluto_dist.server import LocalServer

Answer = Callable[["Asked"], None]


@dataclass
class Asked:
    """One request on one connection, and how many came before it since the fault began."""

    connection: socket.socket
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    nth: int
    closing: threading.Event
    forward: Callable[[], bytes]

    def send(self, content: bytes) -> None:
        self.connection.sendall(content)

    def wait(self, seconds: float) -> bool:
        return self.closing.wait(seconds)


def whole(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answering(status: int, body: bytes, *headers: str) -> Answer:
    return lambda asked: asked.send(whole(status, body, *headers))


def _json(value: Any) -> Answer:
    return answering(200, json.dumps(value).encode(), "Content-Type: application/json")


def _stall(asked: Asked) -> None:
    asked.wait(60)


def _byte_by_byte(asked: Asked) -> None:
    for byte in asked.forward():
        asked.send(bytes([byte]))
        if asked.wait(0.2):
            return


def _reset(asked: Asked) -> None:
    asked.send(asked.forward()[:40])
    asked.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _huge(asked: Asked) -> None:
    asked.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
    with suppress(OSError):  # the client has read enough
        for _ in range(256):
            asked.send(b" " * (1 << 20))


def _unauthorized_once(asked: Asked) -> None:
    asked.send(whole(401, b'{"error":"Unauthorized"}') if asked.nth == 0 else asked.forward())


def _flapping(asked: Asked) -> None:
    asked.send(asked.forward() if int(time.monotonic() * 2) % 2 else whole(503, b"away"))


RUN_OF_ANOTHER_SHAPE = {"data": {"id": "7"}, "ok": True}
RUN_OF_WRONG_TYPES = {
    "runId": "seven",
    "number": [],
    "displayId": 3,
    "projectName": None,
    "organizationSlug": 1,
    "url": {},
    "resumed": "no",
    "status": 5,
}

ANSWERS: dict[str, Answer] = {
    "accepts and stalls": _stall,
    "slow, byte by byte": _byte_by_byte,
    "reset in mid-answer": _reset,
    "500": answering(500, b'{"error":"Internal Server Error"}', "Content-Type: application/json"),
    "502": answering(502, b"<html>Bad Gateway</html>", "Content-Type: text/html"),
    "503": answering(503, b"away"),
    "504": answering(504, b""),
    "429 with Retry-After": answering(429, b'{"error":"Too Many Requests"}', "Retry-After: 2"),
    "401 once, then good": _unauthorized_once,
    "HTML instead of JSON": answering(200, b"<html><body>Sign in</body></html>", "Content-Type: text/html"),
    "JSON of another shape": _json(RUN_OF_ANOTHER_SHAPE),
    "wrong types": _json(RUN_OF_WRONG_TYPES),
    "huge answer": _huge,
    "redirect to another host": answering(302, b"", "Location: http://tracker.invalid/api/runs/create"),
    "redirect to https": answering(301, b"", "Location: https://127.0.0.1/api/runs/create"),
    "flapping": _flapping,
}
LISTENER = ("refuses", "expired certificate", "self-signed certificate")
FAULTS = (*LISTENER, *ANSWERS)


@dataclass
class FaultyTracker:
    """A tracker behind a server whose ``fault`` (a name of :data:`FAULTS`, or "") can be set at any time.

    Attributes:
        target: the address behind it.
        tls: whether it speaks https, with certificates of ``authority``.
        py: the one before the hosted tracker's other address, with the same faults.
    """

    behind: AnyTracker
    target: str
    tls: bool = False
    authority: trustme.CA = field(default_factory=trustme.CA)
    stranger: trustme.CA = field(default_factory=trustme.CA)
    py: FaultyTracker | None = None
    asked: int = 0
    _fault: str = ""
    _since: int = 0
    _threads: list[threading.Thread] = field(default_factory=list)
    _closing: threading.Event = field(default_factory=threading.Event)
    _healed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._address = ("127.0.0.1", 0)
        self._listen()
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self._address[1]}"

    @property
    def fault(self) -> str:
        return self._fault

    @fault.setter
    def fault(self, name: str) -> None:
        assert name in ("", *FAULTS)
        if self.py is not None:
            self.py.fault = name
        before, self._fault, self._since = self._fault, name, self.asked
        self._healed.set()  # whoever is stalled by the last fault is let go
        self._healed = threading.Event()
        if name == "refuses":
            self._hang_up()
        elif before == "refuses":
            self._listen()

    def environ(self, bundle: Path) -> dict[str, str]:
        """What points a job at it; ``bundle`` is where the authority's certificate goes."""
        self.authority.cert_pem.write_to_path(str(bundle))
        found = {"PLUTO_API_KEY": self.behind.api_key, "PLUTO_URL_API": self.url, "NO_PROXY": "*"}
        if self.py is not None:
            found["PLUTO_URL_PY"] = self.py.url
        return found | {"REQUESTS_CA_BUNDLE": str(bundle)}

    def close(self) -> None:
        if self.py is not None:
            self.py.close()
        self._closing.set()
        self._healed.set()
        if self._fault != "refuses":
            self._hang_up()
        for thread in self._threads:
            thread.join(20)

    def _listen(self) -> None:
        self._listener = socket.create_server(self._address)
        self._address = self._listener.getsockname()
        self._listener.settimeout(0.05)
        self._open = threading.Event()
        thread = threading.Thread(target=self._accept, args=(self._listener, self._open), daemon=True)
        thread.start()
        self._threads.append(thread)

    def _hang_up(self) -> None:
        self._open.set()
        self._threads[-1].join(5) if self._threads else None
        self._listener.close()

    def _accept(self, listener: socket.socket, ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError), connection:  # the client's side of a broken connection is its own affair
            connection.settimeout(20)
            if self.tls:
                connection = self._context().wrap_socket(connection, server_side=True)
            with connection:
                asked = self._read(connection)
                ANSWERS.get(self._fault, _pass_on)(asked)

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority = self.stranger if self._fault == "self-signed certificate" else self.authority
        past = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
        expires = {"not_after": past} if self._fault == "expired certificate" else {}
        authority.issue_cert("127.0.0.1", **expires).configure_cert(context)
        return context

    def _read(self, connection: socket.socket) -> Asked:
        content = b""
        while b"\r\n\r\n" not in content:
            if not (chunk := connection.recv(65536)):
                raise OSError("hung up")
            content += chunk
        head, _, body = content.partition(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
        while len(body) < int(headers.get("content-length", 0)):
            if not (chunk := connection.recv(65536)):
                raise OSError("hung up")
            body += chunk
        method, path, _ = first.split(" ")
        nth, self.asked = self.asked - self._since, self.asked + 1

        def forward() -> bytes:
            kept = {n: headers[n] for n in ("authorization", "content-type", "user-agent") if n in headers}
            with requests.Session() as session:
                session.trust_env = False
                answer = session.request(method, self.target + path, data=body, headers=kept, timeout=60)
            kind = f"Content-Type: {answer.headers.get('Content-Type', 'text/plain')}"
            return whole(answer.status_code, answer.content, kind, f"Date: {answer.headers['Date']}")

        return Asked(connection, method, path, headers, body, nth, self._healed, forward)


def _pass_on(asked: Asked) -> None:
    asked.send(asked.forward())


@contextmanager
def faulty_tracker(tracker_class: TrackerClass = LocalServer, *, tls: bool = False) -> Iterator[FaultyTracker]:
    with tracker_class() as behind:
        tracker = FaultyTracker(behind, behind.url, tls=tls)
        if isinstance(behind, HostedTracker):
            authorities = {"authority": tracker.authority, "stranger": tracker.stranger}
            tracker.py = FaultyTracker(behind, behind.py_url, tls=tls, **authorities)
        try:
            yield tracker
        finally:
            tracker.close()
