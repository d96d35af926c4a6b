"""Many HTTP requests at once from one thread, at little cost: what the benchmark ``server`` asks with.

Requests are bytes made beforehand, sockets are watched with epoll, and of an answer only its status and length
are looked at. It is a client for loopback alone: there a connect is done by the kernel, without waiting for the
server to accept.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

PATIENCE_S = 30.0
_LENGTH = b"content-length: "


@dataclass
class Answers:
    """What came of one round.

    Attributes:
        seconds: from the first request to the last answer.
        cpu: seconds of this client's CPU time.
        latencies: seconds of each request; with a new connection they begin before the connect.
        last: the last answer, with its head.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    latencies: list[float] = field(default_factory=list)
    last: bytes = b""

    @property
    def count(self) -> int:
        return len(self.latencies)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.count / self.seconds

    def within(self, share: float) -> float:
        """The latency that so large a share of the requests kept, in seconds."""
        return sorted(self.latencies)[min(self.count - 1, int(share * self.count))]


@dataclass(slots=True)
class _Asked:
    """A connection that waits for an answer."""

    connection: socket.socket
    began: float
    received: bytes = b""
    wanted: int = 0


def post(address: tuple[str, int], path: str, key: str, body: bytes) -> bytes:
    """The request as requests and urllib3 send it."""
    return _head("POST", address, path, key) + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def get(address: tuple[str, int], path: str, key: str) -> bytes:
    return _head("GET", address, path, key) + b"\r\n"


def _head(method: str, address: tuple[str, int], path: str, key: str) -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nUser-Agent: pluto-dist/bench\r\n"
        "Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n"
        f"Authorization: Bearer {key}\r\n"
    ).encode()


def drive(
    address: tuple[str, int], requests: Iterator[bytes], *, at_once: int, keep_alive: bool, seconds: float
) -> Answers:
    """Ask until ``seconds`` are over or there are no more requests, ``at_once`` at a time.

    Raises:
        RuntimeError: an answer was not 200.
        TimeoutError: no answer came for 30 s.
    """
    done = Answers()
    waiting: dict[int, _Asked] = {}
    cpu, began = time.thread_time(), time.perf_counter()
    with select.epoll() as poll:

        def ask(connection: socket.socket | None = None) -> None:
            at = time.perf_counter()
            request = next(requests, None) if at - began < seconds else None
            if request is None or connection is None or not keep_alive:
                if connection is not None:
                    connection.close()  # which takes it out of the poll
                if request is None:
                    return
                connection = socket.create_connection(address)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                poll.register(connection.fileno(), select.EPOLLIN)
            waiting[connection.fileno()] = _Asked(connection, at)
            connection.sendall(request)

        try:
            for _ in range(at_once):
                ask()
            while waiting:
                ready = poll.poll(PATIENCE_S)
                if not ready:
                    raise TimeoutError(f"no answer from {address} in {PATIENCE_S:g} s")
                for number, _ in ready:
                    asked = waiting[number]
                    if _is_answered(asked):
                        done.latencies.append(time.perf_counter() - asked.began)
                        done.last = asked.received
                        del waiting[number]
                        ask(asked.connection)
        finally:
            for asked in waiting.values():
                asked.connection.close()
    done.seconds, done.cpu = time.perf_counter() - began, time.thread_time() - cpu
    return done


def _is_answered(asked: _Asked) -> bool:
    """Read what is there; has all of the answer come?"""
    chunk = asked.connection.recv(1 << 20)
    if not chunk:
        raise RuntimeError(f"the server closed a connection after {asked.received[:300]!r}")
    asked.received += chunk
    if not asked.wanted:
        head = asked.received.find(b"\r\n\r\n")
        if head < 0:
            return False
        at = asked.received.index(_LENGTH, 0, head) + len(_LENGTH)
        asked.wanted = head + 4 + int(asked.received[at : asked.received.index(b"\r\n", at)])
    if len(asked.received) < asked.wanted:
        return False
    if not asked.received.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"the server answered {asked.received[:300]!r}")
    return True
