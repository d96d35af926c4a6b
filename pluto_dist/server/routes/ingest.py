"""Endpoints that log: ``/ingest/metrics``, ``/ingest/logs``, ``/ingest/data``, with newline-delimited JSON.

The header ``X-Run-Id`` names the run. ``X-Project-Name`` is ignored: the SDK sends the project it was
started with, which after a resume by number need not be the run's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from pluto_dist.contract.run_requests import LATEST_MS
from pluto_dist.contract.validation import Json
from pluto_dist.server.db import log_lines, logs, metrics, run_updates
from pluto_dist.server.db.database import Database
from pluto_dist.server.openapi.schemas import RUN_IN_HEADER, TEXT, UNSIGNED, Schema, object_schema
from pluto_dist.server.routes.endpoint import PLAIN_TEXT, Endpoint, Routes
from pluto_dist.server.settings import NAME_LIMIT
from pluto_dist.server.transport.responses import ResponseError, error_response

L = TypeVar("L")

_TIME: Schema = {**UNSIGNED, "maximum": LATEST_MS, "description": "Milliseconds since 1970."}
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": NAME_LIMIT, "pattern": "^[^\\u0000]+$"}
_NUMBERS: Schema = {"type": "object", "additionalProperties": {"type": "number", "nullable": True}}


def _ingest(path: str, summary: str, **fields: Json) -> Endpoint:
    """An endpoint that takes one JSON object with ``fields`` in each line."""
    return Endpoint(
        "POST",
        path,
        summary,
        description="An invalid line rejects all lines.",
        lines=object_schema(**fields),
        answer=TEXT,
        answer_type=PLAIN_TEXT,
        parameters=(RUN_IN_HEADER,),
        errors=(404,),
    )


class IngestRoutes(Routes):
    """The handlers of these endpoints."""

    @_ingest("/ingest/metrics", "Log metrics", time=_TIME, step=UNSIGNED, data=_NUMBERS)
    async def metrics(self, request: Request) -> Response:
        return await self._store(request, log_lines.parse_metrics, metrics.store)

    @_ingest("/ingest/logs", "Log console lines", time=_TIME, message=TEXT, lineNumber=UNSIGNED, logType=_NAME)
    async def logs(self, request: Request) -> Response:
        return await self._store(request, log_lines.parse_console, logs.store_console)

    @_ingest(
        "/ingest/data", "Log structured values", time=_TIME, step=UNSIGNED, data=TEXT, dataType=_NAME, logName=_NAME
    )
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
