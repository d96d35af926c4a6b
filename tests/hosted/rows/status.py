"""Rows about a run's status: what wakes it, what is written when, what is cleared and what is ignored."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

from hosted.facts import StoredRun
from hosted.layer import Answer, Call, Proceed, Row
from pluto_dist.contract.run_requests import CreateRunRequest, ResumeRunRequest, UpdateStatusRequest
from pluto_dist.server.db.records import allows_transition, has_ended, now_ms

GAP_MS = (1, 17)  # updatedAt - statusUpdated, as measured


def called_run(call: Call) -> StoredRun | None:
    """The run that a valid request to create, to resume or to update a status is about, if it exists."""
    organization, body = call.organization, call.body
    if organization is None or body is None:
        return None
    if call.is_post("status/update") and call.fits(UpdateStatusRequest):
        return call.facts.run(body["runId"], organization)
    if call.is_post("resume") and call.fits(ResumeRunRequest):
        return call.facts.resumed(organization, ResumeRunRequest.from_json(body))
    if call.is_post("create") and call.fits(CreateRunRequest):
        return call.facts.named(organization, body["projectName"], body.get("externalId"))
    return None


def accepted(call: Call, answer: Answer, run: StoredRun | None) -> StoredRun | None:
    """The run as it was, if ``call`` is an update of its status that was written."""
    if run is None or not call.is_post("status/update") or answer.status != 200 or call.body is None:
        return None
    return run if allows_transition(run.status, call.body["status"]) else None


class UpdatedAfterStatus(Row):
    name = "updatedAt after statusUpdated"
    does = "a change of status writes statusUpdated, then updatedAt 1 to 17 ms later"
    measured = "section 11.1; web/server/lib/run-status.ts"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        run = called_run(call)
        if run is None:
            return await proceed(call)
        began = now_ms()
        if has_ended(run.status) or call.is_post("status/update"):
            await asyncio.sleep(random.randint(*GAP_MS) / 1000)
        return await self._write(call, proceed, run, began, max(began + GAP_MS[0], now_ms()))

    async def undo(self, call: Call, proceed: Proceed) -> Answer:
        run = called_run(call)
        return await proceed(call) if run is None else await self._write(call, proceed, run, at := now_ms(), at)

    async def _write(self, call: Call, proceed: Proceed, run: StoredRun, status: int, updated: int) -> Answer:
        newest = call.facts.last_change()
        answer = await proceed(call)
        if call.facts.change_since(newest, run.id) is not None:
            given = (call.body or {}).get("statusUpdated")
            at = status if given is None else int(given)
            call.facts.set(run.id, status_updated=at, updated_at=updated)
        return answer


class Refreshes(Row):
    name = "RUNNING again refreshes statusUpdated"
    does = "an update to the status it has: RUNNING refreshes statusUpdated, an end keeps it; updatedAt moves"
    measured = "section 11.1; web/server/lib/run-status.ts"

    async def undo(self, call: Call, proceed: Proceed) -> Answer:
        before = called_run(call)
        answer = await proceed(call)
        run = accepted(call, answer, before)
        if run is not None and call.body is not None and call.body["status"] == run.status:
            call.facts.set(run.id, updated_at=run.updated_at, status_updated=run.status_updated)
        return answer


class _Wakes(Row):
    path: str

    async def undo(self, call: Call, proceed: Proceed) -> Answer:
        run = called_run(call) if call.is_post(self.path) else None
        newest = call.facts.last_change()
        answer = await proceed(call)
        if run is not None and has_ended(run.status):
            call.facts.set(run.id, status=run.status, status_updated=run.status_updated, updated_at=run.updated_at)
            call.facts.database.execute("DELETE FROM status_changes WHERE id > ? AND run_id = ?", (newest, run.id))
        return answer


class ResumeWakes(_Wakes):
    name = "resume wakes"
    does = "POST /resume of an ended run sets it RUNNING"
    measured = "sections 4, 11.2; web/server/routes/runs-openapi.ts"
    path = "resume"


class CreateWakes(_Wakes):
    name = "create wakes"
    does = "POST /create with the externalId of an ended run sets it RUNNING"
    measured = "section 4; web/server/routes/runs-openapi.ts"
    path = "create"


class Precedence(Row):
    name = "precedence of ends"
    does = "an end of lower precedence than the stored one is answered 200 and ignored, also after the monitor's FAILED"
    measured = "sections 4, 11.5; web/server/lib/run-status.ts"

    async def undo(self, call: Call, proceed: Proceed) -> Answer:
        run = called_run(call)
        answer = await proceed(call)
        if run is not None and call.is_post("status/update") and answer.status == 200 and call.body is not None:
            call.facts.set(run.id, status=call.body["status"])
        return answer


class NullClears(Row):
    name = "null clears statusMetadata"
    does = 'statusMetadata null (or the document "null") clears what is stored; absent or "" leaves it'
    measured = "section 11.6; web/server/routes/runs-openapi.ts"

    async def undo(self, call: Call, proceed: Proceed) -> Answer:
        if not call.is_post("status/update") or call.body is None or call.body.get("statusMetadata", "") is not None:
            return await proceed(call)
        return await proceed(call.with_body(statusMetadata=""))


class LoggerSettingsMerged(Row):
    name = "loggerSettings are merged"
    does = "loggerSettings of a status update are merged into the stored ones, key by key"
    measured = "web/server/routes/runs-openapi.ts"

    async def undo(self, call: Call, proceed: Proceed) -> Answer:
        before = called_run(call)
        answer = await proceed(call)
        run = accepted(call, answer, before)
        if run is not None and (sent := document((call.body or {}).get("loggerSettings"))) is not None:
            call.facts.set(run.id, logger_settings=json.dumps(sent))
        return answer


class DatesEvents(Row):
    name = "statusUpdated dates the event"
    does = "statusUpdated of a status update is the time of its event in the history"
    measured = "section 11.10; web/server/lib/run-status.ts"

    async def undo(self, call: Call, proceed: Proceed) -> Answer:
        if not call.is_post("status/update") or call.body is None or "statusUpdated" not in call.body:
            return await proceed(call)
        return await proceed(call.with_body(statusUpdated=None))


class LaterChangesMoveUpdatedAt(Row):
    name = "updatedAt is overwritten"
    does = "updatedAt given at create holds until the run's next change of any kind"
    measured = "section 11.10; web/server/prisma/schema.prisma"

    async def undo(self, call: Call, proceed: Proceed) -> Answer:
        run = called_run(call)
        answer = await proceed(call)
        if run is not None:
            call.facts.set(run.id, updated_at=run.updated_at)
        return answer


def document(text: Any) -> Any:
    """The value of a document in a string; ``None`` if there is none."""
    try:
        return json.loads(text) if isinstance(text, str) and text else None
    except (ValueError, RecursionError):
        return None
