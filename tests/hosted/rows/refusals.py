"""Rows about requests that the hosted tracker refuses, or fails at, in its own way."""

from __future__ import annotations

import math
import re
from typing import Any

from hosted.layer import NO_ROUTE, Answer, Call, Proceed, Row, answer, failure, refused
from hosted.rows.creation import creates
from hosted.rows.status import called_run, clears
from pluto_dist.contract.run_requests import (
    LATEST_MS,
    NAME_LIMIT,
    ResumeRunRequest,
    TriggerRequest,
    UpdateConfigRequest,
    UpdateStatusRequest,
)
from pluto_dist.contract.validation import parse_document, unstorable, unstorable_in

DEPTH = 124  # of nested arrays and objects in JSONB
INT4, INT8 = 2**31, 2**63
_DISPLAY_ID = re.compile(r"[A-Za-z0-9]+-(\d+)")


def unstorable_document(text: Any) -> bool:
    """Whether a document is JSON that Postgres cannot store: a NUL, a lone surrogate, or nested too deep."""
    if not isinstance(text, str) or not text:
        return False
    return bool(unstorable_in(text)) or _depth(text) >= DEPTH


def _depth(text: str) -> int:
    try:
        value = parse_document(text)
    except ValueError:
        return DEPTH if text.count("[") + text.count("{") > 900 else 0  # Python's own parser gives up below 1,000
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, (dict, list))]:
        depth += 1
        level = [part for each in level for part in (each.values() if isinstance(each, dict) else each)]
    return depth


class UnstorableStatus(Row):
    name = "500 for what JSONB cannot hold"
    does = "a NUL, a lone surrogate or nesting of 124 in statusMetadata or loggerSettings: 500, nothing is written"
    measured = "facts 11.3"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        body = call.body or {}
        documents = [body.get(name) for name in ("statusMetadata", "loggerSettings")]
        if (
            called_run(call) is None
            or not call.is_post("status/update")
            or not any(map(unstorable_document, documents))
        ):
            return await proceed(call)
        # Everything else comes first: the ends of lower precedence and the documents that are no JSON.
        others = {
            name: None
            for name, text in zip(("statusMetadata", "loggerSettings"), documents, strict=True)
            if unstorable_document(text)
        }
        run = called_run(call)
        if run is not None and run.status != body["status"] and body["status"] != "RUNNING":
            order = ("RUNNING", "COMPLETED", "TERMINATED", "CANCELLED", "FAILED")
            if order.index(body["status"]) < order.index(run.status):
                return await proceed(call.with_body(**others))
        try:
            for text in documents:
                parse_document(text or "null")
        except ValueError:
            if any(isinstance(text, str) and not unstorable_document(text) for text in documents):
                return await proceed(call)
        return failure()


class UnstorableCreate(Row):
    name = "500 for a run that cannot be stored"
    does = "what Postgres cannot hold in a new run: 500 Failed to create run, and the number is lost; a resume drops it"
    measured = "facts 1"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        wanted = creates(call)
        if wanted is None:
            return await proceed(call)
        organization, body = wanted
        project, external_id = body["projectName"], body.get("externalId")
        dates = [body.get(name) or 0 for name in ("createdAt", "updatedAt")]
        if any(unstorable(text or "") for text in (project, external_id)) or len(project) > NAME_LIMIT:
            return failure()
        if called_run(call) is not None:
            config = body.get("config")
            if config and config != "null" and _is_no_json(config):
                return failure()
            return await proceed(call.with_body(config=None) if unstorable_document(config) else call)
        if any(at > LATEST_MS for at in dates):
            return failure()
        texts = [body["runName"], *(body.get("tags") or ())]
        documents = [body.get(name) for name in ("config", "systemMetadata", "loggerSettings")]
        if (
            max(len(body["runName"]), len(external_id or "")) > NAME_LIMIT
            or any(map(unstorable, texts))
            or any(map(unstorable_document, documents))
        ):
            if call.facts.at_limit or any(text and _is_no_json(text) for text in documents):
                return await proceed(call)
            call.facts.burn_number(organization, project)
            return failure("Failed to create run")
        return await proceed(call)


def _is_no_json(text: str) -> bool:
    try:
        parse_document(text)
    except ValueError:
        return _depth(text) < DEPTH
    return False


class NumbersOutOfRange(Row):
    name = "500 for numbers out of range"
    does = "a display id beyond int4, a runId beyond int8 or with a fraction: 500"
    measured = "facts 4, 11.4"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        if call.organization is None:
            return await proceed(call)
        numbers: list[Any] = []
        body = call.body or {}
        if (
            (call.is_post("resume") and call.fits(ResumeRunRequest))
            or (call.is_post("status/update") and call.fits(UpdateStatusRequest))
            or (call.is_post("config/update") and call.fits(UpdateConfigRequest))
            or (call.is_post("trigger") and call.fits(TriggerRequest))
        ):
            numbers.append(body.get("runId"))
        last = call.path.rpartition("/")[2]
        if call.is_get("details/") and not call.is_get("details/by-display-id/"):
            numbers.append(_number(last))
        display_id = body.get("displayId") if call.is_post("resume") and call.fits(ResumeRunRequest) else None
        if call.is_get("details/by-display-id/"):
            display_id = last
        found = _DISPLAY_ID.fullmatch(display_id or "")
        if (found and int(found[1]) >= INT4) or any(_is_out_of_range(number) for number in numbers):
            return failure()
        return await proceed(call)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _is_out_of_range(number: float | None) -> bool:
    if number is None or (isinstance(number, float) and math.isnan(number)):
        return False
    return abs(number) >= INT8 or number != int(number)


class ResumeShapes(Row):
    name = "shapes of /resume"
    does = 'an id that is null counts as given and is refused by type; externalId "" is looked for: 404'
    measured = "facts 11.11; web/server/routes/runs-openapi.ts"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        if not call.is_post("resume") or call.body is None:
            return await proceed(call)
        body = call.body
        for name, expected in (
            ("runId", "number"),
            *((n, "string") for n in ("displayId", "externalId", "projectName")),
        ):
            if name in body and body[name] is None:
                return refused(name, expected, "null")
        if body.get("externalId") == "" and not {"runId", "displayId"} & body.keys():
            if not body.get("projectName"):
                return answer(400, {"error": "projectName is required when using externalId"})
            return answer(404, {"error": "Run not found"})
        return await proceed(call)


class ConfigUpdateShapes(Row):
    name = "shapes of config/update"
    does = "an array or a scalar is refused with 'expected an object', null by type; what JSONB cannot hold is 500"
    measured = "facts 11.11; web/server/routes/runs-openapi.ts"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        if not call.is_post("config/update") or call.body is None:
            return await proceed(call)
        config = call.body.get("config", "")
        if config is None:
            return refused("config", "string", "null")
        if not call.fits(UpdateConfigRequest) or call.facts.run(call.body["runId"], call.organization) is None:
            return await proceed(call)
        if not config or config == "null":
            return answer(200, {"success": True})
        if unstorable_document(config):
            return failure()
        if not _is_no_json(config) and not isinstance(parse_document(config), dict):
            return answer(400, {"error": "Invalid config JSON: expected an object"})
        return await proceed(call)


class NoEmbeddedEndpoints(Row):
    name = "no endpoints of the embedded tracker"
    does = "/api/runs/{id}/attempts and /api/runs/data: 404"
    measured = "web/server/routes/runs-openapi.ts"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        if re.fullmatch(r"/api/runs/([^/]+/attempts|data)", call.path):
            return NO_ROUTE
        return await proceed(call)


__all__ = [
    "ConfigUpdateShapes",
    "NoEmbeddedEndpoints",
    "NumbersOutOfRange",
    "ResumeShapes",
    "UnstorableCreate",
    "UnstorableStatus",
    "clears",
]
