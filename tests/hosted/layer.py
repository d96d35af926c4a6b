"""The layer between the socket and the embedded tracker, and what a row of it is.

Every request to ``/api/`` passes all rows, outermost first. A row answers by itself, or lets the request proceed and
changes what the database holds or what the answer says. No other request of this server is handled meanwhile, unless a
row waits; those that do are the rows about races.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hosted.facts import Facts
from pluto_dist.contract.validation import Record, issues
from pluto_dist.server.routes.auth import Authenticator
from pluto_dist.server.settings import BODY_LIMIT
from pluto_dist.server.transport.responses import ResponseError

Service = Literal["web", "py"]
_ERROR, _LOGGED = 500, '{0}:{1} "{2} {3} HTTP/{4}" {5}'


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, whole."""

    status: int
    content: bytes
    media_type: str = "application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    def with_json(self, body: Any) -> Answer:
        return dataclasses.replace(self, content=encoded(body))


def answer(status: int, body: Any) -> Answer:
    """An answer with a JSON body."""
    return Answer(status, encoded(body))


def failure(message: str = "Internal Server Error") -> Answer:
    return answer(500, {"error": message})


def refused(field: str, expected: str, received: str) -> Answer:
    """400 of the validator (zod): a field has the wrong type."""
    message = f"Expected {expected}, received {received}"
    issue = {"code": "invalid_type", "expected": expected, "received": received, "path": [field], "message": message}
    return answer(400, {"success": False, "error": {"issues": [issue], "name": "ZodError"}})


NO_ROUTE = Answer(404, b"404 Not Found", "text/plain")


def encoded(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        service: which of the two services its address is.
        media_type: that of its body.
        body: its JSON object; ``None`` if it has none.
        organization: that of its key; ``None`` if the key is not valid.
        facts: the database of the tracker.
    """

    service: Service
    method: str
    path: str
    query: dict[str, str]
    media_type: str
    body: dict[str, Any] | None
    organization: str | None
    facts: Facts

    def is_post(self, *paths: str) -> bool:
        """Whether it is a POST with a valid key and a JSON object to one of ``/api/runs/<paths>``."""
        return (
            self.method == "POST"
            and self.organization is not None
            and self.body is not None
            and self.path.removeprefix("/api/runs/") in paths
        )

    def is_get(self, path: str) -> bool:
        """Whether it is a GET with a valid key of ``/api/runs/<path>``."""
        return self.method == "GET" and self.organization is not None and self.path.startswith(f"/api/runs/{path}")

    def fits(self, record: type[Record]) -> bool:
        """Whether the body has the types of ``record``."""
        return not issues(record, self.body)

    def with_body(self, **fields: Any) -> Call:
        return dataclasses.replace(self, body={**(self.body or {}), **fields})


Proceed = Callable[[Call], Awaitable[Answer]]


class Row:
    """One manner of the hosted tracker.

    Attributes:
        name: what it is switched off by.
        does: what the hosted tracker does.
        measured: the section of the measurements, or the file of the server's source at commit 3e89082.
    """

    name: ClassVar[str]
    does: ClassVar[str]
    measured: ClassVar[str]

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        """What the row does; nothing, if the embedded tracker does the same."""
        return await proceed(call)

    async def undo(self, call: Call, proceed: Proceed) -> Answer:
        """What it does where it is switched off; nothing, if the embedded tracker does otherwise by itself."""
        return await proceed(call)


Handler = Callable[[Call, Proceed], Awaitable[Answer]]


class HostedLayer:
    """The ASGI application: the ``handlers`` of rows around ``app``, which is the embedded tracker's."""

    def __init__(
        self, app: ASGIApp, handlers: Sequence[Handler], facts: Facts, py_port: int, log: Callable[[str], None]
    ) -> None:
        self._app = app
        self._handlers = handlers
        self._facts = facts
        self._py_port = py_port
        self._log = log
        self._auth = Authenticator(facts.database, body_limit=0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        status = _ERROR

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            service = self._service(scope)
            if service == "web" and not scope["path"].startswith("/api/"):
                await self._app(scope, receive, send_and_note)  # files and pages, whose bodies are streams
            else:
                await self._answer(scope, service, receive, send_and_note)
        finally:
            host, port = scope.get("client") or ("-", 0)
            path = scope["raw_path"].decode("latin-1")
            self._log(_LOGGED.format(host, port, scope["method"], path, scope["http_version"], status))

    def _service(self, scope: Scope) -> Service:
        return "py" if scope["server"][1] == self._py_port else "web"

    async def _answer(self, scope: Scope, service: Service, receive: Receive, send: Send) -> None:
        content = await _content(receive)
        call = Call(
            service,
            scope["method"],
            scope["path"],
            dict(parse_qsl(scope["query_string"].decode("latin-1"))),
            dict(scope["headers"]).get(b"content-type", b"").decode("latin-1").lower(),
            _object(content),
            self._organization(scope),
            self._facts,
        )

        async def embedded(passed: Call) -> Answer:
            return await self._embedded(scope, passed, content if passed.body is call.body else encoded(passed.body))

        proceed: Proceed = embedded
        for handler in reversed(self._handlers):
            proceed = partial(handler, proceed=proceed)
        found = await proceed(call)
        headers = [(name, value) for name, value in found.headers if name not in (b"content-length", b"content-type")]
        headers += [(b"content-type", found.media_type.encode()), (b"content-length", b"%d" % len(found.content))]
        await send({"type": "http.response.start", "status": found.status, "headers": headers})
        await send({"type": "http.response.body", "body": found.content})

    def _organization(self, scope: Scope) -> str | None:
        try:
            return self._auth.organization(Request(scope))
        except ResponseError:
            return None

    async def _embedded(self, scope: Scope, call: Call, content: bytes) -> Answer:
        """The embedded tracker's answer; it does not yield to other requests."""
        length = (b"content-length", b"%d" % len(content))
        passed = {**scope, "headers": [*(h for h in scope["headers"] if h[0] != b"content-length"), length]}
        start: Message = {}
        parts: list[bytes] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                parts.append(message.get("body", b""))

        await self._app(passed, receive, send)
        headers = tuple((name.lower(), value) for name, value in start["headers"])
        return Answer(start["status"], b"".join(parts), dict(headers).get(b"content-type", b"").decode(), headers)


async def _content(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return b"".join(parts)


def _object(content: bytes) -> dict[str, Any] | None:
    if len(content) > BODY_LIMIT:
        return None  # the embedded tracker refuses it
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None
