"""Rows about requests that the hosted tracker refuses, or fails at, in its own way."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from hosted.layer import NO_ROUTE, Answer, Call, Proceed, Row, answer, failure
from hosted.rows.creation import creates
from hosted.rows.status import called_run
from pluto_dist.contract.run_requests import (
    LATEST_MS,
    NAME_LIMIT,
    ResumeRunRequest,
    TriggerRequest,
    UpdateConfigRequest,
    UpdateStatusRequest,
)
from pluto_dist.contract.validation import Record, parse_document, unstorable, unstorable_in
from pluto_dist.server.db.display_id import decode_sqid
from pluto_dist.server.db.records import allows_transition

DEPTH = 124  # of nested arrays and objects in JSONB
INT4, INT8 = 2**31, 2**63
_DISPLAY_ID = re.compile(r"[A-Za-z0-9]+-(\d+)")
_BY_RUN: tuple[tuple[str, type[Record]], ...] = (
    ("resume", ResumeRunRequest),
    ("status/update", UpdateStatusRequest),
    ("config/update", UpdateConfigRequest),
    ("trigger", TriggerRequest),
)


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
    measured = "sections 1, 11.3"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        run, body = called_run(call), call.body or {}
        documents = {name: body.get(name) for name in ("statusMetadata", "loggerSettings")}
        bad = [name for name, text in documents.items() if unstorable_document(text)]
        is_late = call.is_post("status/update") and run is not None and (body.get("statusUpdated") or 0) > LATEST_MS
        if not call.is_post("status/update") or run is None or not (bad or is_late):
            return await proceed(call)
        is_ignored = not allows_transition(run.status, body["status"])
        if is_ignored or any(_is_no_json(text or "null") for text in documents.values()):
            return await proceed(call.with_body(**dict.fromkeys(bad), statusUpdated=None))
        return failure()


class UnstorableCreate(Row):
    name = "500 for a run that cannot be stored"
    does = "what Postgres cannot hold in a new run: 500 Failed to create run, and the number is lost; a resume drops it"
    measured = "section 1"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        wanted = creates(call)
        if wanted is None:
            return await proceed(call)
        organization, body = wanted
        if called_run(call) is not None:
            return await self._resumed(call, proceed)
        texts = (body["projectName"], body.get("externalId") or "")
        dates = [body.get(name) or 0 for name in ("createdAt", "updatedAt")]
        if any(map(unstorable, texts)) or len(body["projectName"]) > NAME_LIMIT or max(dates) > LATEST_MS:
            return failure()
        documents = [body.get(name) for name in ("config", "systemMetadata", "loggerSettings")]
        if not _holds_unstorable(body, documents) or any(text and _is_no_json(text) for text in documents):
            return await proceed(call)
        call.facts.burn_number(organization, body["projectName"])
        return failure("Failed to create run")

    async def _resumed(self, call: Call, proceed: Proceed) -> Answer:
        """Nothing but the config is looked at."""
        config = (call.body or {}).get("config")
        if config and config != "null" and _is_no_json(config):
            return failure()
        return await proceed(call.with_body(config=None) if unstorable_document(config) else call)


def _holds_unstorable(body: dict[str, Any], documents: list[Any]) -> bool:
    texts = [body["runName"], *(body.get("tags") or ())]
    is_long = max(len(body["runName"]), len(body.get("externalId") or "")) > NAME_LIMIT
    return is_long or any(map(unstorable, texts)) or any(map(unstorable_document, documents))


def _is_no_json(text: str) -> bool:
    try:
        parse_document(text)
    except ValueError:
        return _depth(text) < DEPTH
    return False


class NumbersOutOfRange(Row):
    name = "500 for numbers out of range"
    does = "a display id beyond int4, a runId beyond int8 or with a fraction, a fork with a fraction: 500"
    measured = "sections 1, 4, 11.4"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        if call.organization is None:
            return await proceed(call)
        numbers = _numbers_in_body(call)
        if call.is_get("details/") and not call.is_get("details/by-display-id/"):
            numbers.append(_number(call.path.rpartition("/")[2]))
        found = _DISPLAY_ID.fullmatch(_display_id(call) or "")
        if (found and int(found[1]) >= INT4) or any(map(_is_out_of_range, numbers)):
            return failure()
        return await proceed(call)


def _display_id(call: Call) -> str | None:
    if call.is_get("details/by-display-id/"):
        return call.path.rpartition("/")[2]
    has_one = call.is_post("resume") and call.fits(ResumeRunRequest)
    return (call.body or {}).get("displayId") if has_one else None


def _numbers_in_body(call: Call) -> list[Any]:
    body = call.body or {}
    if creates(call) is not None:
        is_fork = body.get("forkRunId") and body.get("forkStep") is not None and called_run(call) is None
        return [body["forkRunId"], body["forkStep"]] if is_fork else []
    return [body.get("runId")] if any(call.is_post(path) and call.fits(record) for path, record in _BY_RUN) else []


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
    measured = "section 11.11; web/server/routes/runs-openapi.ts"

    async def undo(self, call: Call, proceed: Proceed) -> Answer:
        if not call.is_post("resume") or call.body is None:
            return await proceed(call)
        return await proceed(dataclasses.replace(call, body={k: v for k, v in call.body.items() if v is not None}))


class DisplayIdsAreAscii(Row):
    name = "display ids are ASCII"
    does = "a display id with a prefix beyond ASCII is refused, also where the server itself gave it: 400"
    measured = "web/server/lib/run-prefix.ts"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        display_id = _display_id(call)
        if display_id is not None and not _DISPLAY_ID.fullmatch(display_id):
            return answer(400, {"error": "Invalid displayId format. Expected PREFIX-NUMBER (e.g., 'MMP-1')"})
        return await proceed(call)


class UnstorableTexts(Row):
    name = "500 for texts that cannot be stored"
    does = "a NUL or a lone surrogate in an id of /resume or in notes: 500"
    measured = "section 1"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        texts = [(call.body or {}).get(name) for name in ("externalId", "projectName", "notes")]
        if call.is_post("resume", "notes/update") and any(isinstance(text, str) and unstorable(text) for text in texts):
            return failure()
        return await proceed(call)


class UnstorableConfig(Row):
    name = "500 for a config that cannot be stored"
    does = "config/update with what JSONB cannot hold: 500, nothing is written"
    measured = "section 1"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        if call.is_post("config/update") and call.fits(UpdateConfigRequest):
            body = call.body or {}
            if unstorable_document(body["config"]) and call.facts.run(body["runId"], call.organization) is not None:
                return failure()
        return await proceed(call)


class BodiesWithoutType(Row):
    name = "500 without a JSON Content-Type"
    does = "a body whose Content-Type is not JSON is not validated: 500"
    measured = "section 1"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        is_json = re.match(r"application/([a-z.+-]*\+)?json\b", call.media_type)
        is_concerned = call.path in ("/api/runs/create", "/api/runs/resume", "/api/runs/status/update")
        if is_concerned and call.method == "POST" and call.organization is not None and not is_json:
            return failure()
        return await proceed(call)


class NoEmbeddedEndpoints(Row):
    name = "no endpoints of the embedded tracker"
    does = "/api/runs/{id}/attempts and DELETE of a run are 404, and /api/runs/data a sqid"
    measured = "web/server/routes/runs-openapi.ts"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        if re.fullmatch(r"/api/runs/[^/]+/attempts", call.path) or call.method == "DELETE":
            return NO_ROUTE
        if call.path == "/api/runs/data":
            return answer(200, {"runId": decode_sqid("data")})
        return await proceed(call)
