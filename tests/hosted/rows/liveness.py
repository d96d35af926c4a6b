"""Rows about whether a run is alive: heartbeats, cancels and the monitor of silent runs."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from hosted.facts import Facts
from hosted.layer import NO_ROUTE, Answer, Call, Proceed, Row, answer
from pluto_dist.server.db.database import Database
from pluto_dist.server.db.records import RUNNING, iso, now_ms

PY_PATHS = ("/api/runs/trigger", "/api/runs/alert")
_GIVE_UP_MS = 16384 * 24 * 3600 * 1000  # a run silent for 16,384 days is left alone


class TriggerAtPy(Row):
    name = "trigger at PLUTO_URL_PY alone"
    does = "heartbeats and alerts: at the py service alone, 404 at the web address; errors are {detail}"
    measured = "sections 6, 11.5; py/server.py"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        is_of_py = call.path in PY_PATHS
        if call.service == "web":
            return NO_ROUTE if is_of_py else await proceed(call)
        if not is_of_py or call.method != "POST":
            return answer(405 if is_of_py else 404, {"detail": "Method Not Allowed" if is_of_py else "Not Found"})
        found = await proceed(call)
        if found.status == 200:
            return answer(200, {"status": "success"}) if call.path == "/api/runs/alert" else found
        error = found.json["error"]
        if isinstance(error, dict):
            return answer(422, {"detail": error["issues"]})
        return answer(found.status, {"detail": found.json.get("message", error)})


class CancelStays(Row):
    name = "a cancel stays"
    does = "every heartbeat of a run that was ever cancelled by its page sets CANCELLED again, without an event"
    measured = "section 11.7; py/server.py"

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        found = await proceed(call)
        run = call.facts.run((call.body or {}).get("runId"), call.organization) if call.is_post("trigger") else None
        if run is None or found.status != 200 or not call.facts.is_cancelled(run.id):
            return found
        if run.status != "CANCELLED":
            call.facts.set(run.id, status="CANCELLED", status_updated=now_ms(), updated_at=now_ms())
        return answer(200, {"status": "CANCELLED", "triggers": None})


@dataclass(frozen=True)
class Times:
    """The monitor's times in seconds; the defaults are the hosted tracker's.

    Attributes:
        never: after which a run without heartbeats is silent.
        beaten: after which a run with heartbeats is silent, and how long the monitor judges none after its own start.
        every: from one look to the next.
        coalesced: within which a heartbeat is not written again.
    """

    never: float = 1800
    beaten: float = 150
    every: float = 60
    coalesced: float = 30


class CoalescedHeartbeats(Row):
    name = "coalesced heartbeats"
    does = "a heartbeat within 30 s of the one on record is not written"
    measured = "section 6; py/python/server.py"

    def __init__(self, times: Times) -> None:
        self._ms = times.coalesced * 1000

    async def answer(self, call: Call, proceed: Proceed) -> Answer:
        run = call.facts.run((call.body or {}).get("runId"), call.organization) if call.is_post("trigger") else None
        found = await proceed(call)
        if run is not None and run.heartbeat_at is not None and now_ms() - run.heartbeat_at <= self._ms:
            call.facts.set(run.id, heartbeat_at=run.heartbeat_at)
        return found


class MonitorRow(Row):
    name = "monitor of silent runs"
    does = "a RUNNING run is made FAILED 1,800 s after its last sign, or 150 s if it ever had a heartbeat"
    measured = "sections 6, 11.5, 11.13; py/python/server.py"


class Monitor:
    """The thread that makes silent runs FAILED."""

    def __init__(self, db: Path, times: Times) -> None:
        self._db = db
        self._times = times
        self._stop = threading.Event()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="hosted-monitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        database = Database(self._db)
        facts = Facts(database)
        while True:
            self._look(facts)
            if self._stop.wait(self._times.every):
                database.close()
                return

    def _look(self, facts: Facts) -> None:
        is_warming_up = time.monotonic() - self._started < self._times.beaten
        with facts.database.transaction():
            rows = facts.database.execute(
                "SELECT id, heartbeat_at, status_updated, updated_at, (SELECT max(time) FROM points JOIN series ON "
                "series.id = points.series_id WHERE series.run_id = runs.id) AS metric FROM runs WHERE status = ?",
                (RUNNING,),
            ).fetchall()
            for row in rows:
                has_heartbeats = row["heartbeat_at"] is not None
                if has_heartbeats and is_warming_up:
                    continue
                signs = [row["heartbeat_at"], row["metric"]]
                if not has_heartbeats and row["metric"] is None:
                    signs.append(row["updated_at"])
                last = max(at for at in (*signs, row["status_updated"]) if at is not None)
                grace = self._times.beaten if has_heartbeats else self._times.never
                if grace * 1000 < now_ms() - last < _GIVE_UP_MS:
                    self._fail(facts, row["id"], last, "heartbeat-timeout" if has_heartbeats else "stale", grace)

    def _fail(self, facts: Facts, run: int, last: int, reason: str, grace: float) -> None:
        at = now_ms()
        metadata = {
            "reason": reason,
            "grace_seconds": grace,
            "stale_for_seconds": (at - last) // 1000,
            "last_update_time": iso(last),
        }
        facts.database.execute(
            "UPDATE runs SET status = 'FAILED', status_updated = ?, status_metadata = ? WHERE id = ?",
            (at, json.dumps(metadata), run),
        )
        facts.add_change(run, RUNNING, "FAILED", at, "stale-monitor", metadata)
