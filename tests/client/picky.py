"""The embedded tracker behind a server that answers 500, 404 and 400 where the hosted one does (measured).

What the hosted tracker cannot store is a 500, not a message; a heartbeat is for another service; an organization may be
at its limit; a float comes back changed.
"""

from __future__ import annotations

import json
import math
from typing import Any

import requests

from client.misbehaving import Exchange, Misbehaving, reply, reply_json
from pluto_dist.client.tracker_client import HEARTBEAT_PATH
from pluto_dist.contract.run_ref import is_display_id
from pluto_dist.contract.run_requests import LATEST_MS, NAME_LIMIT
from pluto_dist.server import LocalServer

DEPTH = 123  # levels that are stored
NAMES = ("runName", "projectName", "externalId")
DOCUMENTS = ("config", "systemMetadata", "loggerSettings", "statusMetadata")
DATES = ("createdAt", "updatedAt", "statusUpdated")


def _cannot_be_stored(value: Any, depth: int = 0) -> bool:
    """Whether Postgres refuses a JSON value."""
    if isinstance(value, str):
        return "\0" in value or any("\ud800" <= character <= "\udfff" for character in value)
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    if isinstance(value, (dict, list)) and depth >= DEPTH:
        return True
    return any(_cannot_be_stored(each, depth + 1) for each in inner)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _document(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def status_for(body: dict[str, Any]) -> int:
    """The status that the hosted tracker answers to the values in a request: 200, 400 or 500."""
    json.dumps(body, allow_nan=False)
    documents = [_document(body[name]) for name in DOCUMENTS if body.get(name)]
    dates, names = [body.get(name) for name in DATES], [body.get(name) for name in NAMES]
    is_nameless = "runName" in body and body.get("externalId") == ""  # /resume answers 404 to it
    if not all(isinstance(document, dict) for document in documents) or is_nameless:
        return 400
    if any(at is not None and at != int(at) for at in dates):
        return 400
    numbers = [body.get(name) or 0 for name in ("runId", "forkRunId", "forkStep")]
    in_project = body["displayId"].rpartition("-")[2] if is_display_id(body.get("displayId")) else "0"
    fits = (
        not any(map(_cannot_be_stored, [*documents, *names, body.get("tags"), body.get("displayId")]))
        and all(len(name or "") <= NAME_LIMIT for name in names)
        and all(0 <= (at or 0) <= LATEST_MS for at in dates)
        and all(number == int(number) and abs(number) < 2**63 for number in numbers)
        and int(in_project) < 2**31
    )
    return 200 if fits else 500


class PickyTracker(Misbehaving):
    """A tracker that behaves like the hosted one, for the length of a ``with`` block.

    Attributes:
        takes_heartbeats: whether they are taken at this address.
        is_at_limit: whether the organization may store no new run.
    """

    def __init__(self, *, takes_heartbeats: bool = True, is_at_limit: bool = False) -> None:
        super().__init__(self._answer)
        self.behind = LocalServer()
        self.takes_heartbeats, self.is_at_limit = takes_heartbeats, is_at_limit

    def __enter__(self) -> PickyTracker:
        self.behind.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.behind.__exit__(*error)

    @property
    def environ(self) -> dict[str, str]:
        """What points a job at it."""
        return {"PLUTO_API_KEY": self.behind.api_key, "PLUTO_URL_API": self.url, "NO_PROXY": "*"}

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of the tracker behind it."""
        with requests.Session() as session:
            session.trust_env = False
            key = {"Authorization": f"Bearer {self.behind.api_key}"}
            return session.request(method, self.behind.url + path, json=body, headers=key, timeout=30).json()

    def run(self, project: str) -> dict[str, Any]:
        """The only run of a project."""
        (listed,) = self.ask("GET", f"/api/runs/list?projectName={project}")["runs"]
        details: dict[str, Any] = self.ask("GET", f"/api/runs/details/{listed['id']}")
        return details

    def ends(self) -> list[dict[str, Any]]:
        """The bodies of the status updates that came."""
        return [json.loads(seen.body) for seen in self.requests if seen.path == "/api/runs/status/update"]

    def _answer(self, exchange: Exchange) -> None:
        seen = exchange.request
        body = json.loads(seen.body) if seen.body else {}
        if seen.path == "/api/runs/trigger" and not self.takes_heartbeats:
            return reply(404, b"404 Not Found", Content_Type="text/plain")(exchange)
        if seen.method == "POST" and (status := status_for(body)) != 200:
            return reply_json({"error": "Internal Server Error" if status == 500 else "Invalid JSON"}, status)(exchange)
        if seen.path == "/api/runs/create" and self.is_at_limit:
            return reply_json({"error": "Organization is at limit"}, 400)(exchange)
        with requests.Session() as session:
            session.trust_env = False
            kept = {name: seen.headers[name] for name in ("authorization", "user-agent") if name in seen.headers}
            given = {"json": body} if seen.method == "POST" else {}
            answer = session.request(seen.method, self.behind.url + seen.path, headers=kept, timeout=30, **given)
        content = answer.json() if answer.headers["Content-Type"] == "application/json" else answer.text
        return reply_json(_as_returned(content), answer.status_code, Date=answer.headers["Date"])(exchange)


def _as_returned(value: Any) -> Any:
    """``value`` with its floats changed: 16 digits come back, and may be a larger number than what was sent."""
    if isinstance(value, dict):
        return {name: _as_returned(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_as_returned(inner) for inner in value]
    return math.nextafter(value, math.inf) if isinstance(value, float) else value


class BusyTracker(PickyTracker):
    """One that takes no heartbeat, and asks to be left alone for longer than another launch waits."""

    def _answer(self, exchange: Exchange) -> None:
        if exchange.request.path.startswith(HEARTBEAT_PATH):
            return reply_json({"error": "Too many requests"}, 429, Retry_After="12")(exchange)
        return super()._answer(exchange)
