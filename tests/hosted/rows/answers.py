"""Rows about what the hosted tracker's answers hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hosted.layer import Answer, Call, Proceed, Row, answer, encoded
from hosted.rows.status import called_run, clears, document
from pluto_dist.contract.validation import Record, contract_field, issues
from pluto_dist.server.db.records import iso

DETAILS = (
    *("id", "name", "number", "displayId", "status", "tags", "config", "systemMetadata", "loggerSettings"),
    *("statusMetadata", "createdAt", "updatedAt", "statusUpdated", "projectName", "externalId"),
    *("forkedFromRunId", "forkStep", "logNames"),
)
LISTED = ("id", "name", "number", "displayId", "status", "tags", "createdAt")
_PRINTED_WHOLE = 1e21  # JavaScript writes larger numbers with an exponent
NOTES_LIMIT = 1000  # characters
_SOURCES = {"create": "api", "update": "api"}


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

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        found = await proceed(call)
        if call.path != "/api/runs/list" or found.status != 200:
            return found
        project = {"projectName": call.query.get("projectName", "")}
        runs = [{n: v for n, v in run.items() if n in LISTED} | project for run in found.json["runs"]]
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


class History(Row):
    name = "status/history"
    does = "GET /status/history has every change with fromStatus, toStatus, source and what came with it"
    measured = "section 11.12; web/server/routes/runs-openapi.ts"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        if call.is_get("status/history"):
            return self._history(call)
        run = called_run(call)
        newest = call.facts.last_change()
        found = await proceed(call)
        if run is not None and (change := call.facts.change_since(newest, run.id)) is not None:
            body = call.body or {}
            call.facts.describe_change(change, None if clears(body) else document(body.get("statusMetadata")))
        return found

    def _history(self, call: Call) -> Answer:
        try:
            number: float | None = float(call.query.get("runId") or 0)
        except ValueError:
            number = None
        run = call.facts.run(number, call.organization)
        if run is None:
            return answer(404, {"error": "Run not found"})
        rows = call.facts.database.execute(
            "SELECT id, from_status, to_status, at, source, hosted_events.metadata AS metadata FROM status_changes "
            "LEFT JOIN hosted_events ON change_id = id WHERE run_id = ? ORDER BY at, id",
            (run.id,),
        ).fetchall()
        return answer(200, {"runId": run.id, "events": [_event(run.id, row) for row in rows]})


def _event(run: int, row: Any) -> dict[str, Any]:
    source = row["source"]
    if row["from_status"] is not None and source == "create":
        source = "resume"
    return {
        "id": str(row["id"]),
        "runId": run,
        "fromStatus": row["from_status"],
        "toStatus": row["to_status"],
        "source": _SOURCES.get(source, source),
        "metadata": None if row["metadata"] is None else json.loads(row["metadata"]),
        "actorId": "local-user" if source != "stale-monitor" else None,
        "apiKeyId": "local-key" if source != "stale-monitor" else None,
        "createdAt": iso(row["at"]),
    }


@dataclass(frozen=True, slots=True)
class _NotesRequest(Record):
    run_id: int = contract_field("runId", "number", required=True)
    notes: str | None = contract_field("notes", "string", required=True, nullable=True)


class Notes(Row):
    name = "notes/update"
    does = "POST /notes/update takes up to 1,000 characters; null or empty clears"
    measured = "section 11.12; web/server/routes/runs-openapi.ts"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        if not call.is_post("notes/update") or call.body is None:
            return await proceed(call)
        found = [issue.to_json() for issue in issues(_NotesRequest, call.body)]
        notes = call.body.get("notes")
        if isinstance(notes, str) and len(notes) > NOTES_LIMIT:
            limits = {"maximum": NOTES_LIMIT, "type": "string", "inclusive": True, "exact": False}
            message = f"String must contain at most {NOTES_LIMIT} character(s)"
            found.append({"code": "too_big", **limits, "path": ["notes"], "message": message})
        if found:
            return answer(400, {"success": False, "error": {"issues": found, "name": "ZodError"}})
        run = call.facts.run(call.body["runId"], call.organization)
        if run is None:
            return answer(404, {"error": "Run not found"})
        call.facts.database.execute("INSERT OR REPLACE INTO hosted_notes VALUES (?, ?)", (run.id, notes or None))
        return Answer(200, encoded({"success": True}))
