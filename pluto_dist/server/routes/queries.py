"""What the SDK's query module reads: projects, metric names, metrics, console lines, data, files.

As on the hosted server, lists of a run that is not there are empty, and names a query does not know are
passed over.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from pluto_dist.contract.validation import Json
from pluto_dist.server.db import files, metrics, run_queries
from pluto_dist.server.db import logs as written
from pluto_dist.server.db.database import Database
from pluto_dist.server.db.files import StoredFile
from pluto_dist.server.db.log_lines import ConsoleLine
from pluto_dist.server.db.records import iso
from pluto_dist.server.routes import urls
from pluto_dist.server.routes.auth import Access
from pluto_dist.server.transport import query_params
from pluto_dist.server.transport.responses import AsciiJSONResponse

POINTS_LIMIT, POINTS_DEFAULT = 10_000, 2000
POINTS_IN_ONE_ANSWER = 400_000
LINES_LIMIT, LINES_DEFAULT = 10_000, 1000
NAMES_LIMIT = 500
DATA_LIMIT = 1000


class ReadingApi:
    """The handlers of these lists."""

    def __init__(self, database: Database, access: Access, signatures: files.Signatures, public_url: str) -> None:
        self._database = database
        self._access = access
        self._signatures = signatures
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
        organization = self._access.organization(request)
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
        organization = self._access.organization(request)
        project = query_params.text(request, "projectName")
        search = request.query_params.get("search", "").lower()
        limit = query_params.whole(request, "limit", default=NAMES_LIMIT, least=1)
        wanted = query_params.numbers(request, "runIds")
        found: set[str] = set()
        with self._database.snapshot():
            for run in run_queries.ids_in_project(self._database, organization, project):
                if not wanted or run in wanted:
                    found.update(metrics.spans(self._database, run))
        names = sorted(name for name in found if search in name.lower())[: min(limit, NAMES_LIMIT)]
        return AsciiJSONResponse({"projectName": project, "metricNames": names})

    async def metrics(self, request: Request) -> Response:
        run = self._run(request)
        limit = query_params.whole(request, "limit", default=POINTS_DEFAULT, least=1, most=POINTS_LIMIT)
        first = query_params.whole(request, "stepMin", default=0)
        last = query_params.whole(request, "stepMax", default=query_params.LARGEST)
        group = request.query_params.get("logGroup")
        rows: list[Json] = []
        if run is not None:
            with self._database.snapshot():
                found = metrics.spans(self._database, run, request.query_params.get("logName"))
                found = {k: v for k, v in found.items() if group is None or metrics.group_of(k) == group}
                limit = max(1, min(limit, POINTS_IN_ONE_ANSWER // max(1, len(found))))
                for name, where in found.items():
                    points = metrics.points(self._database, where, limit, first=first, last=last)
                    rows.extend(_point(name, point) for point in points)
        return AsciiJSONResponse({"metrics": rows})

    async def logs(self, request: Request) -> Response:
        run = self._run(request)
        kind = request.query_params.get("logType")
        limit = query_params.whole(request, "limit", default=LINES_DEFAULT, least=1, most=LINES_LIMIT)
        offset = query_params.whole(request, "offset", default=0)
        found: list[ConsoleLine] = []
        total = 0
        if run is not None:
            with self._database.snapshot():
                found, total = written.console(
                    self._database, run, type=kind.upper() if kind else None, limit=limit, offset=offset
                )
        logs = [
            {
                "time": iso(line.time),
                "logType": line.type,
                "lineNumber": line.number,
                "message": line.message,
                "step": None,
            }
            for line in found
        ]
        return AsciiJSONResponse({"logs": logs, "total": total})

    async def data(self, request: Request) -> Response:
        """Structured values, which the SDK writes but does not read: this server's own addition."""
        run = self._run(request)
        limit = query_params.whole(request, "limit", default=DATA_LIMIT, least=1, most=DATA_LIMIT)
        name = request.query_params.get("logName")
        found = [] if run is None else written.data(self._database, run, name, limit)
        return AsciiJSONResponse(
            {
                "data": [
                    {
                        "logName": each.name,
                        "logGroup": metrics.group_of(each.name),
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
        run = self._run(request)
        name, group = request.query_params.get("logName"), request.query_params.get("logGroup")
        found = [] if run is None else files.uploaded(self._database, run, name=name, group=group)
        return AsciiJSONResponse({"files": [self._file(each) for each in found]})

    def _file(self, file: StoredFile) -> dict[str, Json]:
        return {
            "fileName": file.file_name,
            "fileType": file.type,
            "fileSize": file.size,
            "logName": file.log_name,
            "logGroup": metrics.group_of(file.log_name),
            "time": iso(file.time),
            "step": file.step,
            "sampleIndex": file.sample,
            "caption": file.caption,
            "url": urls.download_url(self._public_url, self._signatures, file.id),
        }

    def _run(self, request: Request) -> int | None:
        """The run that the query names, if it is in the project that the query names."""
        organization = self._access.organization(request)
        number = query_params.whole(request, "runId")
        project = query_params.text(request, "projectName")
        found = run_queries.find_by_id(self._database, organization, number)
        return found.id if found is not None and found.project == project else None


def _point(name: str, point: metrics.Point) -> dict[str, Json]:
    return {
        "logName": name,
        "logGroup": metrics.group_of(name),
        "time": iso(point.time),
        "step": point.step,
        "value": point.value,
    }
