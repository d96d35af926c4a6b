"""The OpenAPI document of the server, generated from the records in ``pluto_dist.contract``.

Types, nullability, required fields and lengths come from the records that validate the requests. This
module adds summaries, paths, responses and security requirements.
"""

from __future__ import annotations

from pluto_dist.contract import run_requests
from pluto_dist.contract.validation import Json
from pluto_dist.server.openapi import sdk_paths
from pluto_dist.server.openapi.schemas import (
    DATE_TIME,
    DISPLAY_ID,
    OBJECT,
    SUCCESS,
    TEXT,
    UNSIGNED,
    get,
    operation,
    post,
    query,
    reference,
    schema,
)
from pluto_dist.server.settings import RUNS_PER_PAGE
from pluto_dist.version import __version__

_ANY_DOCUMENT: dict[str, Json] = {"nullable": True, "description": "Any JSON value."}


def document(public_url: str) -> dict[str, Json]:
    """The document that ``/api/openapi.json`` serves."""
    return {
        "openapi": "3.0.0",
        "info": {
            "title": "pluto-dist tracker",
            "version": __version__,
            "description": "The embedded experiment tracker: the hosted tracker's contract over one file.",
        },
        "servers": [{"url": public_url}],
        "security": [{"bearerAuth": []}],
        "paths": {**_paths(), **sdk_paths.PATHS},
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "bearerAuth": {"type": "http", "scheme": "bearer", "bearerFormat": "API Key"},
            },
        },
    }


def _schemas() -> dict[str, Json]:
    issue = {
        "type": "object",
        "properties": {"code": TEXT, "message": TEXT, "path": {"type": "array", "items": {}}},
        "required": ["code", "message", "path"],
    }
    issues = {"type": "object", "properties": {"name": TEXT, "issues": {"type": "array", "items": issue}}}
    listed = {
        "id": {"type": "number"},
        "name": TEXT,
        "number": {"type": "number", "nullable": True},
        "displayId": {"type": "string", "nullable": True},
        "externalId": {"type": "string", "nullable": True},
        "status": {"type": "string", "enum": list(run_requests.STATUSES)},
        "tags": {"type": "array", "items": TEXT},
        "createdAt": DATE_TIME,
        "updatedAt": DATE_TIME,
    }
    documents = ("config", "systemMetadata", "loggerSettings", "statusMetadata")
    lists = {name: {"type": "array", "items": {"type": "object"}} for name in ("statusHistory", "attaches")}
    return {
        "CreateRunResponse": schema(run_requests.CreateRunResponse),
        "Error": {"type": "object", "properties": {"error": TEXT}, "required": ["error"]},
        "ValidationError": {
            "type": "object",
            "properties": {"success": {"type": "boolean"}, "error": issues},
            "required": ["success", "error"],
        },
        "Run": {"type": "object", "properties": listed, "required": list(listed)},
        "RunDetails": {
            "allOf": [
                reference("Run"),
                {
                    "type": "object",
                    "properties": {"projectName": TEXT, **dict.fromkeys(documents, _ANY_DOCUMENT), **lists},
                    "required": ["projectName", *documents, *lists],
                },
            ]
        },
    }


def _paths() -> dict[str, Json]:
    created = reference("CreateRunResponse")
    status = {"type": "object", "properties": {"status": TEXT, "triggers": {"nullable": True}}}
    listing = {
        "type": "object",
        "properties": {
            "runs": {"type": "array", "items": reference("Run")},
            "total": {"type": "number"},
        },
        "required": ["runs", "total"],
    }
    project = {"name": "projectName", "in": "query", "schema": TEXT}
    limit = {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": RUNS_PER_PAGE}}
    filters = [query(name) for name in ("search", "tags", "filter", "sort", "offset")]
    run_id = {"name": "id", "in": "path", "required": True}
    number, text = {**run_id, "schema": UNSIGNED}, {**run_id, "schema": DISPLAY_ID}
    details = reference("RunDetails")
    code = {"name": "code", "in": "path", "required": True}
    decoded: dict[str, Json] = {"type": "object", "properties": {"runId": {"type": "number"}}, "required": ["runId"]}
    return {
        "/api/runs/create": post(
            "Create a run, or resume the run with this externalId", run_requests.CreateRunRequest, created
        ),
        "/api/runs/resume": post("Resume an existing run", run_requests.ResumeRunRequest, created, 404, 409),
        "/api/runs/status/update": post("Update a run's status", run_requests.UpdateStatusRequest, SUCCESS, 404),
        "/api/runs/config/update": post("Merge into a run's config", run_requests.UpdateConfigRequest, SUCCESS, 404),
        "/api/runs/trigger": post("Send a heartbeat of a run", run_requests.TriggerRequest, status, 404),
        "/api/runs/details/{id}": get("Get a run", details, [number], 400, 404),
        "/api/runs/details/by-display-id/{id}": get(
            "Get a run by its display id", details, [text, project], 400, 404, 409
        ),
        "/api/runs/list": get(
            "List a project's runs, newest first", listing, [{**project, "required": True}, *filters, limit], 400
        ),
        "/api/runs/{code}": get("Decode a sqid to a run's number", decoded, [{**code, "schema": TEXT}], 404),
        "/api/runs/auth/validate": get("Validate the API key", OBJECT, []),
        "/api/slug": {"post": operation("Get the API key's organization", OBJECT)},
        "/api/health": {
            "get": {
                "summary": "Health check",
                "security": [],
                "responses": {
                    "200": {"description": "The server is healthy", "content": {"text/plain": {"schema": TEXT}}}
                },
            }
        },
    }
