"""A tracker over real HTTP for each test module, and a client for it."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from pluto_dist.server import LocalServer
from pluto_dist.server.db.database import Database
from server.processes import ServerProcess

TIMEOUT = 20

Run = dict[str, Any]
"""The response to a create request."""


class Client:
    """An HTTP session with an API key; every request has a timeout."""

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

    def create_run(self, project: str, external_id: str | None = None, **fields: Any) -> Run:
        """The run of a create request that succeeds."""
        response = self.create(project, external_id, **fields)
        assert response.status_code == 200, response.text
        return response.json()

    def details(self, run: int) -> dict[str, Any]:
        response = self.get(f"/api/runs/details/{run}")
        assert response.status_code == 200, response.text
        return response.json()

    def status(self, run: int, status: str, **more: Any) -> requests.Response:
        return self.post("/api/runs/status/update", {"runId": run, "status": status, **more})

    def query(self, path: str, run: Run, **params: Any) -> requests.Response:
        """``GET /api/runs/<path>`` about a run; a parameter ``None`` is left out."""
        params = {"runId": run["runId"], "projectName": run["projectName"], **params}
        return self.get(f"/api/runs/{path}", params={k: v for k, v in params.items() if v is not None})

    def ingest(self, kind: str, run: int, lines: Sequence[Mapping[str, Any]]) -> None:
        """Send ``lines`` to ``/ingest/<kind>``."""
        body = "\n".join(map(json.dumps, lines)).encode()
        response = self.post(f"/ingest/{kind}", data=body, headers={"X-Run-Id": str(run)})
        assert response.status_code == 200, response.text

    def log_metrics(self, run: int, values: Mapping[str, Sequence[float]], first_step: int = 0) -> None:
        """Log the values of each metric at successive steps."""
        steps = range(max(len(each) for each in values.values()))
        self.ingest(
            "metrics",
            run,
            [
                {
                    "time": 1_700_000_000_000 + n,
                    "step": first_step + n,
                    "data": {name: each[n] for name, each in values.items() if n < len(each)},
                }
                for n in steps
            ],
        )


def error_shape(response: requests.Response) -> str:
    """ "ok", or the shape of the error: A, B or C (see ``pluto_dist.server.transport.responses``)."""
    body = response.json()
    if response.status_code == 200:
        return "ok"
    if isinstance(body["error"], dict):
        return "C"
    return "B" if "message" in body else "A"


def send_raw(url: str, content: bytes, timeout: float = 10) -> bytes:
    """Send bytes to a server; returns what it sends until it closes the connection or the timeout has passed."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as connection:
        with suppress(OSError):  # it may close the connection meanwhile
            connection.sendall(content)
        received = b""
        with suppress(OSError):
            while chunk := connection.recv(65536):
                received += chunk
        return received


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
    """Creates further clients of the server, optionally with another key."""
    opened: list[Client] = []

    def new(key: str | None = None) -> Client:
        opened.append(Client(server, key))
        return opened[-1]

    yield new
    for each in opened:
        each.session.close()


@pytest.fixture
def other_organization(server: LocalServer, connect: Callable[..., Client]) -> Client:
    """A client with the key of another organization."""
    with closing(Database(server.db)) as database:
        database.add_key("mlps_other-organizations-key", organization="other-org")
    return connect("mlps_other-organizations-key")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts server processes, which are killed at the end of the test."""
    started: list[ServerProcess] = []

    def new(*options: str, env: dict[str, str] | None = None) -> ServerProcess:
        folder = tmp_path / f"process{len(started)}"
        folder.mkdir()
        started.append(ServerProcess(folder, *options, env=env))
        return started[-1]

    yield new
    for each in started:
        each.stop(signal.SIGKILL)


_counter = itertools.count()


@pytest.fixture
def project() -> str:
    """The name of a project that no other test uses."""
    return f"p{next(_counter)}x{uuid.uuid4().hex[:8]}"
