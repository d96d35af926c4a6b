"""Hooks for schemathesis: newline-delimited JSON bodies, and the ids of an existing run.

PLUTO_DIST_FUZZ_LINKS is a JSON object with the ids of a run, the tracker's address and its key. The ids replace the
generated ids in requests with valid values, so that these requests succeed; requests with invalid values are not
changed. A run that is deleted is one that was made for it.
"""

from __future__ import annotations

import json
import os
from typing import Any

import requests
import schemathesis

LINKS: dict[str, Any] = json.loads(os.environ["PLUTO_DIST_FUZZ_LINKS"])


def _ended_run() -> int:
    """The number of a new run that has ended."""
    headers, origin = {"Authorization": f"Bearer {LINKS['key']}"}, LINKS["origin"]
    named = {"runName": "r", "projectName": "deleted"}
    made = requests.post(f"{origin}/api/runs/create", json=named, headers=headers, timeout=60)
    ended = {"runId": int(made.json()["runId"]), "status": "COMPLETED"}
    requests.post(f"{origin}/api/runs/status/update", json=ended, headers=headers, timeout=60)
    return ended["runId"]


@schemathesis.serializer("application/x-ndjson")
def json_lines(ctx: schemathesis.SerializationContext, value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


@schemathesis.hook
def filter_query(context: Any, query: dict[str, Any] | None) -> bool:
    """Leaves out arrays of one value: in a query string they are that value, and so not invalid."""
    return not any(isinstance(value, list) and len(value) == 1 for value in (query or {}).values())


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    mode = case.meta.generation.mode if case.meta else None
    if mode is None or mode.is_negative:
        return
    path, query, headers = case.path_parameters or {}, case.query or {}, case.headers or {}
    if case.method.upper() == "DELETE":
        path["id"] = _ended_run()
    elif "id" in path:
        path["id"] = LINKS["displayId" if "by-display-id" in case.operation.path else "runId"]
    if "code" in path:
        path["code"] = LINKS["code"]
    known = LINKS
    if "file" in path:
        known = LINKS[case.method.upper()]
        path["file"] = known["file"]
    for name in query:
        if name in known:
            query[name] = known[name]
    if "X-Run-Id" in headers:
        headers["X-Run-Id"] = str(LINKS["runId"])
    if isinstance(case.body, dict):
        if "runId" in case.body:
            case.body["runId"] = LINKS["runId"]
        if "projectName" in case.body:
            case.body["projectName"] = LINKS["projectName"]
