"""A real tracker over real HTTP for each module, and a client that speaks to it."""

from __future__ import annotations

import itertools
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

from pluto_dist.server import LocalServer
from pluto_dist.server.db.database import Database
from server.processes import Process

TIMEOUT = 20


class Client:
    """One HTTP session with the tracker's key; every call has a time limit."""

    def __init__(self, server: LocalServer, key: str | None = None) -> None:
        self.url = server.url
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {key or server.api_key}"

    def post(self, path: str, body: Any = None, **options: Any) -> requests.Response:
        if "data" not in options:
            options["json"] = body
        return self.session.post(self.url + path, timeout=TIMEOUT, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(self.url + path, timeout=TIMEOUT, **options)

    def create(self, project: str, external_id: str | None = None, **fields: Any) -> requests.Response:
        body = {"runName": "run", "projectName": project, **fields}
        return self.post("/api/runs/create", body | ({"externalId": external_id} if external_id else {}))

    def made(self, project: str, external_id: str | None = None, **fields: Any) -> dict[str, Any]:
        answer = self.create(project, external_id, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def details(self, run: int) -> dict[str, Any]:
        answer = self.get(f"/api/runs/details/{run}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def status(self, run: int, status: str, **more: Any) -> requests.Response:
        return self.post("/api/runs/status/update", {"runId": run, "status": status, **more})


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer() as running:
        yield running


@pytest.fixture
def client(server: LocalServer) -> Iterator[Client]:
    one = Client(server)
    yield one
    one.session.close()


@pytest.fixture
def connect(server: LocalServer) -> Iterator[Callable[..., Client]]:
    """More clients of the same server, for instance with another key."""
    opened: list[Client] = []

    def new(key: str | None = None) -> Client:
        opened.append(Client(server, key))
        return opened[-1]

    yield new
    for one in opened:
        one.session.close()


@pytest.fixture
def stranger(server: LocalServer, connect: Callable[..., Client]) -> Client:
    """A client whose key opens another organization of the same server."""
    with closing(Database(server.db)) as other:
        other.add_key("mlps_stranger-key", organization="strangers")
    return connect("mlps_stranger-key")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    begun: list[Process] = []

    def new(*options: str, env: dict[str, str] | None = None) -> Process:
        folder = tmp_path / f"process{len(begun)}"
        folder.mkdir()
        begun.append(Process(folder, *options, env=env))
        return begun[-1]

    yield new
    for each in begun:
        each.end(signal.SIGKILL)


_counter = itertools.count()


@pytest.fixture
def project() -> str:
    """The name of a project that no other test uses."""
    return f"p{next(_counter)}x{uuid.uuid4().hex[:8]}"
