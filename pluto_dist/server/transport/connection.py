"""One client's connection: what it may send before it has sent a whole request, and for how long.

uvicorn and its parser set no bound on the head of a request (uvicorn 0.54 with httptools 0.9): without one a single
client could fill the memory with headers, or hold a connection for ever by sending one byte a minute. The body has
bounds of its own, in ``answers``.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_LIMIT = 64 * 1024  # bytes of request line and headers together
HEAD_SECONDS = 30.0  # from the first byte of a connection, or of a further request, to the end of its headers
LINGER_SECONDS = 1.0  # how long a refused client may take to read why


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's connection, which gives up on a head that is too long or too slow."""

    _head = 0
    _in_head = True
    _refused = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._await_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._head += len(data)
        super().data_received(data)
        if self._in_head and self._head > HEAD_LIMIT and not self.transport.is_closing():
            self._refuse(431, f"the request line and the headers have more than {HEAD_LIMIT} bytes")

    def _await_head(self) -> None:
        self._in_head, self._head = True, 0
        self._stop_timer()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._on_slow_head)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_slow_head(self) -> None:
        if not self.transport.is_closing():
            self._refuse(408, f"the headers did not arrive within {HEAD_SECONDS:.0f} s")

    def _refuse(self, status: int, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        lines = [f"HTTP/1.1 {status} Refused", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        self.transport.write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
        # Closed at once with bytes unread, the kernel would answer with a reset, and the client never see why.
        self._refused = True
        self._stop_timer()
        self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)
