"""A requests adapter whose requests end by a deadline, however slowly the server answers, and carry the API key.

requests' timeout starts again with every byte, so a server that sends one byte a second blocks its caller for ever.
Here a timer shuts the connection down, if the system has a thread to give.

The key is written with the last bytes of the request's head, straight to the socket: no session, request or header has
it, and no frame of requests, urllib3 or http.client, whose tracebacks may be shown with local variables.
"""

from __future__ import annotations

import socket
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager

from pluto_dist.background import start_timer
from pluto_dist.contract.secret import Secret


class _KeyedConnection(HTTPConnection):
    """A connection that adds the header with the key to each request, but not to a CONNECT of a proxy."""

    key: Secret
    connections: weakref.WeakSet[HTTPConnection]
    _is_at_head = False

    def __str__(self) -> str:
        """As urllib3's own from 2.6 on; before, its errors show the address of the object."""
        return f"HTTPConnection(host={self.host!r}, port={self.port!r})"

    def connect(self) -> None:
        self.connections.add(self)
        super().connect()

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()  # a proxy may be asked for a tunnel
        self._is_at_head = True
        super().endheaders(*args, **kwargs)

    def send(self, data: Any) -> None:
        if self._is_at_head:  # the whole head, which ends in an empty line
            self._is_at_head = False
            self.sock.sendall(b"%sAuthorization: Bearer %s\r\n\r\n" % (data[:-2], self.key.reveal().encode()))
        else:
            super().send(data)


class DeadlineAdapter(HTTPAdapter):
    """An adapter for one thread at a time, whose connections :meth:`within` can cut.

    Args:
        key: of the tracker.
    """

    def __init__(self, key: Secret) -> None:
        self._connections: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()
        self._key = key
        super().__init__()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Shut the connections down if the block has not ended after ``seconds``.

        Raises:
            TimeoutError: they were shut down; an answer that was cut off may look like a short one.
        """
        is_cut = threading.Event()
        lost = "a tracker that answers byte by byte may delay its requests"  # the timeout between two bytes must do
        timer = start_timer(max(0.0, seconds), self._cut, "pluto_dist deadline", is_cut, lost=lost)
        try:
            yield
        finally:
            timer.cancel()
        if is_cut.is_set():
            raise TimeoutError(f"no whole answer within {seconds:.1f} s")

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._watch(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> PoolManager:
        manager: PoolManager = super().proxy_manager_for(*args, **kwargs)
        self._watch(manager)
        return manager

    def _watch(self, manager: PoolManager) -> None:
        class Plain(_KeyedConnection):
            key, connections = self._key, self._connections

        class Encrypted(_KeyedConnection, HTTPSConnection):
            key, connections = self._key, self._connections

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class EncryptedPool(HTTPSConnectionPool):
            ConnectionCls = Encrypted

        manager.pool_classes_by_scheme = {"http": PlainPool, "https": EncryptedPool}

    def _cut(self, is_cut: threading.Event) -> None:
        is_cut.set()
        for connection in list(self._connections):
            if isinstance(connection.sock, socket.socket):
                with suppress(OSError):  # closed by the other side meanwhile
                    connection.sock.shutdown(socket.SHUT_RDWR)
