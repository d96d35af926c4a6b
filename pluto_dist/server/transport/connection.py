"""The HTTP protocol of one connection, with limits on the size and the duration of a request's head.

uvicorn and its parser set no such limits (uvicorn 0.54 with httptools 0.9): without them a single client could fill
the memory with headers, or hold a connection open by sending one byte a minute. Limits of the body are in ``bodies``.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_LIMIT = 64 * 1024  # bytes of request line and headers together
HEAD_TIMEOUT_S = 30.0  # from the start of a connection, or of a further request, to the end of the headers
CLOSE_DELAY_S = 1.0  # time for a refused client to read the response before the connection is reset


class LimitedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol; answers 431 to a head that is too long and 408 to one that is too slow."""

    _head_size = 0
    _in_head = True
    _refused = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._start_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._head_size += len(data)
        super().data_received(data)
        if self._in_head and self._head_size > HEAD_LIMIT and not self.transport.is_closing():
            self._refuse(431, f"the request line and the headers have more than {HEAD_LIMIT} bytes")

    def _start_head(self) -> None:
        self._in_head, self._head_size = True, 0
        self._stop_timer()
        self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._on_head_timeout)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_head_timeout(self) -> None:
        if not self.transport.is_closing():
            self._refuse(408, f"the headers did not arrive within {HEAD_TIMEOUT_S:.0f} s")

    def _refuse(self, status: int, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        lines = [f"HTTP/1.1 {status} Refused", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        self.transport.write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
        # If the socket were closed with bytes unread, the kernel would send a reset and the client lose the response.
        self._refused = True
        self._stop_timer()
        self.transport.write_eof()
        self._timer = self.loop.call_later(CLOSE_DELAY_S, self.transport.abort)
