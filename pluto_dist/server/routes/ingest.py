"""``/ingest/metrics``, ``/ingest/logs``, ``/ingest/data``: what a run logs, as newline-delimited JSON.

The run is named in the ``X-Run-Id`` header. ``X-Project-Name`` is not looked at: the SDK sends the
project it was started with there, which after a resume by number need not be the run's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from pluto_dist.server.db import log_lines, logs, metrics, run_updates
from pluto_dist.server.db.database import Database
from pluto_dist.server.routes.auth import Access
from pluto_dist.server.transport.responses import AnswerError, failure

L = TypeVar("L")


class IngestApi:
    """The handlers under ``/ingest``."""

    def __init__(self, database: Database, access: Access) -> None:
        self._database = database
        self._access = access

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/ingest/metrics", self.metrics, methods=["POST"]),
            Route("/ingest/logs", self.logs, methods=["POST"]),
            Route("/ingest/data", self.data, methods=["POST"]),
        ]

    async def metrics(self, request: Request) -> Response:
        return await self._take(request, log_lines.metric_lines, metrics.store)

    async def logs(self, request: Request) -> Response:
        return await self._take(request, log_lines.console_lines, logs.store_console)

    async def data(self, request: Request) -> Response:
        return await self._take(request, log_lines.data_lines, logs.store_data)

    async def _take(
        self,
        request: Request,
        parse: Callable[[bytes], list[L]],
        store: Callable[[Database, int, Sequence[L]], int],
    ) -> Response:
        organization, number, body = await self._access.read_lines(request)
        try:
            found = parse(body)
        except log_lines.LineError as error:
            raise AnswerError(failure(400, str(error))) from error
        with self._database.transaction():
            run = run_updates.existing(self._database, organization, number)
            count = store(self._database, run.id, found)
        return PlainTextResponse(f"Stream processed successfully: {count} records")
