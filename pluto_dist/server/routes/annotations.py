"""What the SDK tells of a run while it lasts: tags, log names, alerts, the model's graph.

Each answers ``{"success": true}``. Alerts are kept and shown on the run's page; this server sends no mail.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from pluto_dist.contract import run_requests
from pluto_dist.contract.validation import ContractError, Issue, Json, unstorable
from pluto_dist.server.db import logs, run_updates
from pluto_dist.server.db.database import Database
from pluto_dist.server.db.log_lines import NAME_LIMIT
from pluto_dist.server.db.records import now_ms
from pluto_dist.server.routes.auth import Access
from pluto_dist.server.transport import bodies
from pluto_dist.server.transport.responses import AnswerError, AsciiJSONResponse, failure, invalid

TEXT_LIMIT = 100_000


class NotesApi:
    """The handlers of these four requests."""

    def __init__(self, database: Database, access: Access) -> None:
        self._database = database
        self._access = access

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/api/runs/tags/update", self.update_tags, methods=["POST"]),
            Route("/api/runs/logName/add", self.add_log_names, methods=["POST"]),
            Route("/api/runs/alert", self.alert, methods=["POST"]),
            Route("/api/runs/modelGraph/create", self.create_model_graph, methods=["POST"]),
        ]

    async def update_tags(self, request: Request) -> Response:
        organization, body, _ = await self._access.read(request, bodies.UpdateTagsRequest)
        run_updates.update_tags(self._database, organization, body.run_id, body.tags)
        return _success()

    async def add_log_names(self, request: Request) -> Response:
        organization, body, _ = await self._access.read(request, bodies.AddLogNamesRequest)
        for text in (*body.names, body.type):
            if not text or len(text) > NAME_LIMIT or unstorable(text):
                raise AnswerError(failure(400, f"a log name must have 1 to {NAME_LIMIT} characters, none of them NUL"))
        with self._database.transaction():
            run = run_updates.existing(self._database, organization, body.run_id)
            logs.add_log_names(self._database, run.id, body.names, body.type)
        return _success()

    async def alert(self, request: Request) -> Response:
        organization, body, carried = await self._access.read(request, bodies.AlertRequest)
        try:
            told = bodies.Alert.from_json(_object(carried, "alert"))
        except ContractError as error:
            raise AnswerError(invalid(tuple(_below("alert", issue) for issue in error.issues))) from error
        at = now_ms() if told.timestamp is None else int(max(0, min(told.timestamp, run_requests.LATEST_MS)))
        texts = [_shown(text) for text in (told.level or "INFO", told.title or "", told.body or "")]
        with self._database.transaction():
            run = run_updates.existing(self._database, organization, body.run_id)
            logs.add_alert(self._database, run.id, logs.Alert(at, *texts))
        return _success()

    async def create_model_graph(self, request: Request) -> Response:
        organization, body, carried = await self._access.read(request, bodies.ModelGraphRequest)
        graph = _object(carried, "graph")
        nodes, form = graph.get("nodes"), graph.get("format")
        if not isinstance(nodes, dict) or not isinstance(form, str) or unstorable(form):
            raise AnswerError(failure(400, "graph must have a string format and an object nodes"))
        with self._database.transaction():
            run = run_updates.existing(self._database, organization, body.run_id)
            logs.set_model_graph(self._database, run.id, form, nodes)
        return _success()


def _object(body: dict[str, Json], name: str) -> dict[str, Json]:
    value = body.get(name)
    if not isinstance(value, dict):
        received = "undefined" if name not in body else "null" if value is None else type(value).__name__
        detail = {"code": "invalid_type", "expected": "object", "received": received}
        raise AnswerError(invalid((Issue((name,), f"Expected object, received {received}", detail),)))
    return value


def _below(name: str, issue: Issue) -> Issue:
    return Issue((name, *issue.path), issue.message, issue.detail)


def _shown(text: str) -> str:
    return text[:TEXT_LIMIT].replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _success() -> Response:
    return AsciiJSONResponse({"success": True})
