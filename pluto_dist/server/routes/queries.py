"""Endpoints that list: projects, metric names, metrics, console lines, data and files of a run.

As on the hosted tracker, the lists of an unknown run are empty, and invalid items of a list of run ids are
ignored.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from pluto_dist.contract.validation import Json
from pluto_dist.server.db import files, logs, metrics, run_queries
from pluto_dist.server.db.database import Database
from pluto_dist.server.db.files import StoredFile
from pluto_dist.server.db.log_lines import ConsoleLine
from pluto_dist.server.db.records import iso
from pluto_dist.server.routes import urls
from pluto_dist.server.routes.auth import Authenticator
from pluto_dist.server.settings import DATA_PER_PAGE, LARGEST_INTEGER, LINES_PER_PAGE, POINTS_PER_PAGE
from pluto_dist.server.transport import query_params
from pluto_dist.server.transport.responses import AsciiJSONResponse

POINTS_DEFAULT = 2000  # of each metric
POINTS_PER_RESPONSE = 400_000  # of all metrics together
LINES_DEFAULT = 1000
NAMES_LIMIT = 500


class QueryRoutes:
    """The handlers of these endpoints."""

    def __init__(self, database: Database, auth: Authenticator, signer: files.UrlSigner, public_url: str) -> None:
        self._database = database
        self._auth = auth
        self._signer = signer
        self._public_url = public_url

    def routes(self) -> list[BaseRoute]:
        gets = {
            "projects": self.projects,
            "metric-names": self.metric_names,
            "metrics": self.metrics,
            "logs": self.logs,
            "data": self.data,
            "files": self.files,
        }
        return [Route(f"/api/runs/{name}", handler, methods=["GET"]) for name, handler in gets.items()]

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


def _point_json(name: str, point: metrics.Point) -> dict[str, Json]:
    return {
        "logName": name,
        "logGroup": metrics.log_group(name),
        "time": iso(point.time),
        "step": point.step,
        "value": point.value,
    }
