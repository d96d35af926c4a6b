"""Endpoints of a run's lifecycle: create, resume, status, config, heartbeat, details, list.

Also those of the API key and of the server itself: ``auth/validate``, ``slug``, ``health``, ``openapi.json``.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from pluto_dist.contract import run_requests
from pluto_dist.contract.run_requests import CreateRunResponse, ResumeRunRequest
from pluto_dist.contract.validation import Issue, Json
from pluto_dist.server.api_keys import masked
from pluto_dist.server.db import display_id, run_list, run_queries, run_updates
from pluto_dist.server.db.database import Database
from pluto_dist.server.db.filters import FilterError
from pluto_dist.server.db.metrics import log_group
from pluto_dist.server.db.records import AttachResult, ClientInfo, RequestRejectedError, RunDetails, iso
from pluto_dist.server.openapi import document
from pluto_dist.server.openapi.schemas import properties
from pluto_dist.server.routes import urls
from pluto_dist.server.routes.auth import Authenticator
from pluto_dist.server.settings import RUNS_PER_PAGE
from pluto_dist.server.transport import query_params
from pluto_dist.server.transport.responses import (
    AsciiJSONResponse,
    ResponseError,
    not_found_response,
    validation_response,
)

LIST_DEFAULT, OFFSET_LIMIT = 50, 100_000
USER_AGENT_LIMIT = 200  # characters
_FIELDS = frozenset({*properties(run_requests.CreateRunRequest), *properties(ResumeRunRequest)})

Handler = Callable[[Request], Awaitable[Response]]


class RunRoutes:
    """The handlers of these endpoints."""

    def __init__(self, database: Database, auth: Authenticator, public_url: str) -> None:
        self._database = database
        self._auth = auth
        self._public_url = public_url
        self._document = document.document(public_url)

    def routes(self) -> list[BaseRoute]:
        """All routes but :meth:`sqid_route`."""
        posts: dict[str, Handler] = {
            "/api/runs/create": self.create,
            "/api/runs/resume": self.resume,
            "/api/runs/status/update": self.update_status,
            "/api/runs/config/update": self.update_config,
            "/api/runs/trigger": self.trigger,
            "/api/slug": self.slug,
        }
        gets: dict[str, Handler] = {
            "/api/runs/details/by-display-id/{id:path}": self.details_by_display_id,
            "/api/runs/details/{id}": self.details,
            "/api/runs/list": self.list,
            "/api/runs/auth/validate": self.validate,
            "/api/health": self.health,
            "/api/openapi.json": self.openapi,
        }
        return [
            *(Route(path, handler, methods=["POST"]) for path, handler in posts.items()),
            *(Route(path, handler, methods=["GET"]) for path, handler in gets.items()),
        ]

    def sqid_route(self) -> BaseRoute:
        """``GET /api/runs/{code}``. It matches every other ``GET /api/runs/...`` of one segment, so it comes last."""
        return Route("/api/runs/{code}", self.decode_sqid, methods=["GET"])

    async def decode_sqid(self, request: Request) -> Response:
        """The run number that a sqid encodes.

        "create" is a sqid, too: a POST that a redirect turned into ``GET /api/runs/create`` gets a number.
        """
        self._auth.organization(request)
        number = display_id.decode_sqid(request.path_params["code"])
        return not_found_response() if number is None else AsciiJSONResponse({"runId": number})

    async def create(self, request: Request) -> Response:
        organization, record, body = await self._auth.read_record(request, run_requests.CreateRunRequest)
        result = run_updates.create_run(self._database, organization, record, _client_info(request, body))
        return AsciiJSONResponse(self._result_json(organization, result))

    async def resume(self, request: Request) -> Response:
        organization, record, body = await self._auth.read_record(request, ResumeRunRequest)
        ids = (record.run_id, record.display_id, record.external_id)
        if sum(value is not None for value in ids) != 1:
            message = "Exactly one of runId, displayId and externalId is needed"
            raise ResponseError(validation_response((Issue((), message, {"code": "custom"}),)))
        result = run_updates.resume_run(self._database, organization, record, _client_info(request, body))
        fields = self._result_json(organization, result)
        return AsciiJSONResponse({k: v for k, v in fields.items() if k not in ("forkedFromRunId", "forkStep")})

    async def update_status(self, request: Request) -> Response:
        organization, record, _ = await self._auth.read_record(request, run_requests.UpdateStatusRequest)
        run_updates.update_status(self._database, organization, record)
        return AsciiJSONResponse({"success": True})

    async def update_config(self, request: Request) -> Response:
        organization, record, _ = await self._auth.read_record(request, run_requests.UpdateConfigRequest)
        run_updates.update_config(self._database, organization, record.run_id, record.config)
        return AsciiJSONResponse({"success": True})

    async def trigger(self, request: Request) -> Response:
        """The heartbeat."""
        organization, record, _ = await self._auth.read_record(request, run_requests.TriggerRequest)
        status = run_updates.heartbeat(self._database, organization, record.run_id)
        return AsciiJSONResponse({"status": status, "triggers": None})

    async def details(self, request: Request) -> Response:
        organization = self._auth.organization(request)
        try:
            number = float(request.path_params["id"])
        except ValueError:
            number = float("nan")
        if math.isnan(number):
            detail = {"code": "invalid_type", "expected": "number", "received": "nan"}
            issue = Issue(("runId",), "Expected number, received nan", detail)
            raise ResponseError(validation_response((issue,)))
        run = run_updates.get_run(self._database, organization, number)
        return self._details(organization, run.id, with_fork=True)

    async def details_by_display_id(self, request: Request) -> Response:
        organization = self._auth.organization(request)
        project = request.query_params.get("projectName")
        run = run_queries.find_by_display_id(self._database, organization, request.path_params["id"], project)
        return self._details(organization, run.id, with_fork=False)

    async def list(self, request: Request) -> Response:
        organization = self._auth.organization(request)
        project = query_params.required_text(request, "projectName")
        params = request.query_params
        try:
            query = run_list.ListQuery(
                limit=query_params.integer(request, "limit", default=LIST_DEFAULT, minimum=1, maximum=RUNS_PER_PAGE),
                offset=query_params.integer(request, "offset", default=0, maximum=OFFSET_LIMIT),
                search=params.get("search", "").strip(),
                tags=tuple(tag for part in params.get("tags", "").split(",") if (tag := part.strip())),
                filter=run_list.parse_filter(params.get("filter")),
                sort=params.get("sort", "").strip(),
            )
            found, total = run_list.select_runs(self._database, organization, project, query)
        except FilterError as error:
            raise RequestRejectedError(400, str(error)) from error
        runs = [
            {
                **run.summary.to_json(),
                "config": run.config,
                "url": urls.run_url(self._public_url, organization, project, run.summary.id),
            }
            for run in found
        ]
        return AsciiJSONResponse({"runs": runs, "total": total})

    async def validate(self, request: Request) -> Response:
        organization = self._auth.organization(request)
        owner = {"id": organization, "slug": organization}
        return AsciiJSONResponse({"valid": True, "organization": owner, "user": {"id": "local-user"}})

    async def slug(self, request: Request) -> Response:
        return AsciiJSONResponse({"organization": {"slug": self._auth.organization(request)}})

    async def health(self, _: Request) -> Response:
        return PlainTextResponse("OK")

    async def openapi(self, _: Request) -> Response:
        return AsciiJSONResponse(self._document)

    def _result_json(self, organization: str, result: AttachResult) -> dict[str, Json]:
        run = result.run
        return CreateRunResponse(
            run_id=run.id,
            number=run.number,
            display_id=run.display_id,
            project_name=run.project,
            organization_slug=organization,
            url=urls.run_url(self._public_url, organization, run.project, run.id),
            resumed=result.resumed,
            forked_from_run_id=None if result.resumed else run.forked_from,
            fork_step=None if result.resumed else run.fork_step,
        ).to_json()

    def _details(self, organization: str, run: int, *, with_fork: bool) -> Response:
        found = run_queries.details(self._database, organization, run)
        if found is None:
            raise RequestRejectedError(404, "Run not found")
        body = details_json(found) | {"url": urls.run_url(self._public_url, organization, found.project, run)}
        if with_fork:
            body |= {"forkedFromRunId": found.forked_from, "forkStep": found.fork_step}
        return AsciiJSONResponse(body)


def details_json(run: RunDetails) -> dict[str, Json]:
    """The body of ``/api/runs/details``. The hosted tracker has no counterpart of the last four fields."""
    return {
        **run.summary.to_json(),
        "projectName": run.project,
        "config": run.config,
        "systemMetadata": run.system_metadata,
        "loggerSettings": run.logger_settings,
        "statusMetadata": run.status_metadata,
        "statusUpdated": None if run.status_updated is None else iso(run.status_updated),
        "logNames": [{"logName": n.name, "logType": n.type, "logGroup": log_group(n.name)} for n in run.log_names],
        "heartbeatAt": None if run.heartbeat_at is None else iso(run.heartbeat_at),
        "statusHistory": [change.to_json() for change in run.history],
        "attaches": [attach.to_json() for attach in run.attaches],
        "attachCount": run.attach_count,
    }


def _client_info(request: Request, body: dict[str, Json]) -> ClientInfo:
    agent = masked(request.headers.get("user-agent", ""))[:USER_AGENT_LIMIT]
    return ClientInfo(agent, tuple(name for name, value in body.items() if value is not None and name in _FIELDS))
