"""Stands before every request: checks the Host header, marks the answer, writes the access log.

A page of a stranger's site can send requests to this server from a visitor's browser under a name
that resolves to it (DNS rebinding); it then carries that name as Host. So only names that are this
server's own are answered. Nothing is answered with CORS headers. Keys are checked in ``app``.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pluto_dist.server.transport.responses import failure

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_KEY = re.compile(r"(mlp[si]_)[^/\s?&\"]+")
_ADDRESS = re.compile(r"(?P<name>\[[^\]]*\]|[^:]*)(:[0-9]*)?")

Log = Callable[[str], None]


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str], log: Log) -> None:
        self._app = app
        self._hosts = LOOPBACK | {host.lower().strip("[]").rstrip(".") for host in hosts}
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            if self._is_ours(scope):
                await self._app(scope, receive, send_marked)
            else:
                refusal = failure(400, "the Host header names no host of this server; start it with --allow-host NAME")
                await refusal(scope, receive, send_marked)
        finally:
            self._log(_line(scope, status))

    def _is_ours(self, scope: Scope) -> bool:
        named = [value for name, value in scope["headers"] if name == b"host"]
        found = _ADDRESS.fullmatch(named[0].decode("latin-1")) if len(named) == 1 else None
        if found is None:
            return False
        name = found["name"].strip("[]").rstrip(".").lower()
        # The address a client really reached cannot be a name that someone made resolve to it.
        return name in self._hosts or name == (scope.get("server") or ("",))[0]


def masked(text: str) -> str:
    """``text`` without API keys and control characters."""
    shown = text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
    return _KEY.sub(r"\1***", shown)


def _line(scope: Scope, status: int) -> str:
    """One line of the access log; the query stays out of it, since its values may be secrets."""
    host, port = scope.get("client") or ("-", 0)
    path = masked(scope["raw_path"].decode("latin-1"))
    return f'{host}:{port} "{scope["method"]} {path} HTTP/{scope["http_version"]}" {status}'
