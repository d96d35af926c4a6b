"""The tracker of a schedule: the embedded one's application, or the hosted one's manners around it, in memory.

The application is the real one, called without a socket; its coroutines are stepped by hand, and what they sleep
between a read and a write is virtual time, in which other requests are handled.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import tempfile
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hosted.facts import Facts
from hosted.layer import HostedLayer
from hosted.rows import chosen
from hosted.rows.liveness import Monitor, Times
from pluto_dist.server.app import create_app
from pluto_dist.server.db.database import Database
from pluto_dist.server.settings import Settings
from pluto_dist.server.transport import bodies
from simulation.kernel import BOOTED, World

KEY = "mlps_simulated_key_0123456789abcdef"
WEB_PORT, PY_PORT = 80, 81
WEB, PY = "http://tracker", "http://tracker:81"
CREATED = "/api/runs/create"


@dataclass(frozen=True)
class Sleep:
    """What a stepped coroutine yields in order to sleep."""

    seconds: float

    def __await__(self) -> Generator[Sleep, None, None]:
        yield self


@dataclass(frozen=True)
class Reply:
    status: int
    headers: tuple[tuple[str, str], ...]
    content: bytes


@dataclass(frozen=True)
class Seen:
    """A request that was executed, and the answer's status."""

    at: float
    who: str
    method: str
    path: str
    body: dict[str, Any]
    status: int
    sent: float = 0.0


class Application:
    """One application for all schedules of this process; each schedule gets an empty database."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pluto-dist-simulation-")
        self.database = Database(Path(self._folder.name) / "tracker.db")
        self.database.add_key(KEY)
        self._template = self.database._connection
        self.facts = Facts(self.database)
        app = create_app(self.database, Settings(WEB, frozenset({"tracker"})), lambda line: None)
        self.times = Times()
        self.embedded = app
        self.hosted = HostedLayer(app, chosen(self.times, ()), self.facts, PY_PORT, lambda line: None)

    def reset(self) -> None:
        """An empty database."""
        if self.database._connection is not self._template:
            self.database._connection.close()
        fresh = sqlite3.connect(":memory:", isolation_level=None, cached_statements=256)
        fresh.row_factory = sqlite3.Row
        self._template.backup(fresh)
        fresh.execute("PRAGMA foreign_keys = ON")
        self.database._connection = fresh
        self.facts.at_limit = False


class Tracker:
    """The tracker in one world.

    Args:
        world: the world.
        application: with its database.
        is_hosted: whether it has the hosted tracker's manners.
    """

    def __init__(self, world: World, application: Application, *, is_hosted: bool) -> None:
        application.reset()
        self.world, self.is_hosted = world, is_hosted
        self._application = application
        self._app = application.hosted if is_hosted else application.embedded
        self.facts = application.facts
        self.requests: list[Seen] = []
        self.monitors = is_hosted
        if is_hosted:
            self._monitor = Monitor.__new__(Monitor)
            self._monitor._times, self._monitor._started = application.times, BOOTED - 1e6

    def watch(self) -> None:
        """The monitor's turns, for as long as the world runs."""
        if self.monitors:
            self._monitor._look(self.facts)
            self.world.after(self._application.times.every, self.watch)

    def handle(
        self,
        method: str,
        target: str,
        port: int,
        headers: dict[str, str],
        body: bytes,
        done: Callable[[Reply], None],
        who: str = "",
        sent: float = 0.0,
    ) -> None:
        """Handle a request that ``who`` sent; ``done`` is called with the answer."""
        path, _, query = target.partition("?")
        encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        encoded += [(b"host", b"tracker"), (b"content-length", b"%d" % len(body))]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": encoded,
            "server": ("tracker", port),
            "client": ("host", 1),
            "scheme": "http",
            "root_path": "",
        }
        start: dict[str, Any] = {}
        parts: list[bytes] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                parts.append(message.get("body", b""))

        def finished() -> None:
            reply = Reply(
                start["status"],
                tuple((name.decode(), value.decode("latin-1")) for name, value in start["headers"]),
                b"".join(parts),
            )
            asked = json.loads(body) if body[:1] == b"{" else {}
            self.requests.append(Seen(self.world.now, who, method, path, asked, reply.status, sent))
            done(reply)

        self._step(self._app(scope, receive, send), finished)

    def _step(self, handling: Coroutine[Sleep, None, None], finished: Callable[[], None]) -> None:
        if self.world.is_over:
            handling.close()
            return
        try:
            sleep = handling.send(None)
        except StopIteration:
            finished()
        else:
            self.world.after(sleep.seconds, lambda: self._step(handling, finished))

    # What the invariants, and a person at the tracker's page, do.

    def cancel(self, run: int) -> None:
        """What the page's button does."""
        if self.is_hosted:
            self.facts.cancel(run)
        else:
            self._post("/api/runs/status/update", {"runId": run, "status": "CANCELLED"})

    def add(self, external_id: str, status: str) -> None:
        """A run that another program has created, and ended."""

        def end(reply: Reply) -> None:
            run = json.loads(reply.content)["runId"]
            self._post("/api/runs/status/update", {"runId": run, "status": status})

        ended = end if status != "RUNNING" else lambda reply: None
        self._post(CREATED, {"runName": "sdk", "projectName": "pluto", "externalId": external_id}, ended)

    def _post(self, path: str, body: dict[str, Any], done: Callable[[Reply], None] = lambda reply: None) -> None:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        self.handle("POST", path, WEB_PORT, headers, json.dumps(body).encode(), done, "another program")

    def runs(self) -> list[dict[str, Any]]:
        """All runs, as they are stored."""
        rows = self.facts.database.execute("SELECT * FROM runs ORDER BY id").fetchall()
        return [dict(row) for row in rows]

    def changes(self, run: int) -> list[dict[str, Any]]:
        """The changes of a run's status, oldest first."""
        rows = self.facts.database.execute("SELECT * FROM status_changes WHERE run_id = ? ORDER BY id", (run,))
        return [dict(row) for row in rows.fetchall()]


async def _sleep(seconds: float) -> None:
    await Sleep(seconds)


@contextmanager
def stepped() -> Iterator[None]:
    """The event loop's part of what the application calls, while its coroutines are stepped by hand."""
    sleep, fail_after = asyncio.sleep, bodies.anyio.fail_after
    asyncio.sleep = _sleep  # type: ignore[assignment]
    bodies.anyio.fail_after = lambda seconds: contextlib.nullcontext()  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        asyncio.sleep, bodies.anyio.fail_after = sleep, fail_after
