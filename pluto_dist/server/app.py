"""The tracker's HTTP interface: which request does what, behind the API key.

Built on Starlette alone. FastAPI's own validation answers 422 in a shape of its own, where clients of
the hosted server expect three other shapes (see ``answers``), and its OpenAPI document would come from
second copies of the records; here both come from the rules in ``wire``.

Handlers are coroutines that call SQLite directly: a transaction takes some tens of microseconds and
SQLite has one writer anyhow, so handing it to a thread would cost more than it frees.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from pluto_dist.contract import run_requests
from pluto_dist.contract.run_requests import CreateRunResponse, ResumeRunRequest
from pluto_dist.contract.validation import Issue, Json
from pluto_dist.server.db import display_id, run_list, run_queries, run_updates
from pluto_dist.server.db.database import Database
from pluto_dist.server.db.files import Signatures
from pluto_dist.server.db.filters import FilterError
from pluto_dist.server.db.metrics import group_of
from pluto_dist.server.db.records import Details, Landed, RefusalError, Visitor, iso
from pluto_dist.server.openapi import document
from pluto_dist.server.openapi.schemas import properties
from pluto_dist.server.pages import pages
from pluto_dist.server.routes import urls
from pluto_dist.server.routes.annotations import NotesApi
from pluto_dist.server.routes.auth import Access
from pluto_dist.server.routes.files import FilesApi
from pluto_dist.server.routes.ingest import IngestApi
from pluto_dist.server.routes.metrics import ComparingApi
from pluto_dist.server.routes.queries import ReadingApi
from pluto_dist.server.settings import Settings
from pluto_dist.server.transport import query_params
from pluto_dist.server.transport.host_guard import Guard, Log, masked
from pluto_dist.server.transport.responses import AnswerError, AsciiJSONResponse, failure, invalid, not_found

LIST_DEFAULT, LIST_LIMIT, OFFSET_LIMIT = 50, 200, 100_000
_FIELDS = frozenset({*properties(run_requests.CreateRunRequest), *properties(ResumeRunRequest)})

Handler = Callable[[Request], Awaitable[Response]]


def create_app(database: Database, settings: Settings, log: Log) -> Guard:
    """The ASGI application. ``log`` receives one line for every request."""
    app = Starlette(
        routes=_routes(database, settings),
        exception_handlers={
            AnswerError: _answer,
            RefusalError: _refusal,
            HTTPException: _http_error,
            sqlite3.OperationalError: _unavailable,
            500: _broken,
        },
    )
    app.router.redirect_slashes = False
    return Guard(app, hosts=settings.hosts, log=log)


def _routes(database: Database, settings: Settings) -> list[BaseRoute]:
    access = Access(database, settings.body_limit)
    signatures = Signatures(database)
    url = settings.public_url
    api = Api(database, access, settings)
    return [
        *api.routes(),
        *NotesApi(database, access).routes(),
        *IngestApi(database, access).routes(),
        *FilesApi(database, access, signatures, url, settings.file_limit).routes(),
        *ReadingApi(database, access, signatures, url).routes(),
        *ComparingApi(database, access, url).routes(),
        *pages.Pages(database, signatures, is_private=settings.private_pages).routes(),
        Route("/api/runs/{code}", api.decode, methods=["GET"]),  # last, for it takes every word
    ]


class Api:
    """The handlers of a run's life: create, resume, status, config, heartbeat, details, list."""

    def __init__(self, database: Database, access: Access, settings: Settings) -> None:
        self._database = database
        self._access = access
        self._public_url = settings.public_url
        self._document = document.document(settings.public_url)

    def routes(self) -> list[BaseRoute]:
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

    async def decode(self, request: Request) -> Response:
        """The number that a sqid stands for; "create" is one, too, so a POST that a redirect made a GET finds one."""
        self._access.organization(request)
        number = display_id.number_of_code(request.path_params["code"])
        return not_found() if number is None else AsciiJSONResponse({"runId": number})

    async def create(self, request: Request) -> Response:
        organization, body, carried = await self._access.read(request, run_requests.CreateRunRequest)
        landed = run_updates.create_run(self._database, organization, body, _visitor(request, carried))
        return AsciiJSONResponse(self._landed(organization, landed))

    async def resume(self, request: Request) -> Response:
        organization, body, carried = await self._access.read(request, ResumeRunRequest)
        ids = (body.run_id, body.display_id, body.external_id)
        if sum(value is not None for value in ids) != 1:
            message = "Exactly one of runId, displayId and externalId is needed"
            raise AnswerError(invalid((Issue((), message, {"code": "custom"}),)))
        landed = run_updates.resume_run(self._database, organization, body, _visitor(request, carried))
        answer = self._landed(organization, landed)
        return AsciiJSONResponse({k: v for k, v in answer.items() if k not in ("forkedFromRunId", "forkStep")})

    async def update_status(self, request: Request) -> Response:
        organization, body, _ = await self._access.read(request, run_requests.UpdateStatusRequest)
        run_updates.update_status(self._database, organization, body)
        return AsciiJSONResponse({"success": True})

    async def update_config(self, request: Request) -> Response:
        organization, body, _ = await self._access.read(request, run_requests.UpdateConfigRequest)
        run_updates.update_config(self._database, organization, body.run_id, body.config)
        return AsciiJSONResponse({"success": True})

    async def trigger(self, request: Request) -> Response:
        organization, body, _ = await self._access.read(request, run_requests.TriggerRequest)
        status = run_updates.heartbeat(self._database, organization, body.run_id)
        return AsciiJSONResponse({"status": status, "triggers": None})

    async def details(self, request: Request) -> Response:
        organization = self._access.organization(request)
        try:
            number = float(request.path_params["id"])
        except ValueError:
            number = float("nan")
        if math.isnan(number):
            detail = {"code": "invalid_type", "expected": "number", "received": "nan"}
            raise AnswerError(invalid((Issue(("runId",), "Expected number, received nan", detail),)))
        run = run_updates.existing(self._database, organization, number)
        return self._details(organization, run.id, with_fork=True)

    async def details_by_display_id(self, request: Request) -> Response:
        organization = self._access.organization(request)
        project = request.query_params.get("projectName")
        run = run_queries.find_by_display_id(self._database, organization, request.path_params["id"], project)
        return self._details(organization, run.id, with_fork=False)

    async def list(self, request: Request) -> Response:
        organization = self._access.organization(request)
        project = query_params.text(request, "projectName")
        query = request.query_params
        try:
            wanted = run_list.Wanted(
                limit=query_params.whole(request, "limit", default=LIST_DEFAULT, least=1, most=LIST_LIMIT),
                offset=query_params.whole(request, "offset", default=0, most=OFFSET_LIMIT),
                search=query.get("search", "").strip(),
                tags=tuple(tag for part in query.get("tags", "").split(",") if (tag := part.strip())),
                filter=run_list.parsed(query.get("filter")),
                sort=query.get("sort", "").strip(),
            )
            found, total = run_list.runs(self._database, organization, project, wanted)
        except FilterError as error:
            raise RefusalError(400, str(error)) from error
        shown = [
            {
                **run.summary.to_json(),
                "config": run.config,
                "url": urls.run_url(self._public_url, organization, project, run.summary.id),
            }
            for run in found
        ]
        return AsciiJSONResponse({"runs": shown, "total": total})

    async def validate(self, request: Request) -> Response:
        organization = self._access.organization(request)
        owner = {"id": organization, "slug": organization}
        return AsciiJSONResponse({"valid": True, "organization": owner, "user": {"id": "local-user"}})

    async def slug(self, request: Request) -> Response:
        return AsciiJSONResponse({"organization": {"slug": self._access.organization(request)}})

    async def health(self, _: Request) -> Response:
        return PlainTextResponse("OK")

    async def openapi(self, _: Request) -> Response:
        return AsciiJSONResponse(self._document)

    def _landed(self, organization: str, landed: Landed) -> dict[str, Json]:
        run = landed.run
        return CreateRunResponse(
            run_id=run.id,
            number=run.number,
            display_id=run.display_id,
            project_name=run.project,
            organization_slug=organization,
            url=urls.run_url(self._public_url, organization, run.project, run.id),
            resumed=landed.resumed,
            forked_from_run_id=None if landed.resumed else run.forked_from,
            fork_step=None if landed.resumed else run.fork_step,
        ).to_json()

    def _details(self, organization: str, run: int, *, with_fork: bool) -> Response:
        found = run_queries.details(self._database, organization, run)
        if found is None:
            raise RefusalError(404, "Run not found")
        body = details_json(found) | {"url": urls.run_url(self._public_url, organization, found.project, run)}
        if with_fork:
            body |= {"forkedFromRunId": found.forked_from, "forkStep": found.fork_step}
        return AsciiJSONResponse(body)


def details_json(run: Details) -> dict[str, Json]:
    """A run as ``/api/runs/details`` tells it; the last four fields are this server's own."""
    return {
        **run.summary.to_json(),
        "projectName": run.project,
        "config": run.config,
        "systemMetadata": run.system_metadata,
        "loggerSettings": run.logger_settings,
        "statusMetadata": run.status_metadata,
        "statusUpdated": None if run.status_updated is None else iso(run.status_updated),
        "logNames": [{"logName": n.name, "logType": n.type, "logGroup": group_of(n.name)} for n in run.log_names],
        "heartbeatAt": None if run.heartbeat_at is None else iso(run.heartbeat_at),
        "statusHistory": [change.to_json() for change in run.history],
        "attaches": [attach.to_json() for attach in run.attaches],
        "attachCount": run.attach_count,
    }


def _visitor(request: Request, body: dict[str, Json]) -> Visitor:
    agent = masked(request.headers.get("user-agent", ""))[:200]
    return Visitor(agent, tuple(name for name, value in body.items() if value is not None and name in _FIELDS))


async def _answer(_: Request, error: Exception) -> Response:
    if not isinstance(error, AnswerError):
        raise error
    return error.response


async def _refusal(_: Request, error: Exception) -> Response:
    if not isinstance(error, RefusalError):
        raise error
    return failure(error.status, error.message)


async def _http_error(_: Request, error: Exception) -> Response:
    """Unknown paths and methods are 404 in plain text, as on the hosted server."""
    if isinstance(error, HTTPException) and error.status_code in (404, 405):
        return not_found()
    raise error


async def _unavailable(_: Request, error: Exception) -> Response:
    """Another process held the write lock too long, or the disk is full: worth trying again."""
    return failure(503, f"the tracker's database does not answer: {error}")


async def _broken(_: Request, __: Exception) -> Response:
    return failure(500, "Internal Server Error")
