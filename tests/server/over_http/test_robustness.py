"""Robustness: SIGKILL under load, 512 concurrent ranks, clients that disconnect, a full disk."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from pluto_dist.server import LocalServer
from server.over_http.test_concurrency import concurrently
from server.processes import ServerProcess

KEY = "mlps_" + "k" * 32
POINTS = "SELECT run_id, COUNT(*) FROM points JOIN series ON series.id = points.series_id GROUP BY run_id"
HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "tracker.db"


@pytest.fixture
def serve(start: Callable[..., ServerProcess], db: Path) -> Callable[[], ServerProcess]:
    """Starts a server process on ``db``."""

    def new(*options: str) -> ServerProcess:
        env = {"PLUTO_DIST_SERVER_KEY": KEY}
        return start("--port", "0", "--db", str(db), *options, env=env).wait_until_ready()

    return new


@dataclass
class Burst:
    """Clients that create runs, update configs and log until the server is gone; records what was acknowledged."""

    url: str
    name: str
    created: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, set[str]] = field(default_factory=dict)
    points: dict[str, int] = field(default_factory=dict)

    def run_client(self, client: int) -> None:
        with requests.Session() as session, suppress(requests.RequestException):
            session.trust_env = False
            for n in range(10_000):
                run = f"{self.name}-{client}-{n}"
                body = {"runName": run, "projectName": "burst", "externalId": run, "config": '{"first":1}'}
                created = session.post(f"{self.url}/api/runs/create", json=body, headers=HEADERS, timeout=10)
                created.raise_for_status()
                self.created[run] = created.json()
                self.keys[run], self.points[run] = {"first"}, 0
                number = created.json()["runId"]
                update = {"runId": number, "config": '{"second":2}'}
                session.post(
                    f"{self.url}/api/runs/config/update", json=update, headers=HEADERS, timeout=10
                ).raise_for_status()
                self.keys[run].add("second")
                lines = "".join(json.dumps({"time": 1, "step": s, "data": {"x": s}}) + "\n" for s in range(10))
                of_run = {**HEADERS, "X-Run-Id": str(number)}
                session.post(f"{self.url}/ingest/metrics", data=lines, headers=of_run, timeout=10).raise_for_status()
                self.points[run] = 10


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.exhaustive)])
@pytest.mark.timeout(300)
def test_sigkill_under_load(serve: Callable[..., ServerProcess], db: Path, kills: int) -> None:
    """After each SIGKILL the database contains everything that was acknowledged, and no incomplete run."""
    random_delay = random.Random(7)
    bursts: list[Burst] = []
    for kill in range(kills):
        server = serve()
        burst = Burst(server.url, f"kill{kill}")
        threads = [threading.Thread(target=burst.run_client, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while not burst.created and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(random_delay.uniform(0.1, 0.8))
        server.stop(signal.SIGKILL)
        for thread in threads:
            thread.join(30)
        bursts.append(burst)
        acknowledged = sum(len(each.created) for each in bursts)
        present = _check(db, bursts)
        print(f"| kill {kill + 1} | {acknowledged} acknowledged | {acknowledged} present of {present} |")
        assert burst.created, "nothing was acknowledged before the kill"


def _check(db: Path, bursts: list[Burst]) -> int:
    with closing(sqlite3.connect(db)) as file:
        file.row_factory = sqlite3.Row
        assert file.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert file.execute("PRAGMA foreign_key_check").fetchall() == []
        runs = {row["external_id"]: row for row in file.execute("SELECT * FROM runs")}
        numbers = sorted(row["number"] for row in runs.values())
        assert numbers == list(range(1, len(numbers) + 1)), "a number was lost or assigned twice"
        histories = {row[0] for row in file.execute("SELECT run_id FROM status_changes")}
        attached = {row[0] for row in file.execute("SELECT run_id FROM attaches")}
        assert {row["id"] for row in runs.values()} == histories == attached, "an incomplete run"
        points = dict(file.execute(POINTS).fetchall())
    for burst in bursts:
        for name, response in burst.created.items():
            row = runs[name]
            assert (row["id"], row["number"]) == (response["runId"], response["number"])
            assert burst.keys[name] <= set(json.loads(row["config"]))
            assert points.get(row["id"], 0) >= burst.points[name]
            assert points.get(row["id"], 0) in (0, 10), "an incomplete batch"
    return len(runs)


@pytest.mark.timeout(120)
def test_512_ranks_of_one_run(serve: Callable[..., ServerProcess]) -> None:
    """All are answered 200, one of them creates the run, and no number is lost."""
    server = serve()
    body = {"runName": "r", "projectName": "many-ranks", "externalId": "job"}
    barrier = threading.Barrier(512)

    def one(_: int) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            barrier.wait(60)
            return session.post(f"{server.url}/api/runs/create", json=body, headers=HEADERS, timeout=60)

    with ThreadPoolExecutor(512) as pool:
        responses = list(pool.map(one, range(512)))
    assert {response.status_code for response in responses} == {200}
    assert sum(not response.json()["resumed"] for response in responses) == 1
    assert len({(response.json()["runId"], response.json()["number"]) for response in responses}) == 1
    after = requests.post(
        f"{server.url}/api/runs/create", json={**body, "externalId": None}, headers=HEADERS, timeout=9
    )
    assert after.json()["number"] == 2


@pytest.mark.parametrize("path", ["/api/runs/create", "/ingest/metrics", "/files"])
def test_client_disconnects(serve: Callable[..., ServerProcess], path: str) -> None:
    """A client that disconnects before the end of its request or before the response causes no traceback."""
    server = serve()
    host, _, port = server.url.removeprefix("http://").partition(":")
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\nX-Run-Id: 1\r\n"
    head += "Content-Type: application/json\r\n"
    for sent in (f"{head}Content-Length: 50\r\n\r\n{{", f"{head}Content-Length: 2\r\n\r\n{{}}"):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(sent.encode())
    assert requests.get(f"{server.url}/api/health", timeout=10).text == "OK"
    time.sleep(0.2)
    assert "Traceback" not in server.stderr


def test_graceful_stop(serve: Callable[..., ServerProcess]) -> None:
    """After SIGTERM a request in progress is answered for up to 3 s; new connections are refused."""
    server = serve()
    host, _, port = server.url.removeprefix("http://").partition(":")
    body = b'{"runName":"r","projectName":"graceful"}'
    head = f"POST /api/runs/create HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(head.encode() + body[:10])
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        with pytest.raises(OSError):
            socket.create_connection((host, int(port)), timeout=1).close()
        client.sendall(body[10:])
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert server.process.wait(10) == 0


def test_incomplete_request_does_not_delay_the_stop(serve: Callable[..., ServerProcess]) -> None:
    """SIGTERM ends the server within 10 s even if a client never completes its request."""
    server = serve()
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(b"POST /api/runs/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 10


def test_two_servers_on_one_database(serve: Callable[..., ServerProcess], db: Path) -> None:
    """Two processes share a database; one that is killed while the database is locked does not block the other."""
    first, second = serve(), serve()

    def create(server: ServerProcess, run: str) -> requests.Response:
        body = {"runName": run, "projectName": "shared", "externalId": run}
        return requests.post(f"{server.url}/api/runs/create", json=body, headers=HEADERS, timeout=20)

    assert create(first, "a").json()["runId"] == create(second, "a").json()["runId"]
    with closing(sqlite3.connect(db, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(create, second, "b")
            time.sleep(0.3)
            first.stop(signal.SIGKILL)
            assert not waiting.done()
            other.execute("ROLLBACK")
            assert waiting.result(20).status_code == 200
    assert create(second, "c").json()["number"] == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    if os.geteuid() != 0:
        pytest.skip("mounts a small disk: run it as root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk(start: Callable[..., ServerProcess], small_disk: Path) -> None:
    """503 in shape A while the disk is full, 200 once there is space again; acknowledged runs are kept."""
    env = {"PLUTO_DIST_SERVER_KEY": KEY}
    server = start("--port", "0", "--db", str(small_disk / "tracker.db"), env=env).wait_until_ready()

    def create(run: str, size: int) -> requests.Response:
        body = {"runName": run, "projectName": "full", "externalId": run, "config": json.dumps("x" * size)}
        return requests.post(f"{server.url}/api/runs/create", json=body, headers=HEADERS, timeout=20)

    assert create("small", 10).status_code == 200
    (small_disk / "filler").write_bytes(b"x" * 1_500_000)
    full = create("large", 1_000_000)
    assert (full.status_code, set(full.json())) == (503, {"error"})
    assert "Traceback" not in server.stderr
    (small_disk / "filler").unlink()
    again = create("large", 300_000)
    assert (again.status_code, again.json()["number"]) == (200, 2)
    assert create("small", 10).json()["resumed"] is True


def test_concurrent_jobs_in_different_projects(server: LocalServer, connect: Any) -> None:
    """Concurrent ranks of eight jobs get eight runs."""
    responses = concurrently([connect() for _ in range(64)], lambda one, n: one.create(f"project {n % 8}", "job"))
    assert {response.status_code for response in responses} == {200}
    assert len({response.json()["runId"] for response in responses}) == 8
