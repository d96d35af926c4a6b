"""The tracker of the benchmark ``scale``: the embedded one, with a clock in its access log and a gate before it.

    python scale_tracker.py DATABASE

The application and the server are those of ``pluto-dist server``. While the gate is shut, every request is
answered 429.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from ranks import serve
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from pluto_dist.server.api_keys import mint
from pluto_dist.server.app import create_app
from pluto_dist.server.db.database import Database
from pluto_dist.server.settings import Settings
from pluto_dist.server.transport import listener


class Gate:
    """ASGI middleware around the tracker; its log holds when and how each create-run call was answered."""

    def __init__(self, database: Database, url: str) -> None:
        self.shut_until = 0.0
        self.log: list[tuple[float, int]] = []
        self._app = create_app(database, Settings(url), self._note)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and time.monotonic() < self.shut_until:
            self.log.append((time.monotonic(), 429))
            await PlainTextResponse("Too many requests", 429)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _note(self, line: str) -> None:
        """Take a line of the tracker's access log: ``CLIENT "METHOD PATH HTTP/1.1" STATUS``."""
        if "/api/runs/create" in line:
            self.log.append((time.monotonic(), int(line.rpartition(" ")[2])))


def main() -> None:
    with closing(Database(Path(sys.argv[1]))) as database, closing(listener.bind("127.0.0.1", 0)) as bound:
        key, url = mint(), listener.url_of("127.0.0.1", listener.port_of(bound))
        database.add_key(key)
        gate = Gate(database, url)
        is_ready = threading.Event()
        server = listener.Server(gate, is_ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        if not is_ready.wait(20):
            raise TimeoutError("the embedded tracker did not start within 20 s")

        def refuse(message: dict[str, Any]) -> dict[str, Any]:
            gate.shut_until = time.monotonic() + message["for"]
            return {"from": time.monotonic(), "until": gate.shut_until}

        def log(message: dict[str, Any]) -> dict[str, Any]:
            return {"creates": [entry for entry in gate.log if entry[0] > message["since"]]}

        variables = {"PLUTO_URL_API": url, "PLUTO_API_KEY": key}
        serve("tracker", {"where": lambda _: {"variables": variables}, "refuse": refuse, "log": log})
        server.should_exit = True
        thread.join(10)


if __name__ == "__main__":
    main()
