"""Rows about what the hosted tracker's answers hold."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hosted.layer import NO_ROUTE, Answer, Call, Proceed, Row

DETAILS = (
    *("id", "name", "number", "displayId", "status", "tags", "config", "systemMetadata", "loggerSettings"),
    *("statusMetadata", "createdAt", "updatedAt", "statusUpdated", "projectName", "externalId"),
    *("forkedFromRunId", "forkStep", "logNames"),
)
_PRINTED_WHOLE = 1e21  # JavaScript writes larger numbers with an exponent


class Details(Row):
    name = "details without heartbeats"
    does = "details have no heartbeats, attaches, history or address"
    measured = "section 4; web/server/routes/runs-openapi.ts"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        found = await proceed(call)
        if not call.is_get("details/") or found.status != 200:
            return found
        return found.with_json({name: value for name, value in found.json.items() if name in DETAILS})


class ListItems(Row):
    name = "short items of /list"
    does = "items of /list have projectName, but neither externalId nor config nor updatedAt"
    measured = "section 11.11; web/server/routes/runs-openapi.ts"

    async def undo(self, call: Call, proceed: Proceed) -> Answer:
        found = await proceed(call)
        if call.path != "/api/runs/list" or found.status != 200:
            return found
        runs = [{**item, "config": run.config} for item in found.json["runs"] if (run := call.facts.run(item["id"]))]
        return found.with_json(found.json | {"runs": runs})


class SixteenDigits(Row):
    name = "numbers have 16 digits"
    does = "numbers in documents come back rounded to 16 digits, and those without a fraction as integers"
    measured = "sections 1, 11.8"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        found = await proceed(call)
        if not (call.is_get("details/") or call.is_get("status/history")) or found.status != 200:
            return found
        return found.with_json(rounded(found.json))


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    if not isinstance(value, float):
        return value
    digits = f"{value:.16g}"
    return int(Decimal(digits)) if value.is_integer() and abs(value) < _PRINTED_WHOLE else float(digits)


class _Endpoint(Row):
    path: str

    async def undo(self, call: Call, proceed: Proceed) -> Answer:
        return NO_ROUTE if call.path == f"/api/runs/{self.path}" else await proceed(call)


class History(_Endpoint):
    name = "status/history"
    does = "GET /status/history has every change with fromStatus, toStatus, source and what came with it"
    measured = "section 11.12; web/server/routes/runs-openapi.ts"
    path = "status/history"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        """The embedded tracker's, with the source of the monitor's changes, which it does not have."""
        found = await proceed(call)
        if call.path != f"/api/runs/{self.path}" or found.status != 200:
            return found
        monitored = call.facts.changes_by("stale-monitor")
        events = [e | {"source": "stale-monitor"} if int(e["id"]) in monitored else e for e in found.json["events"]]
        return found.with_json(found.json | {"events": events})


class Notes(_Endpoint):
    name = "notes/update"
    does = "POST /notes/update takes up to 1,000 characters; null or empty clears"
    measured = "section 11.12; web/server/routes/runs-openapi.ts"
    path = "notes/update"
