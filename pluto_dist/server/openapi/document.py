"""The OpenAPI document of the server, generated from the declarations of its endpoints.

Types, nullability, required fields and lengths of bodies come from the records in ``pluto_dist.contract`` that
validate the requests. This module adds the frame and the schemas that several endpoints share.
"""

from __future__ import annotations

from collections.abc import Iterable

from pluto_dist.contract import run_requests
from pluto_dist.contract.validation import Json
from pluto_dist.server.openapi.schemas import DATE_TIME, TEXT, Schema, reference, schema
from pluto_dist.server.routes.endpoint import JSON, JSON_LINES, PLAIN_TEXT, Endpoint
from pluto_dist.version import __version__

_ANY_DOCUMENT: Schema = {"nullable": True, "description": "Any JSON value."}
_KEY_ERRORS = (401, 500, 503)  # of every endpoint that needs the key, and so the database
_BODY_ERRORS = (400, 408, 413, 500)  # of every endpoint with a body
_ERRORS = {
    400: "The request is invalid",
    401: "The API key is missing or invalid",
    403: "The signature of the URL is invalid or has expired",
    404: "Not found",
    408: "Timeout while reading the body",
    409: "Several runs have this display id",
    413: "The body is too large",
    500: "Internal server error",
    503: "The database does not answer",
}


def document(public_url: str, endpoints: Iterable[Endpoint]) -> Schema:
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
        "paths": _paths(endpoints),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "bearerAuth": {"type": "http", "scheme": "bearer", "bearerFormat": "API Key"},
            },
        },
    }


def _schemas() -> Schema:
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
        "projectName": TEXT,
        "status": {"type": "string", "enum": list(run_requests.STATUSES)},
        "tags": {"type": "array", "items": TEXT},
        "createdAt": DATE_TIME,
    }
    more = {"externalId": {"type": "string", "nullable": True}, "updatedAt": DATE_TIME}
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
                    "properties": {**more, **dict.fromkeys(documents, _ANY_DOCUMENT), **lists},
                    "required": [*more, *documents, *lists],
                },
            ]
        },
    }


def _paths(endpoints: Iterable[Endpoint]) -> Schema:
    found: dict[str, Schema] = {}
    for endpoint in endpoints:
        if endpoint.in_document:
            found.setdefault(endpoint.template, {})[endpoint.method.lower()] = operation(endpoint)
    return found


def operation(endpoint: Endpoint) -> Schema:
    """The operation of an endpoint."""
    out: Schema = {"summary": endpoint.summary, "security": [{"bearerAuth": []}] if endpoint.needs_key else []}
    if endpoint.description:
        out["description"] = endpoint.description
    if endpoint.parameters:
        out["parameters"] = list(endpoint.parameters)
    body = _body(endpoint)
    if body is not None:
        out["requestBody"] = {"required": True, "content": body}
    return {**out, "responses": _responses(endpoint)}


def _body(endpoint: Endpoint) -> Schema | None:
    if endpoint.lines is not None:
        return _content(JSON_LINES, endpoint.lines)
    if endpoint.body is None:
        return None
    record = schema(endpoint.body)
    if endpoint.body_fields:
        record["properties"] = {**record["properties"], **endpoint.body_fields}
        record["required"] = [*record.get("required", ()), *endpoint.body_fields]
    return _content(JSON, record)


def _responses(endpoint: Endpoint) -> Schema:
    errors = {*endpoint.errors, *(_KEY_ERRORS if endpoint.needs_key else ())}
    if endpoint.body is not None or endpoint.lines is not None:
        errors.update(_BODY_ERRORS)
    responses: Schema = {"200": {"description": "Success", "content": _content(endpoint.answer_type, endpoint.answer)}}
    for status in sorted(errors):
        error = reference("Error")
        if status == 400:
            error = {"oneOf": [reference("Error"), reference("ValidationError")]}
        responses[str(status)] = {"description": _ERRORS[status], "content": _content(JSON, error)}
    if "404" in responses:  # a path that matches no route is answered in plain text
        responses["404"]["content"] |= _content(PLAIN_TEXT, TEXT)
    return responses


def _content(media_type: str, content: Json) -> Schema:
    return {media_type: {"schema": content}}
