"""Endpoints of a run's lifecycle: create, resume, status, config, heartbeat, details, attempts, list.

Also those of the API key and of the server itself: ``auth/validate``, ``slug``, ``health``, ``openapi.json``.
"""

from __future__ import annotations

import math

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from pluto_dist.contract import attempts, run_requests
from pluto_dist.contract.run_requests import CreateRunResponse, ResumeRunRequest
from pluto_dist.contract.validation import Issue, Json
from pluto_dist.server.api_keys import masked
from pluto_dist.server.db import deletion, display_id, run_list, run_queries, run_updates
from pluto_dist.server.db.blobs import BlobStore
from pluto_dist.server.db.filters import FilterError
from pluto_dist.server.db.metrics import log_group
from pluto_dist.server.db.records import AttachResult, ClientInfo, RequestRejectedError, RunDetails, iso
from pluto_dist.server.openapi.schemas import (
    NUMBER,
    PROJECT,
    SUCCESS,
    TEXT,
    UNSIGNED,
    Schema,
    in_path,
    in_query,
    limit_in_query,
    list_schema,
    object_schema,
    properties,
    reference,
)
from pluto_dist.server.routes import urls
from pluto_dist.server.routes.endpoint import PLAIN_TEXT, Endpoint, Routes, Services
from pluto_dist.server.settings import RUNS_PER_PAGE
from pluto_dist.server.transport import query_params
from pluto_dist.server.transport.responses import AsciiJSONResponse, ResponseError, validation_response
from pluto_dist.version import __version__

LIST_DEFAULT, OFFSET_LIMIT = 50, 100_000
USER_AGENT_LIMIT = 200  # characters
_FIELDS = frozenset({*properties(run_requests.CreateRunRequest), *properties(ResumeRunRequest)})

_DISPLAY_ID: Schema = {"type": "string", "pattern": "^[A-Za-z0-9]{1,4}-[0-9]{1,15}$"}
_VERSION_FIELDS = dict.fromkeys(("service", "version", "gitCommit", "gitBranch", "buildTime"), TEXT)
_CREATED = reference("CreateRunResponse")
_DETAILS = reference("RunDetails")
_ATTEMPT = object_schema(key=TEXT, number={"type": "integer"})


class RunRoutes(Routes):
    """The handlers of these endpoints, except that of :class:`SqidRoutes`."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._document = services.document
        self._blobs = BlobStore(services.database.path)

    @Endpoint(
        "POST",
        "/api/runs/create",
        "Create a run, or resume the run with this externalId",
        body=run_requests.CreateRunRequest,
        answer=_CREATED,
    )
    async def create(self, request: Request) -> Response:
        organization, record, body = await self._auth.read_record(request, run_requests.CreateRunRequest)
        result = run_updates.create_run(self._database, organization, record, _client_info(request, body))
        return AsciiJSONResponse(self._result_json(organization, result))

    @Endpoint(
        "POST", "/api/runs/resume", "Resume an existing run", body=ResumeRunRequest, answer=_CREATED, errors=(404, 409)
    )
    async def resume(self, request: Request) -> Response:
        organization, record, body = await self._auth.read_record(request, ResumeRunRequest)
        ids = (record.run_id, record.display_id, record.external_id)
        if sum(value is not None for value in ids) != 1:
            message = "Exactly one of runId, displayId and externalId is needed"
            raise ResponseError(validation_response((Issue((), message, {"code": "custom"}),)))
        result = run_updates.resume_run(self._database, organization, record, _client_info(request, body))
        fields = self._result_json(organization, result)
        return AsciiJSONResponse({k: v for k, v in fields.items() if k not in ("forkedFromRunId", "forkStep")})

    @Endpoint(
        "POST",
        "/api/runs/status/update",
        "Update a run's status",
        body=run_requests.UpdateStatusRequest,
        answer=SUCCESS,
        errors=(404,),
    )
    async def update_status(self, request: Request) -> Response:
        organization, record, body = await self._auth.read_record(request, run_requests.UpdateStatusRequest)
        clears = body.get("statusMetadata", "") is None
        run_updates.update_status(self._database, organization, record, clears_metadata=clears)
        return AsciiJSONResponse({"success": True})

    @Endpoint(
        "POST",
        "/api/runs/config/update",
        "Merge into a run's config",
        body=run_requests.UpdateConfigRequest,
        answer=SUCCESS,
        errors=(404,),
    )
    async def update_config(self, request: Request) -> Response:
        organization, record, _ = await self._auth.read_record(request, run_requests.UpdateConfigRequest)
        run_updates.update_config(self._database, organization, record.run_id, record.config)
        return AsciiJSONResponse({"success": True})

    @Endpoint(
        "POST",
        "/api/runs/trigger",
        "Send a heartbeat of a run",
        body=run_requests.TriggerRequest,
        answer={"type": "object", "properties": {"status": TEXT, "triggers": {"nullable": True}}},
        errors=(404,),
    )
    async def trigger(self, request: Request) -> Response:
        """The heartbeat."""
        organization, record, _ = await self._auth.read_record(request, run_requests.TriggerRequest)
        status = run_updates.heartbeat(self._database, organization, record.run_id)
        return AsciiJSONResponse({"status": status, "triggers": None})

    @Endpoint("POST", "/api/slug", "Get the API key's organization")
    async def slug(self, request: Request) -> Response:
        return AsciiJSONResponse({"organization": {"slug": self._auth.organization(request)}})

    @Endpoint(
        "GET",
        "/api/runs/details/by-display-id/{id:path}",
        "Get a run by its display id",
        answer=_DETAILS,
        parameters=(in_path("id", _DISPLAY_ID), in_query("projectName")),
        errors=(400, 404, 409),
    )
    async def details_by_display_id(self, request: Request) -> Response:
        organization = self._auth.organization(request)
        project = request.query_params.get("projectName")
        run = run_queries.find_by_display_id(self._database, organization, request.path_params["id"], project)
        return self._details(organization, run.id, with_fork=False)

    @Endpoint(
        "GET",
        "/api/runs/details/{id}",
        "Get a run",
        answer=_DETAILS,
        parameters=(in_path("id", UNSIGNED),),
        errors=(400, 404),
    )
    async def details(self, request: Request) -> Response:
        organization, run = self._run_in_path(request)
        return self._details(organization, run, with_fork=True)

    @Endpoint(
        "GET",
        "/api/runs/{id}/attempts",
        "List a run's attempts, oldest first",
        description="What pluto_dist recorded in the run's config at each start of the job. Other values are left out.",
        answer=list_schema("attempts", _ATTEMPT),
        parameters=(in_path("id", UNSIGNED),),
        errors=(400, 404),
    )
    async def list_attempts(self, request: Request) -> Response:
        """The hosted tracker has no such endpoint."""
        organization, run = self._run_in_path(request)
        recorded = attempts.recorded(self._load(organization, run).config)
        return AsciiJSONResponse({"attempts": attempts.in_order(recorded)})

    @Endpoint(
        "DELETE",
        "/api/runs/{id}",
        "Delete a run and all that it logged",
        answer=SUCCESS,
        parameters=(in_path("id", UNSIGNED),),
        errors=(400, 404),
    )
    async def delete(self, request: Request) -> Response:
        """The hosted tracker has no such endpoint: it deletes on its pages."""
        organization, run = self._run_in_path(request)
        deletion.delete_run(self._database, self._blobs, organization, run)
        return AsciiJSONResponse({"success": True})

    @Endpoint(
        "GET",
        "/api/runs/list",
        "List a project's runs, newest first",
        answer=list_schema("runs", reference("Run"), total=NUMBER),
        parameters=(
            PROJECT,
            *(in_query(name) for name in ("search", "tags", "status", "filter", "sort", "offset")),
            limit_in_query(RUNS_PER_PAGE),
        ),
        errors=(400,),
    )
    async def list(self, request: Request) -> Response:
        organization = self._auth.organization(request)
        params = request.query_params
        project = params.get("projectName")
        if not project:
            raise RequestRejectedError(400, "projectName is required")
        try:
            selection = run_list.ListQuery(
                limit=query_params.integer(request, "limit", default=LIST_DEFAULT, minimum=1, maximum=RUNS_PER_PAGE),
                offset=query_params.integer(request, "offset", default=0, maximum=OFFSET_LIMIT),
                search=params.get("search", "").strip(),
                tags=query_params.words(request, "tags"),
                statuses=_statuses(request),
                filter=run_list.parse_filter(params.get("filter")),
                sort=params.get("sort", "").strip(),
            )
            found, total = run_list.select_runs(self._database, organization, project, selection)
        except FilterError as error:
            raise RequestRejectedError(400, str(error)) from error
        return AsciiJSONResponse({"runs": [{**run.to_json(), "projectName": project} for run in found], "total": total})

    @Endpoint("GET", "/api/runs/auth/validate", "Validate the API key")
    async def validate(self, request: Request) -> Response:
        organization = self._auth.organization(request)
        owner = {"id": organization, "slug": organization}
        return AsciiJSONResponse({"valid": True, "organization": owner, "user": {"id": "local-user"}})

    @Endpoint(
        "GET", "/api/version", "The version of the server", answer=object_schema(**_VERSION_FIELDS), needs_key=False
    )
    async def version(self, _: Request) -> Response:
        """As on the hosted tracker, where what the build did not record is "unknown"."""
        known = {"service": "pluto-dist", "version": __version__}
        return AsciiJSONResponse({**dict.fromkeys(_VERSION_FIELDS, "unknown"), **known})

    @Endpoint("GET", "/api/health", "Health check", answer=TEXT, answer_type=PLAIN_TEXT, needs_key=False)
    async def health(self, _: Request) -> Response:
        return PlainTextResponse("OK")

    @Endpoint("GET", "/api/openapi.json", "The OpenAPI document", needs_key=False, in_document=False)
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

    def _run_in_path(self, request: Request) -> tuple[str, int]:
        """Organization and run of a request with the run's number in its path.

        Raises:
            ResponseError: 401, or 400 if it is not a number.
            RequestRejectedError: 404 if the organization has no such run, 400 if it is not an integer.
        """
        organization = self._auth.organization(request)
        try:
            number = float(request.path_params["id"])
        except ValueError:
            number = float("nan")
        if math.isnan(number):
            detail = {"code": "invalid_type", "expected": "number", "received": "nan"}
            issue = Issue(("runId",), "Expected number, received nan", detail)
            raise ResponseError(validation_response((issue,)))
        return organization, run_updates.get_run(self._database, organization, number).id

    def _load(self, organization: str, run: int) -> RunDetails:
        found = run_queries.details(self._database, organization, run)
        if found is None:
            raise RequestRejectedError(404, "Run not found")
        return found

    def _details(self, organization: str, run: int, *, with_fork: bool) -> Response:
        found = self._load(organization, run)
        body = details_json(found) | {"url": urls.run_url(self._public_url, organization, found.project, run)}
        if with_fork:
            body |= {"forkedFromRunId": found.forked_from, "forkStep": found.fork_step}
        return AsciiJSONResponse(body)


class SqidRoutes(Routes):
    """``GET /api/runs/{code}``. It matches every other ``GET /api/runs/...`` of one segment, so it is routed last."""

    @Endpoint(
        "GET",
        "/api/runs/{code}",
        "Decode a sqid to a run's number",
        answer={"type": "object", "properties": {"runId": NUMBER}},
        parameters=(in_path("code", TEXT),),
        needs_key=False,
    )
    async def decode_sqid(self, request: Request) -> Response:
        """The run number that a sqid encodes; an empty object for any other text.

        "create" is a sqid, too: a POST that a redirect turned into ``GET /api/runs/create`` gets a number.
        """
        number = display_id.decode_sqid(request.path_params["code"])
        return AsciiJSONResponse({} if number is None else {"runId": number})


def details_json(run: RunDetails) -> dict[str, Json]:
    """The body of ``/api/runs/details``. The hosted tracker has no counterpart of the last four fields."""
    return {
        **run.summary.to_json(),
        "externalId": run.summary.external_id,
        "updatedAt": iso(run.summary.updated_at),
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


def _statuses(request: Request) -> tuple[str, ...]:
    found = query_params.words(request, "status")
    if unknown := [word for word in found if word not in run_requests.STATUSES]:
        known = ", ".join(run_requests.STATUSES)
        raise RequestRejectedError(400, f"status has {unknown[0][:40]!r}, which is none of {known}")
    return found


def _client_info(request: Request, body: dict[str, Json]) -> ClientInfo:
    agent = masked(request.headers.get("user-agent", ""))[:USER_AGENT_LIMIT]
    return ClientInfo(agent, tuple(name for name, value in body.items() if value is not None and name in _FIELDS))
