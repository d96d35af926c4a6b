"""The paths of the OpenAPI document that only the official SDK uses: logging, files, queries."""

from __future__ import annotations

from pluto_dist.contract.run_requests import LATEST_MS, NAME_LIMIT
from pluto_dist.contract.validation import Json
from pluto_dist.server.openapi.schemas import (
    DATE_TIME,
    IDS,
    NUMBER,
    OBJECT,
    SUCCESS,
    TEXT,
    UNSIGNED,
    get,
    list_schema,
    operation,
    post,
    query,
    schema,
)
from pluto_dist.server.settings import DATA_PER_PAGE, LARGEST_INTEGER, LINES_PER_PAGE, POINTS_PER_PAGE
from pluto_dist.server.transport import sdk_requests

_RUN = {"name": "X-Run-Id", "in": "header", "required": True, "schema": UNSIGNED}
_PROJECT = query("projectName", required=True)
_OF_RUN: list[Json] = [query("runId", UNSIGNED, required=True), _PROJECT]
_NAMED: list[Json] = [query("logName"), query("logGroup")]
_RANKED: list[Json] = [
    _PROJECT,
    query("logName", required=True),
    query("aggregation", {"type": "string", "enum": ["LAST", "MIN", "MAX", "AVG", "VARIANCE"]}),
    query("direction", {"type": "string", "enum": ["ASC", "DESC"]}),
]


def _object(**fields: Json) -> dict[str, Json]:
    return {"type": "object", "properties": fields, "required": list(fields)}


_POINT = _object(logName=TEXT, logGroup=TEXT, time=DATE_TIME, step=NUMBER, value={"type": "number", "nullable": True})
_LINE = _object(time=DATE_TIME, logType=TEXT, lineNumber=NUMBER, message=TEXT)
_DATUM = _object(logName=TEXT, logGroup=TEXT, dataType=TEXT, time=DATE_TIME, step=NUMBER, data=TEXT)
_FILE = _object(fileName=TEXT, fileType=TEXT, fileSize=NUMBER, logName=TEXT, time=DATE_TIME, step=NUMBER, url=TEXT)
_PROJECT_ROW = _object(id=NUMBER, name=TEXT, createdAt=DATE_TIME, updatedAt=DATE_TIME, runCount=NUMBER)


_TIME: dict[str, Json] = {**UNSIGNED, "maximum": LATEST_MS, "description": "Milliseconds since 1970."}
_NAME: dict[str, Json] = {"type": "string", "minLength": 1, "maxLength": NAME_LIMIT, "pattern": "^[^\\u0000]+$"}
_NUMBERS: dict[str, Json] = {"type": "object", "additionalProperties": {"type": "number", "nullable": True}}


def _limit(maximum: int = LARGEST_INTEGER) -> Json:
    """The parameter ``limit``. Operations without a maximum accept any limit and may return fewer items."""
    return query("limit", {"type": "integer", "minimum": 1, "maximum": maximum})


def _lines(summary: str, line: Json) -> dict[str, Json]:
    """A request with one JSON object in each line; an invalid line rejects all lines."""
    body = {"required": True, "content": {"application/x-ndjson": {"schema": line}}}
    spec = operation(summary, TEXT, 400, 404, 413)
    spec["responses"]["200"] = {"description": "Stored", "content": {"text/plain": {"schema": TEXT}}}
    return {"post": {**spec, "parameters": [_RUN], "requestBody": body}}


def _signed(summary: str, media_type: str, *errors: int) -> dict[str, Json]:
    """An operation whose URL is signed, so that it needs no key."""
    file = {"name": "file", "in": "path", "required": True, "schema": {"type": "integer"}}
    parameters = [file, query("expires", required=True), query("signature", required=True)]
    spec = operation(summary, TEXT, 403, 404, *errors)
    spec["responses"]["200"] = {"description": "Success", "content": {media_type: {"schema": {"type": "string"}}}}
    del spec["responses"]["401"]
    return {**spec, "security": [], "parameters": parameters}


def _create_uploads() -> dict[str, Json]:
    spec = post("Create upload URLs for files", sdk_requests.UploadRequest, OBJECT, 404)
    spec["post"]["parameters"] = [_RUN]
    spec["post"]["requestBody"]["content"]["application/json"]["schema"] = list_schema(
        "files", schema(sdk_requests.FileUpload)
    )
    return spec


def _with_object(spec: dict[str, Json], name: str, content: Json) -> dict[str, Json]:
    """``spec`` with a required object ``name`` in its body."""
    body = spec["post"]["requestBody"]["content"]["application/json"]["schema"]
    body["properties"][name] = content
    body["required"] = [*body["required"], name]
    return spec


_GRAPH = _object(format=TEXT, nodes=OBJECT)

PATHS: dict[str, Json] = {
    "/api/runs/tags/update": post("Replace a run's tags", sdk_requests.UpdateTagsRequest, SUCCESS, 404),
    "/api/runs/logName/add": post("Register log names", sdk_requests.AddLogNamesRequest, SUCCESS, 404),
    "/api/runs/alert": _with_object(
        post("Send an alert", sdk_requests.AlertRequest, SUCCESS, 404), "alert", schema(sdk_requests.AlertFields)
    ),
    "/api/runs/modelGraph/create": _with_object(
        post("Store the model graph", sdk_requests.ModelGraphRequest, SUCCESS, 404), "graph", _GRAPH
    ),
    "/ingest/metrics": _lines("Log metrics", _object(time=_TIME, step=UNSIGNED, data=_NUMBERS)),
    "/ingest/logs": _lines("Log console lines", _object(time=_TIME, message=TEXT, lineNumber=UNSIGNED, logType=_NAME)),
    "/ingest/data": _lines(
        "Log structured values", _object(time=_TIME, step=UNSIGNED, data=TEXT, dataType=_NAME, logName=_NAME)
    ),
    "/files": _create_uploads(),
    "/files/{file}": {
        "put": _signed("Upload a file", "text/plain", 400, 413),
        "get": _signed("Download a file", "application/octet-stream"),
    },
    "/api/runs/projects": get("List all projects", list_schema("projects", _PROJECT_ROW), []),
    "/api/runs/metric-names": get(
        "List the names of a project's metrics",
        list_schema("metricNames", TEXT, projectName=TEXT),
        [_PROJECT, query("runIds"), query("search"), _limit()],
        400,
    ),
    "/api/runs/metrics": get(
        "List the points of a run's metrics",
        list_schema("metrics", _POINT),
        [*_OF_RUN, *_NAMED, query("stepMin", UNSIGNED), query("stepMax", UNSIGNED), _limit(POINTS_PER_PAGE)],
        400,
    ),
    "/api/runs/logs": get(
        "List a run's console lines",
        list_schema("logs", _LINE, total=NUMBER),
        [*_OF_RUN, query("logType"), query("offset", UNSIGNED), _limit(LINES_PER_PAGE)],
        400,
    ),
    "/api/runs/data": get(
        "List a run's structured values",
        list_schema("data", _DATUM),
        [*_OF_RUN, query("logName"), _limit(DATA_PER_PAGE)],
        400,
    ),
    "/api/runs/files": get(
        "List a run's files with their download URLs", list_schema("files", _FILE), [*_OF_RUN, *_NAMED], 400
    ),
    "/api/runs/statistics": get(
        "Get statistics of a run's metrics",
        list_schema("metrics", OBJECT, runId=NUMBER, runName=TEXT, projectName=TEXT, url=TEXT),
        [*_OF_RUN, *_NAMED],
        400,
        404,
    ),
    "/api/runs/compare": get(
        "Compare one metric of several runs",
        list_schema("runs", OBJECT, projectName=TEXT, logName=TEXT, comparisonUrl=TEXT, summary=OBJECT),
        [_PROJECT, query("runIds", IDS, required=True), query("logName", required=True)],
        400,
    ),
    "/api/runs/leaderboard": get(
        "Rank a project's runs by a metric",
        list_schema("runs", OBJECT, total=NUMBER),
        [*_RANKED, query("offset", UNSIGNED), _limit()],
        400,
    ),
}
