"""Building blocks of declarations and of the OpenAPI document: schemas of values and records, and parameters.

>>> from pluto_dist.contract.run_requests import TriggerRequest
>>> schema(TriggerRequest)["properties"]["runId"]["type"]
'number'
"""

from __future__ import annotations

import dataclasses

from pluto_dist.contract.validation import Json, Record, Rule
from pluto_dist.server.settings import LARGEST_INTEGER

Schema = dict[str, Json]

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
    "logType": "The type of the values of these log names.",
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
    "notes": "A text about the run.",
    "annotations": "Boxes and masks, a JSON document as a string.",
}
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
UNSIGNED: Schema = {"type": "integer", "minimum": 0, "maximum": LARGEST_INTEGER}
DATE_TIME: Schema = {"type": "string", "format": "date-time"}
OBJECT: Schema = {"type": "object"}


def properties(record: type[Record]) -> dict[str, Schema]:
    """The fields of a record under their JSON names, each as an OpenAPI 3.0 schema."""
    rules: list[Rule] = [field.metadata["rule"] for field in dataclasses.fields(record)]
    return {rule.json: _property(rule) for rule in rules}


def schema(record: type[Record]) -> Schema:
    """The schema of a record."""
    required = [
        field.metadata["rule"].json for field in dataclasses.fields(record) if field.default is dataclasses.MISSING
    ]
    out: Schema = {"type": "object", "properties": properties(record)}
    return {**out, "required": required} if required else out


def _property(rule: Rule) -> Schema:
    out: Schema = {"type": rule.type}
    if rule.json in _DESCRIPTIONS:
        out["description"] = _DESCRIPTIONS[rule.json]
    if rule.nullable:
        out["nullable"] = True
    if rule.min_length:
        out["minLength"] = rule.min_length
    if rule.max_length:
        out["maxLength"] = rule.max_length
    if rule.type == "array":
        out["items"] = {"type": "string"}
    if rule.choices:
        out["enum"] = list(rule.choices)
    return out


def object_schema(**fields: Json) -> Schema:
    """The schema of an object with these fields, all of them required."""
    return {"type": "object", "properties": fields, "required": list(fields)}


def list_schema(name: str, item: Json, **more: Json) -> Schema:
    """The schema of an object with a list field ``name``, and with the fields ``more``."""
    return object_schema(**{name: {"type": "array", "items": item}, **more})


def reference(name: str) -> Schema:
    """The schema ``name`` of the document's components."""
    return {"$ref": f"#/components/schemas/{name}"}


def in_query(name: str, content: Json = TEXT, *, required: bool = False) -> Schema:
    """A parameter in the query string."""
    return {"name": name, "in": "query", "required": required, "schema": content}


def limit_in_query(maximum: int = LARGEST_INTEGER) -> Schema:
    """The parameter ``limit``. Endpoints without a maximum accept any limit and may return fewer items."""
    return in_query("limit", {"type": "integer", "minimum": 1, "maximum": maximum})


def in_path(name: str, content: Json) -> Schema:
    """A parameter in the path."""
    return {"name": name, "in": "path", "required": True, "schema": content}


SUCCESS = object_schema(success={"type": "boolean"})
PROJECT = in_query("projectName", required=True)
RUN_IN_QUERY = (in_query("runId", UNSIGNED, required=True), PROJECT)
RUN_IN_HEADER: Schema = {"name": "X-Run-Id", "in": "header", "required": True, "schema": UNSIGNED}
METRIC_FILTERS = (in_query("logName"), in_query("logGroup"))
