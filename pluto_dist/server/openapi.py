"""The OpenAPI document of this server, composed from the rules in ``wire``.

Types, nullability, required fields and lengths are taken from the records that the server checks
requests with, so the document cannot say anything else. Here are only the words, and what a record
cannot know: paths, answers, and which of them need a key.

>>> schema(wire.TriggerRequest)["properties"]["runId"]["type"]
'number'
"""

from __future__ import annotations

import dataclasses

from pluto_dist import wire
from pluto_dist.version import __version__
from pluto_dist.wire import Json, Record, Rule

_ABOUT = {
    "runName": "What the run is called.",
    "projectName": "The project it belongs to; made when it does not exist.",
    "externalId": "The job's own id for its run: the same one in the same project is the same run.",
    "tags": "Labels of the run; at most 50, at most one of them starting with 'group:'.",
    "loggerSettings": "The logger's settings, a JSON document as a string.",
    "systemMetadata": "What the job runs on, a JSON document as a string; set by the call that makes the run.",
    "config": "The run's configuration, a JSON document as a string; merged key by key when the run exists.",
    "createdAt": "When the run began, in milliseconds since 1970.",
    "updatedAt": "When the run last changed, in milliseconds since 1970.",
    "forkRunId": "The run to branch off from, in the same project.",
    "forkStep": "The last step that is taken over from that run; needed with forkRunId.",
    "inheritConfig": "Whether a fork starts from its parent's config (default: true).",
    "inheritTags": "Whether a fork takes over its parent's tags (default: false).",
    "runId": "The run's number, unique over all projects.",
    "number": "The run's number within its project, counted from 1.",
    "displayId": "The id that people read: the project's prefix and the run's number, as in MMP-1.",
    "organizationSlug": "The organization that the API key opens.",
    "url": "The run's page.",
    "resumed": "Whether the run existed already.",
    "forkedFromRunId": "The run this one branched off from.",
    "status": "The run's state.",
    "statusMetadata": "More about the state, a JSON document as a string.",
    "statusUpdated": "When the state changed, in milliseconds since 1970.",
}
_TEXT: dict[str, Json] = {"type": "string"}
_WHEN: dict[str, Json] = {"type": "string", "format": "date-time"}
_ANY_DOCUMENT: dict[str, Json] = {"nullable": True, "description": "Any JSON value."}


def properties(record: type[Record]) -> dict[str, dict[str, Json]]:
    """The fields of a record under their JSON names, each as an OpenAPI 3.0 schema."""
    rules: list[Rule] = [field.metadata["rule"] for field in dataclasses.fields(record)]
    return {rule.json: _property(rule) for rule in rules}


def schema(record: type[Record]) -> dict[str, Json]:
    required = [
        field.metadata["rule"].json for field in dataclasses.fields(record) if field.default is dataclasses.MISSING
    ]
    out: dict[str, Json] = {"type": "object", "properties": properties(record)}
    return {**out, "required": required} if required else out


def document(public_url: str) -> dict[str, Json]:
    return {
        "openapi": "3.0.0",
        "info": {
            "title": "pluto-dist tracker",
            "version": __version__,
            "description": "The embedded experiment tracker: the hosted tracker's contract over one file.",
        },
        "servers": [{"url": public_url}],
        "security": [{"bearerAuth": []}],
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "bearerAuth": {"type": "http", "scheme": "bearer", "bearerFormat": "API Key"},
            },
        },
    }


def _property(rule: Rule) -> dict[str, Json]:
    out: dict[str, Json] = {"type": rule.type, "description": _ABOUT[rule.json]}
    if rule.nullable:
        out["nullable"] = True
    if rule.min_length:
        out["minLength"] = rule.min_length
    if rule.type == "array":
        out["items"] = {"type": "string"}
    if rule.choices:
        out["enum"] = list(rule.choices)
    return out


def _schemas() -> dict[str, Json]:
    issue = {
        "type": "object",
        "properties": {"code": _TEXT, "message": _TEXT, "path": {"type": "array", "items": {}}},
        "required": ["code", "message", "path"],
    }
    issues = {"type": "object", "properties": {"name": _TEXT, "issues": {"type": "array", "items": issue}}}
    listed = {
        "id": {"type": "number"},
        "name": _TEXT,
        "number": {"type": "number", "nullable": True},
        "displayId": {"type": "string", "nullable": True},
        "externalId": {"type": "string", "nullable": True},
        "status": {"type": "string", "enum": list(wire.STATUSES)},
        "tags": {"type": "array", "items": _TEXT},
        "createdAt": _WHEN,
        "updatedAt": _WHEN,
    }
    documents = ("config", "systemMetadata", "loggerSettings", "statusMetadata")
    lists = {name: {"type": "array", "items": {"type": "object"}} for name in ("statusHistory", "attaches")}
    return {
        "CreateRunResponse": schema(wire.CreateRunResponse),
        "Error": {"type": "object", "properties": {"error": _TEXT}, "required": ["error"]},
        "ValidationError": {
            "type": "object",
            "properties": {"success": {"type": "boolean"}, "error": issues},
            "required": ["success", "error"],
        },
        "Run": {"type": "object", "properties": listed, "required": list(listed)},
        "RunDetails": {
            "allOf": [
                _reference("Run"),
                {
                    "type": "object",
                    "properties": {"projectName": _TEXT, **dict.fromkeys(documents, _ANY_DOCUMENT), **lists},
                    "required": ["projectName", *documents, *lists],
                },
            ]
        },
    }


def _paths() -> dict[str, Json]:
    success = {"type": "object", "properties": {"success": {"type": "boolean"}}, "required": ["success"]}
    landed = _reference("CreateRunResponse")
    status = {"type": "object", "properties": {"status": _TEXT, "triggers": {"nullable": True}}}
    listing = {
        "type": "object",
        "properties": {
            "runs": {"type": "array", "items": _reference("Run")},
            "total": {"type": "number"},
        },
        "required": ["runs", "total"],
    }
    project = {"name": "projectName", "in": "query", "schema": _TEXT}
    limit = {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 200}}
    run_id = {"name": "id", "in": "path", "required": True}
    number, text = {**run_id, "schema": {"type": "number"}}, {**run_id, "schema": _TEXT}
    details = _reference("RunDetails")
    objects = {"type": "object"}
    return {
        "/api/runs/create": _post(
            "Create a run, or join the one that has this externalId", wire.CreateRunRequest, landed
        ),
        "/api/runs/resume": _post("Go on with an existing run", wire.ResumeRunRequest, landed, 404, 409),
        "/api/runs/status/update": _post("Set a run's status", wire.UpdateStatusRequest, success, 404),
        "/api/runs/config/update": _post("Merge into a run's config", wire.UpdateConfigRequest, success, 404),
        "/api/runs/trigger": _post("Heartbeat of a run", wire.TriggerRequest, status, 404),
        "/api/runs/details/{id}": _get("Everything about a run", details, [number], 400, 404),
        "/api/runs/details/by-display-id/{id}": _get(
            "The same, by display id", details, [text, project], 400, 404, 409
        ),
        "/api/runs/list": _get("A project's runs, newest first", listing, [{**project, "required": True}, limit], 400),
        "/api/runs/auth/validate": _get("Whether the API key is valid", objects, []),
        "/api/slug": {"post": _operation("Which organization the API key opens", objects)},
        "/api/health": {
            "get": {
                "summary": "Whether the server answers",
                "security": [],
                "responses": {"200": {"description": "It does", "content": {"text/plain": {"schema": _TEXT}}}},
            }
        },
    }


def _post(summary: str, record: type[Record], answer: Json, *errors: int) -> dict[str, Json]:
    body = {"required": True, "content": {"application/json": {"schema": schema(record)}}}
    return {"post": {**_operation(summary, answer, 400, 413, 500, *errors), "requestBody": body}}


def _get(summary: str, answer: Json, parameters: list[Json], *errors: int) -> dict[str, Json]:
    return {"get": {**_operation(summary, answer, *errors), "parameters": parameters}}


_ERRORS = {
    400: "The request cannot be used; says why",
    401: "The API key is missing or opens nothing",
    404: "No such run",
    409: "Several runs have this display id",
    413: "The body is too large",
    500: "Internal server error",
}


def _operation(summary: str, answer: Json, *errors: int) -> dict[str, Json]:
    responses = {"200": _response("Done", answer)}
    for status in sorted({401, *errors}):
        shapes = _reference("Error")
        if status == 400:
            shapes = {"oneOf": [_reference("Error"), _reference("ValidationError")]}
        responses[str(status)] = _response(_ERRORS[status], shapes)
    return {"summary": summary, "security": [{"bearerAuth": []}], "responses": responses}


def _response(description: str, shape: Json) -> dict[str, Json]:
    return {"description": description, "content": {"application/json": {"schema": shape}}}


def _reference(name: str) -> dict[str, Json]:
    return {"$ref": f"#/components/schemas/{name}"}
