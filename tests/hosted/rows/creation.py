"""Rows about create: its races, its limit, and what of later requests is stored."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hosted.layer import Answer, Call, Proceed, Row, answer, failure
from hosted.rows.status import called_run, document
from pluto_dist.contract.run_requests import NAME_LIMIT, CreateRunRequest, UpdateConfigRequest
from pluto_dist.contract.validation import unstorable
from pluto_dist.server.db.display_id import prefix_of
from pluto_dist.server.db.documents import merge, parse
from pluto_dist.server.db.records import now_ms

# How long the server is between its reads and its writes; requests that arrive meanwhile race.
PROJECT_S, NUMBER_S, CONFIG_S = 0.002, 0.005, 0.003


def creates(call: Call) -> tuple[str, dict[str, Any]] | None:
    """Organization and body of a valid request to create."""
    if call.is_post("create") and call.fits(CreateRunRequest) and call.organization and call.body is not None:
        return call.organization, call.body
    return None


class ProjectRace(Row):
    name = "500 in the race for a new project"
    does = "requests that race to make a project row: all but the first are 500"
    measured = "section 2"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        wanted = creates(call)
        name = "" if wanted is None else wanted[1]["projectName"]
        if wanted is None or len(name) > NAME_LIMIT or unstorable(name) or call.facts.has_project(wanted[0], name):
            return await proceed(call)
        await asyncio.sleep(PROJECT_S)
        if call.facts.has_project(wanted[0], name):
            return failure()
        call.facts.database.execute(
            "INSERT INTO projects (organization, name, prefix, created_at, next_number) VALUES (?, ?, ?, ?, 1)",
            (wanted[0], name, prefix_of(name), now_ms()),
        )
        return await proceed(call)


class BurnedNumbers(Row):
    name = "burned run numbers"
    does = "each request that loses the race for a new externalId takes a run number, which is lost"
    measured = "section 2"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        wanted = creates(call)
        if wanted is None or wanted[1].get("externalId") is None or called_run(call) is not None:
            return await proceed(call)
        await asyncio.sleep(NUMBER_S)
        if called_run(call) is not None:
            call.facts.burn_number(wanted[0], wanted[1]["projectName"])
        return await proceed(call)


class AtLimit(Row):
    name = "organization at limit"
    does = "a new run of an organization over its limit is refused: 400 Organization is at limit; resumes are not"
    measured = "section 11.9; web/server/routes/runs-openapi.ts"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        if call.facts.at_limit and creates(call) is not None and called_run(call) is None:
            return answer(400, {"error": "Organization is at limit"})
        return await proceed(call)


class LostConfigKeys(Row):
    name = "config keys lost in concurrent merges"
    does = "a merge into the config is read, then written, without a lock; every one moves updatedAt"
    measured = "section 3; web/server/routes/runs-openapi.ts"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        run = None
        if creates(call) is not None:
            run, passed = called_run(call), call.with_body(config=None)
        elif call.is_post("config/update") and call.fits(UpdateConfigRequest):
            run, passed = call.facts.run((call.body or {})["runId"], call.organization), call.with_body(config="{}")
        update = document((call.body or {}).get("config"))
        if run is None or not isinstance(update, dict):
            return await proceed(call)
        found = await proceed(passed)
        read = call.facts.run(run.id)
        if found.status == 200 and read is not None:
            await asyncio.sleep(CONFIG_S)
            merged = merge(read.config, parse(json.dumps(update)))
            call.facts.set(run.id, config=json.dumps(merged) if merged else None, updated_at=now_ms())
        return found


class CreatorsMetadata(Row):
    name = "systemMetadata of the creator alone"
    does = "systemMetadata, loggerSettings and tags of a request that resumes are dropped, for good"
    measured = "section 3"

    async def undo(self, call: Call, proceed: Proceed) -> Answer:
        run = called_run(call) if creates(call) is not None else None
        found = await proceed(call)
        if run is not None and (sent := document((call.body or {}).get("systemMetadata"))) is not None:
            call.facts.set(run.id, system_metadata=json.dumps(sent))
        return found


class FirstEvent(Row):
    name = "createdAt dates the first event"
    does = "createdAt given at create is the time of the first event in the history, too"
    measured = "web/server/lib/run-status.ts"

    async def undo(self, call: Call, proceed: Proceed) -> Answer:
        found = await proceed(call)
        if creates(call) is not None and found.status == 200 and not found.json["resumed"]:
            call.facts.database.execute(
                "UPDATE status_changes SET at = ? WHERE run_id = ?", (now_ms(), found.json["runId"])
            )
        return found
