"""Endpoints that annotate a run: tags, notes, log names, alerts, the model graph.

Each answers ``{"success": true}``. Alerts are stored and shown on the run's page; no e-mail is sent.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from pluto_dist.contract import run_requests
from pluto_dist.contract.validation import ContractError, Issue, Json, unstorable
from pluto_dist.server.db import logs, run_updates
from pluto_dist.server.db.records import now_ms
from pluto_dist.server.openapi.schemas import OBJECT, SUCCESS, TEXT, object_schema, schema
from pluto_dist.server.routes.endpoint import Endpoint, Routes
from pluto_dist.server.settings import NAME_LIMIT
from pluto_dist.server.transport import sdk_requests
from pluto_dist.server.transport.responses import (
    AsciiJSONResponse,
    ResponseError,
    error_response,
    validation_response,
)

TEXT_LIMIT = 100_000  # characters of a text of an alert; the rest is cut off


class AnnotationRoutes(Routes):
    """The handlers of these endpoints."""

    @Endpoint(
        "POST",
        "/api/runs/tags/update",
        "Replace a run's tags",
        body=sdk_requests.UpdateTagsRequest,
        answer=SUCCESS,
        errors=(404,),
    )
    async def update_tags(self, request: Request) -> Response:
        organization, record, _ = await self._auth.read_record(request, sdk_requests.UpdateTagsRequest)
        run_updates.update_tags(self._database, organization, record.run_id, record.tags)
        return _success()

    @Endpoint(
        "POST",
        "/api/runs/notes/update",
        "Replace a run's notes",
        body=sdk_requests.UpdateNotesRequest,
        answer=SUCCESS,
        errors=(404,),
    )
    async def update_notes(self, request: Request) -> Response:
        organization, record, _ = await self._auth.read_record(request, sdk_requests.UpdateNotesRequest)
        run_updates.update_notes(self._database, organization, record.run_id, record.notes)
        return _success()

    @Endpoint(
        "POST",
        "/api/runs/logName/add",
        "Register log names",
        body=sdk_requests.AddLogNamesRequest,
        answer=SUCCESS,
        errors=(404,),
    )
    async def add_log_names(self, request: Request) -> Response:
        organization, record, _ = await self._auth.read_record(request, sdk_requests.AddLogNamesRequest)
        for text in record.names:
            if not text or len(text) > NAME_LIMIT or unstorable(text):
                raise ResponseError(
                    error_response(400, f"a log name must have 1 to {NAME_LIMIT} characters, none of them NUL")
                )
        with self._database.transaction():
            run = run_updates.get_run(self._database, organization, record.run_id)
            logs.add_log_names(self._database, run.id, record.names, record.type)
        return _success()

    @Endpoint(
        "POST",
        "/api/runs/alert",
        "Send an alert",
        body=sdk_requests.AlertRequest,
        body_fields={"alert": schema(sdk_requests.AlertFields)},
        answer=SUCCESS,
        errors=(404,),
    )
    async def alert(self, request: Request) -> Response:
        organization, record, body = await self._auth.read_record(request, sdk_requests.AlertRequest)
        try:
            fields = sdk_requests.AlertFields.from_json(_object(body, "alert"))
        except ContractError as error:
            raise ResponseError(
                validation_response(tuple(_nested("alert", issue) for issue in error.issues))
            ) from error
        at = now_ms() if fields.timestamp is None else int(max(0, min(fields.timestamp, run_requests.LATEST_MS)))
        texts = [_storable(text) for text in (fields.level or "INFO", fields.title or "", fields.body or "")]
        with self._database.transaction():
            run = run_updates.get_run(self._database, organization, record.run_id)
            logs.add_alert(self._database, run.id, logs.Alert(at, *texts))
        return _success()

    @Endpoint(
        "POST",
        "/api/runs/modelGraph/create",
        "Store the model graph",
        body=sdk_requests.ModelGraphRequest,
        body_fields={"graph": object_schema(format=TEXT, nodes=OBJECT)},
        answer=SUCCESS,
        errors=(404,),
    )
    async def create_model_graph(self, request: Request) -> Response:
        organization, record, body = await self._auth.read_record(request, sdk_requests.ModelGraphRequest)
        graph = _object(body, "graph")
        nodes, format = graph.get("nodes"), graph.get("format")
        if not isinstance(nodes, dict) or not isinstance(format, str) or unstorable(format):
            raise ResponseError(error_response(400, "graph must have a string format and an object nodes"))
        with self._database.transaction():
            run = run_updates.get_run(self._database, organization, record.run_id)
            logs.set_model_graph(self._database, run.id, format, nodes)
        return _success()


def _object(body: dict[str, Json], name: str) -> dict[str, Json]:
    value = body.get(name)
    if not isinstance(value, dict):
        received = "undefined" if name not in body else "null" if value is None else type(value).__name__
        detail = {"code": "invalid_type", "expected": "object", "received": received}
        raise ResponseError(validation_response((Issue((name,), f"Expected object, received {received}", detail),)))
    return value


def _nested(name: str, issue: Issue) -> Issue:
    return Issue((name, *issue.path), issue.message, issue.detail)


def _storable(text: str) -> str:
    return text[:TEXT_LIMIT].replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _success() -> Response:
    return AsciiJSONResponse({"success": True})
