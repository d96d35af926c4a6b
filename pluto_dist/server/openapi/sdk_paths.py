"""The OpenAPI document's part on what only the official SDK asks for: logging, files, reading back."""

from __future__ import annotations

from pluto_dist.contract.run_requests import LATEST_MS, NAME_LIMIT
from pluto_dist.contract.validation import Json
from pluto_dist.server.openapi.schemas import (
    IDS,
    NUMBER,
    OBJECT,
    SUCCESS,
    TEXT,
    WHEN,
    WHOLE,
    get,
    listed,
    operation,
    post,
    query,
    schema,
)
from pluto_dist.server.transport import bodies

_RUN = {"name": "X-Run-Id", "in": "header", "required": True, "schema": WHOLE}
_PROJECT = query("projectName", required=True)
_OF_RUN: list[Json] = [query("runId", WHOLE, required=True), _PROJECT]
_NAMED: list[Json] = [query("logName"), query("logGroup")]
_RANKED: list[Json] = [
    _PROJECT,
    query("logName", required=True),
    query("aggregation", {"type": "string", "enum": ["LAST", "MIN", "MAX", "AVG", "VARIANCE"]}),
    query("direction", {"type": "string", "enum": ["ASC", "DESC"]}),
]


def _object(**fields: Json) -> dict[str, Json]:
    return {"type": "object", "properties": fields, "required": list(fields)}


_POINT = _object(logName=TEXT, logGroup=TEXT, time=WHEN, step=NUMBER, value={"type": "number", "nullable": True})
_LINE = _object(time=WHEN, logType=TEXT, lineNumber=NUMBER, message=TEXT)
_DATUM = _object(logName=TEXT, logGroup=TEXT, dataType=TEXT, time=WHEN, step=NUMBER, data=TEXT)
_FILE = _object(fileName=TEXT, fileType=TEXT, fileSize=NUMBER, logName=TEXT, time=WHEN, step=NUMBER, url=TEXT)
_PROJECT_ROW = _object(id=NUMBER, name=TEXT, createdAt=WHEN, updatedAt=WHEN, runCount=NUMBER)


_TIME: dict[str, Json] = {**WHOLE, "maximum": LATEST_MS, "description": "Milliseconds since 1970."}
_NAME: dict[str, Json] = {"type": "string", "minLength": 1, "maxLength": NAME_LIMIT, "pattern": "^[^\\u0000]+$"}
_NUMBERS: dict[str, Json] = {"type": "object", "additionalProperties": {"type": "number", "nullable": True}}


def _limit(most: int = 2**53) -> Json:
    """How many are wanted at most; without a bound of its own an operation answers fewer than it is asked for."""
    return query("limit", {"type": "integer", "minimum": 1, "maximum": most})


def _lines(summary: str, line: Json) -> dict[str, Json]:
    """A request with one JSON object a line; a line that is something else refuses all of them."""
    body = {"required": True, "content": {"application/x-ndjson": {"schema": line}}}
    told = operation(summary, TEXT, 400, 404, 413)
    told["responses"]["200"] = {"description": "Stored", "content": {"text/plain": {"schema": TEXT}}}
    return {"post": {**told, "parameters": [_RUN], "requestBody": body}}


def _signed(summary: str, answers: str, *errors: int) -> dict[str, Json]:
    file = {"name": "file", "in": "path", "required": True, "schema": {"type": "integer"}}
    parameters = [file, query("expires", required=True), query("signature", required=True)]
    told = operation(summary, TEXT, 403, 404, *errors)
    told["responses"]["200"] = {"description": "Done", "content": {answers: {"schema": {"type": "string"}}}}
    del told["responses"]["401"]
    return {**told, "security": [], "parameters": parameters}


def _announcing() -> dict[str, Json]:
    told = post("Announce files; answers where each is to be sent", bodies.UploadRequest, OBJECT, 404)
    told["post"]["parameters"] = [_RUN]
    told["post"]["requestBody"]["content"]["application/json"]["schema"] = listed("files", schema(bodies.AnnouncedFile))
    return told


def _with(record: dict[str, Json], name: str, shape: Json) -> dict[str, Json]:
    """A request whose record has an object beside its own fields."""
    found = record["post"]["requestBody"]["content"]["application/json"]["schema"]
    found["properties"][name] = shape
    found["required"] = [*found["required"], name]
    return record


_GRAPH = _object(format=TEXT, nodes=OBJECT)

PATHS: dict[str, Json] = {
    "/api/runs/tags/update": post("Replace a run's tags", bodies.UpdateTagsRequest, SUCCESS, 404),
    "/api/runs/logName/add": post("Register names to log under", bodies.AddLogNamesRequest, SUCCESS, 404),
    "/api/runs/alert": _with(
        post("Tell people something", bodies.AlertRequest, SUCCESS, 404), "alert", schema(bodies.Alert)
    ),
    "/api/runs/modelGraph/create": _with(
        post("Store the model's graph", bodies.ModelGraphRequest, SUCCESS, 404), "graph", _GRAPH
    ),
    "/ingest/metrics": _lines("Log numbers", _object(time=_TIME, step=WHOLE, data=_NUMBERS)),
    "/ingest/logs": _lines("Log console lines", _object(time=_TIME, message=TEXT, lineNumber=WHOLE, logType=_NAME)),
    "/ingest/data": _lines(
        "Log structured values", _object(time=_TIME, step=WHOLE, data=TEXT, dataType=_NAME, logName=_NAME)
    ),
    "/files": _announcing(),
    "/files/{file}": {
        "put": _signed("Send a file's bytes to its address", "text/plain", 400, 413),
        "get": _signed("Fetch a file from its address", "application/octet-stream"),
    },
    "/api/runs/projects": get("All projects", listed("projects", _PROJECT_ROW), []),
    "/api/runs/metric-names": get(
        "Names of a project's metrics",
        listed("metricNames", TEXT, projectName=TEXT),
        [_PROJECT, query("runIds"), query("search"), _limit()],
        400,
    ),
    "/api/runs/metrics": get(
        "A run's metrics point by point",
        listed("metrics", _POINT),
        [*_OF_RUN, *_NAMED, query("stepMin", WHOLE), query("stepMax", WHOLE), _limit(10_000)],
        400,
    ),
    "/api/runs/logs": get(
        "A run's console",
        listed("logs", _LINE, total=NUMBER),
        [*_OF_RUN, query("logType"), query("offset", WHOLE), _limit(10_000)],
        400,
    ),
    "/api/runs/data": get(
        "A run's structured values", listed("data", _DATUM), [*_OF_RUN, query("logName"), _limit(1000)], 400
    ),
    "/api/runs/files": get("A run's files, and where to fetch them", listed("files", _FILE), [*_OF_RUN, *_NAMED], 400),
    "/api/runs/statistics": get(
        "A run's metrics in numbers",
        listed("metrics", OBJECT, runId=NUMBER, runName=TEXT, projectName=TEXT, url=TEXT),
        [*_OF_RUN, *_NAMED],
        400,
        404,
    ),
    "/api/runs/compare": get(
        "One metric of several runs",
        listed("runs", OBJECT, projectName=TEXT, logName=TEXT, comparisonUrl=TEXT, summary=OBJECT),
        [_PROJECT, query("runIds", IDS, required=True), query("logName", required=True)],
        400,
    ),
    "/api/runs/leaderboard": get(
        "A project's runs, ranked by a metric",
        listed("runs", OBJECT, total=NUMBER),
        [*_RANKED, query("offset", WHOLE), _limit()],
        400,
    ),
}
