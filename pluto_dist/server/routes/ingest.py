"""Endpoints that log: ``/ingest/metrics``, ``/ingest/logs``, ``/ingest/data``, with newline-delimited JSON.

The header ``X-Run-Id`` names the run. ``X-Project-Name`` is ignored: the SDK sends the project it was
started with, which after a resume by number need not be the run's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from pluto_dist.server.db import log_lines, logs, metrics, run_updates
from pluto_dist.server.db.database import Database
from pluto_dist.server.routes.auth import Authenticator
from pluto_dist.server.transport.responses import ResponseError, error_response

L = TypeVar("L")


class IngestRoutes:
    """The handlers of these endpoints."""

    def __init__(self, database: Database, auth: Authenticator) -> None:
        self._database = database
        self._auth = auth

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/ingest/metrics", self.metrics, methods=["POST"]),
            Route("/ingest/logs", self.logs, methods=["POST"]),
            Route("/ingest/data", self.data, methods=["POST"]),
        ]

    async def metrics(self, request: Request) -> Response:
        return await self._store(request, log_lines.parse_metrics, metrics.store)

    async def logs(self, request: Request) -> Response:
        return await self._store(request, log_lines.parse_console, logs.store_console)

    async def data(self, request: Request) -> Response:
        return await self._store(request, log_lines.parse_data, logs.store_data)

    async def _store(
        self,
        request: Request,
        parse: Callable[[bytes], list[L]],
        store: Callable[[Database, int, Sequence[L]], int],
    ) -> Response:
        organization, run_id, body = await self._auth.read_lines(request)
        try:
            lines = parse(body)
        except log_lines.LineError as error:
            raise ResponseError(error_response(400, str(error))) from error
        with self._database.transaction():
            run = run_updates.get_run(self._database, organization, run_id)
            count = store(self._database, run.id, lines)
        return PlainTextResponse(f"Stream processed successfully: {count} records")
