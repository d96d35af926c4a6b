"""The pieces of the OpenAPI document: schemas made of records' rules, and operations.

>>> from pluto_dist.contract.run_requests import TriggerRequest
>>> schema(TriggerRequest)["properties"]["runId"]["type"]
'number'
"""

from __future__ import annotations

import dataclasses

from pluto_dist.contract.validation import Json, Record, Rule

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
    "logName": "The name or names under which something is logged.",
    "logType": "What is logged under these names: METRIC, TEXT, IMAGE, HISTOGRAM, ...",
    "timestamp": "When it happened, in milliseconds since 1970.",
    "level": "How grave it is: INFO, WARNING, ERROR.",
    "title": "What it is about.",
    "body": "What it says.",
    "fileName": "What the file is called.",
    "fileSize": "How many bytes will come.",
    "fileType": "The name's ending, without the dot.",
    "time": "When it was logged, in milliseconds since 1970.",
    "step": "The step it was logged at.",
    "sampleIndex": "Its place in the list that it was logged in.",
    "caption": "What is written below it.",
    "annotations": "Boxes and masks, a JSON document as a string.",
}
TEXT: dict[str, Json] = {"type": "string"}
NUMBER: dict[str, Json] = {"type": "number"}
WHOLE: dict[str, Json] = {"type": "integer", "minimum": 0, "maximum": 2**53}
DISPLAY_ID: dict[str, Json] = {"type": "string", "pattern": "^[A-Za-z0-9]{1,4}-[0-9]{1,15}$"}
IDS: dict[str, Json] = {"type": "string", "pattern": "^[0-9]{1,15}(,[0-9]{1,15})*$"}
WHEN: dict[str, Json] = {"type": "string", "format": "date-time"}
OBJECT: dict[str, Json] = {"type": "object"}
SUCCESS: dict[str, Json] = {"type": "object", "properties": {"success": {"type": "boolean"}}, "required": ["success"]}


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


def post(summary: str, record: type[Record], answer: Json, *errors: int) -> dict[str, Json]:
    body = {"required": True, "content": {"application/json": {"schema": schema(record)}}}
    return {"post": {**operation(summary, answer, 400, 408, 413, 500, *errors), "requestBody": body}}


def query(name: str, shape: Json = TEXT, *, required: bool = False) -> dict[str, Json]:
    """A parameter in the query string."""
    return {"name": name, "in": "query", "required": required, "schema": shape}


def listed(name: str, item: Json, **more: Json) -> dict[str, Json]:
    """An answer that is an object with a list in it."""
    fields = {name: {"type": "array", "items": item}, **more}
    return {"type": "object", "properties": fields, "required": list(fields)}


def get(summary: str, answer: Json, parameters: list[Json], *errors: int) -> dict[str, Json]:
    return {"get": {**operation(summary, answer, *errors), "parameters": parameters}}


_ERRORS = {
    400: "The request cannot be used; says why",
    401: "The API key is missing or opens nothing",
    403: "The address is not signed for that, or has expired",
    404: "No such run",
    408: "The body did not arrive",
    409: "Several runs have this display id",
    413: "The body is too large",
    500: "Internal server error",
}


def operation(summary: str, answer: Json, *errors: int) -> dict[str, Json]:
    responses = {"200": response("Done", answer)}
    for status in sorted({401, *errors}):
        shapes = reference("Error")
        if status == 400:
            shapes = {"oneOf": [reference("Error"), reference("ValidationError")]}
        responses[str(status)] = response(_ERRORS[status], shapes)
    if "404" in responses:  # what no route takes is answered in plain text
        responses["404"]["content"]["text/plain"] = {"schema": TEXT}
    return {"summary": summary, "security": [{"bearerAuth": []}], "responses": responses}


def response(description: str, shape: Json) -> dict[str, Json]:
    return {"description": description, "content": {"application/json": {"schema": shape}}}


def reference(name: str) -> dict[str, Json]:
    return {"$ref": f"#/components/schemas/{name}"}
