"""The server that is asked: its address, a key, and what was seen of its answers."""

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

CREATE, RESUME = "/api/runs/create", "/api/runs/resume"
ANSWER_KEYS = frozenset(
    ["runId", "number", "displayId", "projectName", "organizationSlug", "url", "resumed", "forkedFromRunId", "forkStep"]
)
_numbers = itertools.count()


@dataclass(frozen=True)
class Answer:
    """One answer as a client sees it.

    Attributes:
        status: the HTTP status.
        shape: "run" or "ok" for a success, "A", "B" or "C" for the three shapes of errors, "text" for no JSON.
        says: the body as text; an expected one is contained in what was seen.
    """

    status: int
    shape: str
    says: str = ""

    def __str__(self) -> str:
        return f"{self.status} {self.shape} {self.says[:100]}".strip()

    def is_like(self, wanted: Answer) -> bool:
        return (self.status, self.shape) == (wanted.status, wanted.shape) and wanted.says in self.says


@dataclass
class Target:
    """A tracker, asked over HTTP with one key.

    Attributes:
        url: its address.
        key: an API key of it.
        keys: more keys by what they are ("another organization", "revoked", "expired"); rows that need one that is
            not there cannot be asked.
    """

    url: str
    key: str
    keys: dict[str, str] = field(default_factory=dict)

    def send(
        self, path: str, body: Any = None, *, method: str = "POST", key: str | None = None, raw: bytes | None = None,
        headers: dict[str, str] | None = None, params: dict[str, Any] | None = None,
    ) -> requests.Response:  # fmt: skip
        """One request on a connection of its own; ``key`` "" sends no Authorization header."""
        sent = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key if key is None else key}"}
        if key == "":
            del sent["Authorization"]
        data = raw if raw is not None or body is None else json.dumps(body).encode()
        with requests.Session() as session:
            session.trust_env = False
            found = {**sent, **(headers or {})}
            return session.request(
                method, self.url + path, data=data, params=params, timeout=60,
                headers={name: value for name, value in found.items() if value},
            )  # fmt: skip

    def create(self, project: str, external_id: str | None = None, **fields: Any) -> requests.Response:
        named = {} if external_id is None else {"externalId": external_id}
        return self.send(CREATE, {"runName": "run", "projectName": project, **named, **fields})

    def made(self, project: str, external_id: str | None = None, **fields: Any) -> dict[str, Any]:
        answer = self.create(project, external_id, **fields)
        if answer.status_code != 200:
            raise AssertionError(f"a plain create was answered {seen(answer)}")
        return dict(answer.json())

    def details(self, run: int) -> dict[str, Any]:
        return dict(self.send(f"/api/runs/details/{run}", method="GET").json())

    def status(self, run: Any, status: Any, **more: Any) -> requests.Response:
        return self.send("/api/runs/status/update", {"runId": run, "status": status, **more})

    def at_once(self, count: int, ask: Callable[[int], requests.Response]) -> list[requests.Response]:
        """``count`` requests that start in the same moment, each in a thread and on a connection of its own."""
        barrier = threading.Barrier(count)

        def one(rank: int) -> requests.Response:
            barrier.wait(60)
            return ask(rank)

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(one, range(count)))


def seen(answer: requests.Response) -> Answer:
    """What came, in the words of the table."""
    text = answer.text
    if not answer.headers.get("content-type", "").startswith("application/json"):
        return Answer(answer.status_code, "text", text)
    body = answer.json()
    if answer.status_code == 200:
        is_run = isinstance(body, dict) and set(body) == ANSWER_KEYS
        return Answer(200, "run" if is_run else "ok", json.dumps(body, ensure_ascii=False))
    error = body.get("error") if isinstance(body, dict) else None
    shape = "C" if isinstance(error, dict) and error.get("name") == "ZodError" and body.get("success") is False else "?"
    if isinstance(error, str):
        shape = "B" if "message" in body else "A"
    return Answer(answer.status_code, shape, json.dumps(body, ensure_ascii=False))


def new_project() -> str:
    """The name of a project that nobody has used."""
    return f"contract {uuid.uuid4().hex[:10]} {next(_numbers)}"


def statuses(answers: Sequence[requests.Response]) -> set[int]:
    return {answer.status_code for answer in answers}
