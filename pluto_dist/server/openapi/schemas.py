"""Building blocks of the OpenAPI document: schemas of records, parameters, operations and responses.

>>> from pluto_dist.contract.run_requests import TriggerRequest
>>> schema(TriggerRequest)["properties"]["runId"]["type"]
'number'
"""

from __future__ import annotations

import dataclasses

from pluto_dist.contract.validation import Json, Record, Rule
from pluto_dist.server.settings import LARGEST_INTEGER

_DESCRIPTIONS = {
    "runName": "The run's name.",
    "projectName": "The run's project; created if it does not exist.",
    "externalId": "The job's own id of its run, unique in the project: a second create with it resumes the run.",
    "tags": "Labels of the run; at most 50, at most one of them starting with 'group:'.",
    "loggerSettings": "The logger's settings, a JSON document as a string.",
    "systemMetadata": "The job's hardware and software, a JSON document as a string; set only when the run is created.",
    "config": "The run's configuration, a JSON document as a string; merged key by key if the run exists.",
    "createdAt": "When the run was created, in milliseconds since 1970.",
    "updatedAt": "When the run last changed, in milliseconds since 1970.",
    "forkRunId": "The run to fork, in the same project.",
    "forkStep": "The last step that is inherited from that run; required with forkRunId.",
    "inheritConfig": "Whether a fork inherits its parent's config (default: true).",
    "inheritTags": "Whether a fork inherits its parent's tags (default: false).",
    "runId": "The run's number, unique over all projects.",
    "number": "The run's number within its project, counted from 1.",
    "displayId": "The project's prefix and the run's number in the project, as in MMP-1.",
    "organizationSlug": "The organization of the API key.",
    "url": "The URL of the run's page.",
    "resumed": "Whether the run existed before.",
    "forkedFromRunId": "The run that this one is a fork of.",
    "status": "The run's status.",
    "statusMetadata": "Details of the status, a JSON document as a string.",
    "statusUpdated": "When the status changed, in milliseconds since 1970.",
    "logName": "The log name or log names.",
    "logType": "The type of the values of these log names: METRIC, TEXT, IMAGE, HISTOGRAM, ...",
    "timestamp": "When the alert occurred, in milliseconds since 1970.",
    "level": "The severity: INFO, WARNING, ERROR.",
    "title": "The title of the alert.",
    "body": "The text of the alert.",
    "fileName": "The name of the file.",
    "fileSize": "The size of the file in bytes.",
    "fileType": "The file name extension, without the dot.",
    "time": "When it was logged, in milliseconds since 1970.",
    "step": "The step it was logged at.",
    "sampleIndex": "The index in the list that the file was logged in.",
    "caption": "The caption of the file.",
    "annotations": "Boxes and masks, a JSON document as a string.",
}
TEXT: dict[str, Json] = {"type": "string"}
NUMBER: dict[str, Json] = {"type": "number"}
UNSIGNED: dict[str, Json] = {"type": "integer", "minimum": 0, "maximum": LARGEST_INTEGER}
DISPLAY_ID: dict[str, Json] = {"type": "string", "pattern": "^[A-Za-z0-9]{1,4}-[0-9]{1,15}$"}
IDS: dict[str, Json] = {"type": "string", "pattern": "^[0-9]{1,15}(,[0-9]{1,15})*$"}
DATE_TIME: dict[str, Json] = {"type": "string", "format": "date-time"}
OBJECT: dict[str, Json] = {"type": "object"}
SUCCESS: dict[str, Json] = {"type": "object", "properties": {"success": {"type": "boolean"}}, "required": ["success"]}


def properties(record: type[Record]) -> dict[str, dict[str, Json]]:
    """The fields of a record under their JSON names, each as an OpenAPI 3.0 schema."""
    rules: list[Rule] = [field.metadata["rule"] for field in dataclasses.fields(record)]
    return {rule.json: _property(rule) for rule in rules}


def schema(record: type[Record]) -> dict[str, Json]:
    """The schema of a record."""
    required = [
        field.metadata["rule"].json for field in dataclasses.fields(record) if field.default is dataclasses.MISSING
    ]
    out: dict[str, Json] = {"type": "object", "properties": properties(record)}
    return {**out, "required": required} if required else out


def _property(rule: Rule) -> dict[str, Json]:
    out: dict[str, Json] = {"type": rule.type, "description": _DESCRIPTIONS[rule.json]}
    if rule.nullable:
        out["nullable"] = True
    if rule.min_length:
        out["minLength"] = rule.min_length
    if rule.type == "array":
        out["items"] = {"type": "string"}
    if rule.choices:
        out["enum"] = list(rule.choices)
    return out


def post(summary: str, record: type[Record], content: Json, *errors: int) -> dict[str, Json]:
    """A POST operation with a JSON body, the schema of its response and its error statuses."""
    body = {"required": True, "content": {"application/json": {"schema": schema(record)}}}
    return {"post": {**operation(summary, content, 400, 408, 413, 500, *errors), "requestBody": body}}


def query(name: str, content: Json = TEXT, *, required: bool = False) -> dict[str, Json]:
    """A parameter in the query string."""
    return {"name": name, "in": "query", "required": required, "schema": content}


def list_schema(name: str, item: Json, **more: Json) -> dict[str, Json]:
    """The schema of an object with a list field ``name``, and with the fields ``more``."""
    fields = {name: {"type": "array", "items": item}, **more}
    return {"type": "object", "properties": fields, "required": list(fields)}


def get(summary: str, content: Json, parameters: list[Json], *errors: int) -> dict[str, Json]:
    """A GET operation."""
    return {"get": {**operation(summary, content, *errors), "parameters": parameters}}


_ERRORS = {
    400: "The request is invalid",
    401: "The API key is missing or invalid",
    403: "The signature of the URL is invalid or has expired",
    404: "Not found",
    408: "Timeout while reading the body",
    409: "Several runs have this display id",
    413: "The body is too large",
    500: "Internal server error",
}


def operation(summary: str, content: Json, *errors: int) -> dict[str, Json]:
    """An operation that requires the API key."""
    responses = {"200": response("Success", content)}
    for status in sorted({401, *errors}):
        error = reference("Error")
        if status == 400:
            error = {"oneOf": [reference("Error"), reference("ValidationError")]}
        responses[str(status)] = response(_ERRORS[status], error)
    if "404" in responses:  # a path that matches no route is answered in plain text
        responses["404"]["content"]["text/plain"] = {"schema": TEXT}
    return {"summary": summary, "security": [{"bearerAuth": []}], "responses": responses}


def response(description: str, content: Json) -> dict[str, Json]:
    return {"description": description, "content": {"application/json": {"schema": content}}}


def reference(name: str) -> dict[str, Json]:
    return {"$ref": f"#/components/schemas/{name}"}
