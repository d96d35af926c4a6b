"""The tracker under test: its URL and keys, and its responses in comparable form."""

from __future__ import annotations

import itertools
import json
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests

HEARTBEATS = "the service of heartbeats"
CREATE, RESUME = "/api/runs/create", "/api/runs/resume"
ANSWER_KEYS = frozenset(
    ["runId", "number", "displayId", "projectName", "organizationSlug", "url", "resumed", "forkedFromRunId", "forkStep"]
)
_numbers = itertools.count()


@dataclass(frozen=True)
class Answer:
    """One HTTP response.

    Attributes:
        status: the HTTP status.
        shape: "run" or "ok" for a success, "A", "B" or "C" for the three shapes of errors, "text" if it is not JSON.
        text: the body; of an expected answer, a part of it.
    """

    status: int
    shape: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.status} {self.shape} {self.text[:100]}".strip()

    def is_like(self, expected: Answer) -> bool:
        return (self.status, self.shape) == (expected.status, expected.shape) and expected.text in self.text


@dataclass
class Target:
    """A tracker and an API key.

    Attributes:
        url: base URL.
        key: valid API key.
        keys: further keys: "another organization", "revoked", "expired". Rows that need a missing one are skipped.
        heartbeats: base URL of the service that takes heartbeats, or "".
    """

    url: str
    key: str
    keys: dict[str, str] = field(default_factory=dict)
    heartbeats: str = ""

    def has(self, needs: str) -> bool:
        """Whether the target has what a row needs: one of :attr:`keys`, or :attr:`heartbeats`."""
        return not needs or needs in self.keys or (needs == HEARTBEATS and bool(self.heartbeats))

    def send(
        self, path: str, body: Any = None, *, method: str = "POST", key: str | None = None, raw: bytes | None = None,
        headers: dict[str, str] | None = None, params: dict[str, Any] | None = None, base: str | None = None,
    ) -> requests.Response:  # fmt: skip
        """Send one request, on a new connection, to ``base`` or :attr:`url`; ``key`` "" sends no key."""
        sent = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key if key is None else key}"}
        if key == "":
            del sent["Authorization"]
        data = raw if raw is not None or body is None else json.dumps(body).encode()
        with requests.Session() as session:
            session.trust_env = False
            found = {**sent, **(headers or {})}
            return session.request(
                method, (base or self.url) + path, data=data, params=params, timeout=60,
                headers={name: value for name, value in found.items() if value},
            )  # fmt: skip

    def create(self, project: str, external_id: str | None = None, **fields: Any) -> requests.Response:
        named = {} if external_id is None else {"externalId": external_id}
        return self.send(CREATE, {"runName": "run", "projectName": project, **named, **fields})

    def create_run(self, project: str, external_id: str | None = None, **fields: Any) -> dict[str, Any]:
        response = self.create(project, external_id, **fields)
        if response.status_code != 200:
            raise AssertionError(f"a valid create request was answered {observed(response)}")
        return dict(response.json())

    def details(self, run: int) -> dict[str, Any]:
        return dict(self.send(f"/api/runs/details/{run}", method="GET").json())

    def status(self, run: Any, status: Any, **more: Any) -> requests.Response:
        return self.send("/api/runs/status/update", {"runId": run, "status": status, **more})

    def concurrently(self, count: int, send: Callable[[int], requests.Response]) -> list[requests.Response]:
        """The responses to ``count`` requests, all sent at the same moment from different threads."""
        barrier = threading.Barrier(count)

        def one(rank: int) -> requests.Response:
            barrier.wait(60)
            return send(rank)

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(one, range(count)))


def observed(response: requests.Response) -> Answer:
    """The response in comparable form."""
    text = response.text
    if not response.headers.get("content-type", "").startswith("application/json"):
        return Answer(response.status_code, "text", text)
    body = response.json()
    if response.status_code == 200:
        is_run = isinstance(body, dict) and set(body) == ANSWER_KEYS
        return Answer(200, "run" if is_run else "ok", json.dumps(body, ensure_ascii=False))
    error = body.get("error") if isinstance(body, dict) else None
    shape = "C" if isinstance(error, dict) and error.get("name") == "ZodError" and body.get("success") is False else "?"
    if isinstance(error, str):
        shape = "B" if "message" in body else "A"
    return Answer(response.status_code, shape, json.dumps(body, ensure_ascii=False))


def new_project() -> str:
    """An unused project name."""
    return f"contract {uuid.uuid4().hex[:10]} {next(_numbers)}"


def statuses(responses: Sequence[requests.Response]) -> set[int]:
    return {response.status_code for response in responses}
