"""Middleware around the application: checks the Host header, adds a security header, writes the access log.

By DNS rebinding, a foreign web page can send requests from a browser to this server under a host name of
its own, which is then the value of the Host header. So only requests to known host names are handled, and
no CORS header is ever sent. API keys are checked in ``routes.auth``.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pluto_dist.server.api_keys import masked
from pluto_dist.server.transport.responses import error_response

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST_HEADER = re.compile(r"(?P<name>\[[^\]]*\]|[^:]*)(:[0-9]*)?")

_READING, _READ_BY_POST = ("GET", "HEAD"), ("/api/slug",)

AccessLog = Callable[[str], None]


class TrackerMiddleware:
    """ASGI middleware; ``hosts`` are accepted besides loopback names, ``read_only`` refuses all but reading."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str], log: AccessLog, read_only: bool = False) -> None:
        self._app = app
        self._read_only = read_only
        self._hosts = LOOPBACK | {host.lower().strip("[]").rstrip(".") for host in hosts}
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def send_with_header(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            if self._read_only and scope["method"] not in _READING and scope["path"] not in _READ_BY_POST:
                message = "this tracker is read-only; start it without --read-only"
                await error_response(403, message)(scope, receive, send_with_header)
            elif self._is_allowed_host(scope):
                await self._app(scope, receive, send_with_header)
            else:
                message = "the Host header names no host of this server; start it with --allow-host NAME"
                await error_response(400, message)(scope, receive, send_with_header)
        finally:
            self._log(_log_line(scope, status))

    def _is_allowed_host(self, scope: Scope) -> bool:
        headers = [value for name, value in scope["headers"] if name == b"host"]
        found = _HOST_HEADER.fullmatch(headers[0].decode("latin-1")) if len(headers) == 1 else None
        if found is None:
            return False
        name = found["name"].strip("[]").rstrip(".").lower()
        # The address that the client connected to is no name, so DNS rebinding cannot produce it.
        return name in self._hosts or name == (scope.get("server") or ("",))[0]


def _log_line(scope: Scope, status: int) -> str:
    """One line of the access log, without the query string, which may contain secrets."""
    host, port = scope.get("client") or ("-", 0)
    path = masked(scope["raw_path"].decode("latin-1"))
    return f'{host}:{port} "{scope["method"]} {path} HTTP/{scope["http_version"]}" {status}'
