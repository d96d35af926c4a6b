"""Endpoints that list: projects, metric names, metrics, status changes, console lines, data and files of a run.

As on the hosted tracker, the lists of an unknown run are empty, and invalid items of a list of run ids are
ignored.
"""

from __future__ import annotations

import math

from starlette.requests import Request
from starlette.responses import Response

from pluto_dist.contract.validation import Json
from pluto_dist.server.db import files, logs, metrics, run_queries
from pluto_dist.server.db.files import StoredFile
from pluto_dist.server.db.log_lines import ConsoleLine
from pluto_dist.server.db.records import RequestRejectedError, iso
from pluto_dist.server.openapi.schemas import (
    DATE_TIME,
    METRIC_FILTERS,
    NUMBER,
    PROJECT,
    RUN_IN_QUERY,
    TEXT,
    UNSIGNED,
    Schema,
    in_query,
    limit_in_query,
    list_schema,
    object_schema,
)
from pluto_dist.server.routes import urls
from pluto_dist.server.routes.endpoint import Endpoint, Routes
from pluto_dist.server.settings import (
    DATA_PER_PAGE,
    LARGEST_INTEGER,
    LINES_PER_PAGE,
    POINTS_PER_PAGE,
    RAW_POINTS_PER_PAGE,
)
from pluto_dist.server.transport import query_params
from pluto_dist.server.transport.responses import AsciiJSONResponse

POINTS_DEFAULT = 2000  # of each metric
POINTS_PER_RESPONSE = 400_000  # of all metrics together
LINES_DEFAULT = 1000
NAMES_LIMIT = 500


_POINT = object_schema(
    logName=TEXT, logGroup=TEXT, time=DATE_TIME, step=NUMBER, value={"type": "number", "nullable": True}
)
_RAW_POINT = object_schema(logGroup=TEXT, step=NUMBER, time=TEXT, value=NUMBER, nonFiniteFlags=NUMBER)
_MAYBE: Schema = {"type": "string", "nullable": True}
_EVENT = object_schema(
    id=TEXT, runId=NUMBER, fromStatus=_MAYBE, toStatus=TEXT, source=TEXT, metadata={"nullable": True},
    actorId=_MAYBE, apiKeyId=_MAYBE, createdAt=DATE_TIME,
)  # fmt: skip
_LINE = object_schema(time=DATE_TIME, logType=TEXT, lineNumber=NUMBER, message=TEXT)
_DATUM = object_schema(logName=TEXT, logGroup=TEXT, dataType=TEXT, time=DATE_TIME, step=NUMBER, data=TEXT)
_FILE = object_schema(
    fileName=TEXT, fileType=TEXT, fileSize=NUMBER, logName=TEXT, time=DATE_TIME, step=NUMBER, url=TEXT
)
_PROJECT = object_schema(id=NUMBER, name=TEXT, createdAt=DATE_TIME, updatedAt=DATE_TIME, runCount=NUMBER)


class QueryRoutes(Routes):
    """The handlers of these endpoints."""

    @Endpoint("GET", "/api/runs/projects", "List all projects", answer=list_schema("projects", _PROJECT))
    async def projects(self, request: Request) -> Response:
        organization = self._auth.organization(request)
        found = run_queries.list_projects(self._database, organization, 0)
        return AsciiJSONResponse(
            {
                "projects": [
                    {
                        "id": project.id,
                        "name": project.name,
                        "createdAt": iso(project.created_at),
                        "updatedAt": iso(project.updated_at),
                        "runCount": project.run_count,
                    }
                    for project in found
                ]
            }
        )

    @Endpoint(
        "GET",
        "/api/runs/metric-names",
        "List the names of a project's metrics",
        answer=list_schema("metricNames", TEXT, projectName=TEXT),
        parameters=(PROJECT, in_query("runIds"), in_query("search"), limit_in_query()),
        errors=(400,),
    )
    async def metric_names(self, request: Request) -> Response:
        organization = self._auth.organization(request)
        project = query_params.required_text(request, "projectName")
        search = request.query_params.get("search", "").lower()
        limit = query_params.integer(request, "limit", default=NAMES_LIMIT, minimum=1)
        ids = query_params.integers(request, "runIds")
        found: set[str] = set()
        with self._database.snapshot():
            for run in run_queries.ids_in_project(self._database, organization, project):
                if not ids or run in ids:
                    found.update(metrics.series(self._database, run))
        names = sorted(name for name in found if search in name.lower())[: min(limit, NAMES_LIMIT)]
        return AsciiJSONResponse({"projectName": project, "metricNames": names})

    @Endpoint(
        "GET",
        "/api/runs/metrics",
        "List the points of a run's metrics",
        answer=list_schema("metrics", _POINT),
        parameters=(
            *RUN_IN_QUERY,
            *METRIC_FILTERS,
            in_query("stepMin", UNSIGNED),
            in_query("stepMax", UNSIGNED),
            limit_in_query(POINTS_PER_PAGE),
        ),
        errors=(400,),
    )
    async def metrics(self, request: Request) -> Response:
        run = self._find_run(request)
        limit = query_params.integer(request, "limit", default=POINTS_DEFAULT, minimum=1, maximum=POINTS_PER_PAGE)
        first = query_params.integer(request, "stepMin", default=0)
        last = query_params.integer(request, "stepMax", default=LARGEST_INTEGER)
        group = request.query_params.get("logGroup")
        rows: list[Json] = []
        if run is not None:
            with self._database.snapshot():
                found = metrics.series(self._database, run, request.query_params.get("logName"))
                found = {k: v for k, v in found.items() if group is None or metrics.log_group(k) == group}
                limit = max(1, min(limit, POINTS_PER_RESPONSE // max(1, len(found))))
                for name, metric in found.items():
                    points = metrics.points(self._database, metric, limit, first=first, last=last)
                    rows.extend(_point_json(name, point) for point in points)
        return AsciiJSONResponse({"metrics": rows})

    @Endpoint(
        "GET",
        "/api/runs/metrics/raw",
        "List the points of one metric as the run logged them, also those that are not finite",
        answer=list_schema("rows", _RAW_POINT, truncated={"type": "boolean"}),
        parameters=(
            *RUN_IN_QUERY,
            in_query("logName", required=True),
            in_query("stepMin", UNSIGNED),
            in_query("stepMax", UNSIGNED),
            limit_in_query(RAW_POINTS_PER_PAGE),
        ),
        errors=(400,),
    )
    async def raw_metrics(self, request: Request) -> Response:
        run = self._find_run(request)
        name = query_params.required_text(request, "logName")
        limit = query_params.integer(
            request, "limit", default=RAW_POINTS_PER_PAGE, minimum=1, maximum=RAW_POINTS_PER_PAGE
        )
        first = query_params.integer(request, "stepMin", default=0)
        last = query_params.integer(request, "stepMax", default=LARGEST_INTEGER)
        found = []
        if run is not None:
            found = metrics.logged_points(self._database, run, name, limit, first=first, last=last)
        rows = [_raw_point_json(name, *point) for point in found]
        return AsciiJSONResponse({"rows": rows, "truncated": len(rows) == limit})

    @Endpoint(
        "GET",
        "/api/runs/status/history",
        "List a run's changes of status, oldest first",
        answer=list_schema("events", _EVENT, runId=NUMBER),
        parameters=(in_query("runId", UNSIGNED, required=True),),
        errors=(400, 404),
    )
    async def status_history(self, request: Request) -> Response:
        organization = self._auth.organization(request)
        number = query_params.integer(request, "runId")
        run = run_queries.details(self._database, organization, number)
        if run is None:
            raise RequestRejectedError(404, "Run not found")
        return AsciiJSONResponse({"runId": number, "events": [change.to_event(number) for change in run.history]})

    @Endpoint(
        "GET",
        "/api/runs/logs",
        "List a run's console lines",
        answer=list_schema("logs", _LINE, total=NUMBER),
        parameters=(*RUN_IN_QUERY, in_query("logType"), in_query("offset", UNSIGNED), limit_in_query(LINES_PER_PAGE)),
        errors=(400,),
    )
    async def logs(self, request: Request) -> Response:
        run = self._find_run(request)
        type = request.query_params.get("logType")
        limit = query_params.integer(request, "limit", default=LINES_DEFAULT, minimum=1, maximum=LINES_PER_PAGE)
        offset = query_params.integer(request, "offset", default=0)
        found: list[ConsoleLine] = []
        total = 0
        if run is not None:
            with self._database.snapshot():
                found, total = logs.read_console(
                    self._database, run, type=type.upper() if type else None, limit=limit, offset=offset
                )
        rows = [
            {
                "time": iso(line.time),
                "logType": line.type,
                "lineNumber": line.number,
                "message": line.message,
                "step": None,
            }
            for line in found
        ]
        return AsciiJSONResponse({"logs": rows, "total": total})

    @Endpoint(
        "GET",
        "/api/runs/data",
        "List a run's structured values",
        answer=list_schema("data", _DATUM),
        parameters=(*RUN_IN_QUERY, in_query("logName"), limit_in_query(DATA_PER_PAGE)),
        errors=(400,),
    )
    async def data(self, request: Request) -> Response:
        """Structured values. The hosted tracker has no such endpoint: the SDK writes them but does not read them."""
        run = self._find_run(request)
        limit = query_params.integer(request, "limit", default=DATA_PER_PAGE, minimum=1, maximum=DATA_PER_PAGE)
        name = request.query_params.get("logName")
        found = [] if run is None else logs.read_data(self._database, run, name, limit)
        return AsciiJSONResponse(
            {
                "data": [
                    {
                        "logName": each.name,
                        "logGroup": metrics.log_group(each.name),
                        "dataType": each.type,
                        "time": iso(each.time),
                        "step": each.step,
                        "data": each.data,
                    }
                    for each in found
                ]
            }
        )

    @Endpoint(
        "GET",
        "/api/runs/files",
        "List a run's files with their download URLs",
        answer=list_schema("files", _FILE),
        parameters=(*RUN_IN_QUERY, *METRIC_FILTERS),
        errors=(400,),
    )
    async def files(self, request: Request) -> Response:
        run = self._find_run(request)
        name, group = request.query_params.get("logName"), request.query_params.get("logGroup")
        found = [] if run is None else files.list_uploaded(self._database, run, name=name, group=group)
        return AsciiJSONResponse({"files": [self._file_json(each) for each in found]})

    def _file_json(self, file: StoredFile) -> dict[str, Json]:
        return {
            "fileName": file.file_name,
            "fileType": file.type,
            "fileSize": file.size,
            "logName": file.log_name,
            "logGroup": metrics.log_group(file.log_name),
            "time": iso(file.time),
            "step": file.step,
            "sampleIndex": file.sample,
            "caption": file.caption,
            "url": urls.download_url(self._public_url, self._signer, file.id),
        }

    def _find_run(self, request: Request) -> int | None:
        """The run of the query parameters, or ``None`` if the project has no such run."""
        organization = self._auth.organization(request)
        number = query_params.integer(request, "runId")
        project = query_params.required_text(request, "projectName")
        found = run_queries.find_by_id(self._database, organization, number)
        return found.id if found is not None and found.project == project else None


def _raw_point_json(name: str, step: int, time: int, value: float) -> dict[str, Json]:
    """A point in the form of ClickHouse; ``nonFiniteFlags`` is 1 for NaN, 2 for infinity, 4 for minus infinity."""
    flags = {math.isnan(value): 1, value == math.inf: 2, value == -math.inf: 4}.get(True, 0)
    return {
        "logGroup": metrics.log_group(name),
        "step": step,
        "time": iso(time).replace("T", " ").removesuffix("Z"),
        "value": 0 if flags else value,
        "nonFiniteFlags": flags,
    }


def _point_json(name: str, point: metrics.Point) -> dict[str, Json]:
    return {
        "logName": name,
        "logGroup": metrics.log_group(name),
        "time": iso(point.time),
        "step": point.step,
        "value": point.value,
    }
