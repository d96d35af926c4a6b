"""What a server must stand: kills in the middle of a burst, crowds, clients that misbehave, a disk that is full."""

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
from pluto_dist.server.transport import connection
from server.over_http.test_races import at_once
from server.processes import Process

KEY = "mlps_" + "k" * 32
POINTS = "SELECT run_id, COUNT(*) FROM points JOIN series ON series.id = points.series_id GROUP BY run_id"
HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "tracker.db"


@pytest.fixture
def serve(start: Callable[..., Process], db: Path) -> Callable[[], Process]:
    """A server process on ``db``, answering."""

    def new(*options: str) -> Process:
        env = {"PLUTO_DIST_SERVER_KEY": KEY}
        return start("--port", "0", "--db", str(db), *options, env=env).ready()

    return new


@dataclass
class Burst:
    """Clients that create runs, add to their configs and log, until the server is gone; and what was acknowledged."""

    url: str
    name: str
    created: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, set[str]] = field(default_factory=dict)
    points: dict[str, int] = field(default_factory=dict)

    def one(self, client: int) -> None:
        with requests.Session() as session, suppress(requests.RequestException):
            session.trust_env = False
            for n in range(10_000):
                run = f"{self.name}-{client}-{n}"
                body = {"runName": run, "projectName": "burst", "externalId": run, "config": '{"first":1}'}
                made = session.post(f"{self.url}/api/runs/create", json=body, headers=HEADERS, timeout=10)
                made.raise_for_status()
                self.created[run] = made.json()
                self.keys[run], self.points[run] = {"first"}, 0
                number = made.json()["runId"]
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
def test_kills_in_the_middle_of_a_burst(serve: Callable[..., Process], db: Path, kills: int) -> None:
    """After each SIGKILL everything that was acknowledged is in the file, and nothing in it is half a run."""
    chance = random.Random(7)
    everything: list[Burst] = []
    for kill in range(kills):
        server = serve()
        burst = Burst(server.url, f"kill{kill}")
        threads = [threading.Thread(target=burst.one, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        give_up = time.monotonic() + 30
        while not burst.created and time.monotonic() < give_up:
            time.sleep(0.01)
        time.sleep(chance.uniform(0.1, 0.8))
        server.end(signal.SIGKILL)
        for thread in threads:
            thread.join(30)
        everything.append(burst)
        acknowledged = sum(len(each.created) for each in everything)
        present = _check(db, everything)
        print(f"| kill {kill + 1} | {acknowledged} acknowledged | {acknowledged} present of {present} |")
        assert burst.created, "nothing was acknowledged before the kill"


def _check(db: Path, bursts: list[Burst]) -> int:
    with closing(sqlite3.connect(db)) as file:
        file.row_factory = sqlite3.Row
        assert file.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert file.execute("PRAGMA foreign_key_check").fetchall() == []
        runs = {row["external_id"]: row for row in file.execute("SELECT * FROM runs")}
        numbers = sorted(row["number"] for row in runs.values())
        assert numbers == list(range(1, len(numbers) + 1)), "a number was burned, or given twice"
        histories = {row[0] for row in file.execute("SELECT run_id FROM status_changes")}
        attached = {row[0] for row in file.execute("SELECT run_id FROM attaches")}
        assert {row["id"] for row in runs.values()} == histories == attached, "half a run"
        points = dict(file.execute(POINTS).fetchall())
    for burst in bursts:
        for name, answer in burst.created.items():
            row = runs[name]
            assert (row["id"], row["number"]) == (answer["runId"], answer["number"])
            assert burst.keys[name] <= set(json.loads(row["config"]))
            assert points.get(row["id"], 0) >= burst.points[name]
            assert points.get(row["id"], 0) in (0, 10), "half a batch"
    return len(runs)


@pytest.mark.timeout(120)
def test_512_ranks_of_a_new_project(serve: Callable[..., Process]) -> None:
    """All are answered 200, one of them made the run, and no number is burned."""
    server = serve()
    body = {"runName": "r", "projectName": "crowd", "externalId": "job"}
    barrier = threading.Barrier(512)

    def one(_: int) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            barrier.wait(60)
            return session.post(f"{server.url}/api/runs/create", json=body, headers=HEADERS, timeout=60)

    with ThreadPoolExecutor(512) as pool:
        answers = list(pool.map(one, range(512)))
    assert {answer.status_code for answer in answers} == {200}
    assert sum(not answer.json()["resumed"] for answer in answers) == 1
    assert len({(answer.json()["runId"], answer.json()["number"]) for answer in answers}) == 1
    after = requests.post(
        f"{server.url}/api/runs/create", json={**body, "externalId": None}, headers=HEADERS, timeout=9
    )
    assert after.json()["number"] == 2


def speak(url: str, content: bytes, seconds: float = 10) -> bytes:
    """What a server answers to these bytes, until it hangs up or ``seconds`` have passed."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        with suppress(OSError):  # it may hang up while it is spoken to
            connection.sendall(content)
        answer = b""
        with suppress(OSError):
            while chunk := connection.recv(65536):
                answer += chunk
        return answer


@pytest.mark.parametrize(
    "content",
    [
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000,
        b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(20_000)),
    ],
    ids=["request line", "header", "headers"],
)
def test_a_head_that_is_too_long(server: LocalServer, content: bytes) -> None:
    """431 in shape A, whether or not the head ever ends (400 where the parser is first); the connection is closed."""
    answer = speak(server.url, content)
    assert answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 ")), answer[:80]
    if answer.startswith(b"HTTP/1.1 431 "):
        assert "error" in json.loads(answer.split(b"\r\n\r\n", 1)[1])
    else:
        assert content.startswith(b"GET /xxx")


@pytest.mark.parametrize("content", [b"", b"GET / HTTP/1.1\r\nX"], ids=["nothing", "half a head"])
def test_a_head_that_never_ends(server: LocalServer, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """408, and the connection is closed."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)
    assert speak(server.url, content).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_never_ends(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """408 in shape A."""
    monkeypatch.setattr("pluto_dist.server.transport.responses.BODY_SECONDS", 0.3)
    head = f"POST /api/slug HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.api_key}\r\n"
    create = head.replace("/api/slug", "/api/runs/create") + "Content-Type: application/json\r\nContent-Length: 50\r\n"
    answer = speak(server.url, f"{create}\r\n{{".encode(), seconds=5)
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("way", ["length", "chunked"])
def test_a_body_beyond_the_limit(way: str) -> None:
    """413 in shape A, for a body that says how long it is and for one that does not; the next request is answered."""
    with LocalServer(body_limit=100_000) as small, requests.Session() as session:
        session.trust_env = False
        body = json.dumps({"runName": "r", "projectName": "p", "config": json.dumps("x" * 5_000_000)}).encode()
        data: Any = body if way == "length" else iter([body[n : n + 65536] for n in range(0, len(body), 65536)])
        headers = {"Authorization": f"Bearer {small.api_key}", "Content-Type": "application/json"}
        answer = session.post(f"{small.url}/api/runs/create", data=data, headers=headers, timeout=20)
        assert (answer.status_code, set(answer.json())) == (413, {"error"})
        good = session.post(
            f"{small.url}/api/runs/create", json={"runName": "r", "projectName": "p"}, headers=headers, timeout=20
        )
        assert (good.status_code, good.json()["number"]) == (200, 1)


@pytest.mark.parametrize("path", ["/api/runs/create", "/ingest/metrics", "/files"])
def test_a_client_that_hangs_up(serve: Callable[..., Process], path: str) -> None:
    """In the middle of its request, or before its answer: not a word about it in the log, and the server goes on."""
    server = serve()
    host, _, port = server.url.removeprefix("http://").partition(":")
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\nX-Run-Id: 1\r\n"
    head += "Content-Type: application/json\r\n"
    for sent in (f"{head}Content-Length: 50\r\n\r\n{{", f"{head}Content-Length: 2\r\n\r\n{{}}"):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(sent.encode())
    assert requests.get(f"{server.url}/api/health", timeout=10).text == "OK"
    time.sleep(0.2)
    assert "Traceback" not in server.said


def test_a_graceful_stop(serve: Callable[..., Process]) -> None:
    """A request that is under way when SIGTERM comes is answered, within 3 s; new ones find nobody."""
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


def test_a_request_that_does_not_end_does_not_hold_up_the_stop(serve: Callable[..., Process]) -> None:
    server = serve()
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(b"POST /api/runs/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
        began = time.monotonic()
        server.end()
        assert time.monotonic() - began < 10


def test_two_servers_on_one_file(serve: Callable[..., Process], db: Path) -> None:
    """Two processes share a file; one that is killed while it holds the file's lock leaves it to the other."""
    first, second = serve(), serve()

    def create(server: Process, run: str) -> requests.Response:
        body = {"runName": run, "projectName": "shared", "externalId": run}
        return requests.post(f"{server.url}/api/runs/create", json=body, headers=HEADERS, timeout=20)

    assert create(first, "a").json()["runId"] == create(second, "a").json()["runId"]
    with closing(sqlite3.connect(db, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(create, second, "b")
            time.sleep(0.3)
            first.end(signal.SIGKILL)
            assert not waiting.done()
            other.execute("ROLLBACK")
            assert waiting.result(20).status_code == 200
    assert create(second, "c").json()["number"] == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    if os.geteuid() != 0:
        pytest.skip("mounts a small disk: run it as root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(start: Callable[..., Process], small_disk: Path) -> None:
    """503 in shape A while nothing fits, and 200 again once there is room; what was acknowledged stays."""
    env = {"PLUTO_DIST_SERVER_KEY": KEY}
    server = start("--port", "0", "--db", str(small_disk / "tracker.db"), env=env).ready()

    def create(run: str, size: int) -> requests.Response:
        body = {"runName": run, "projectName": "full", "externalId": run, "config": json.dumps("x" * size)}
        return requests.post(f"{server.url}/api/runs/create", json=body, headers=HEADERS, timeout=20)

    assert create("small", 10).status_code == 200
    (small_disk / "filler").write_bytes(b"x" * 1_500_000)
    full = create("large", 1_000_000)
    assert (full.status_code, set(full.json())) == (503, {"error"})
    assert "Traceback" not in server.said
    (small_disk / "filler").unlink()
    again = create("large", 300_000)
    assert (again.status_code, again.json()["number"]) == (200, 2)
    assert create("small", 10).json()["resumed"] is True


def test_a_folder_that_cannot_be_written(start: Callable[..., Process], tmp_path: Path) -> None:
    """The server says which file it cannot make, and why."""
    (tmp_path / "file").write_text("")
    server = start("--port", "0", "--db", str(tmp_path / "file" / "tracker.db"))
    assert server.process.wait(20) != 0
    assert "cannot be the tracker's database" in server.said


def test_no_key_is_stored(serve: Callable[..., Process], db: Path) -> None:
    """The file holds hashes alone."""
    server = serve()
    assert requests.get(f"{server.url}/api/runs/auth/validate", headers=HEADERS, timeout=10).status_code == 200
    server.end()
    for file in db.parent.glob("tracker.db*"):
        assert KEY.encode() not in file.read_bytes()


def test_many_at_once_of_many_projects(server: LocalServer, connect: Any) -> None:
    """Ranks of eight jobs that come at once find eight runs."""
    answers = at_once([connect() for _ in range(64)], lambda one, n: one.create(f"crowd {n % 8}", "job"))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["runId"] for answer in answers}) == 8
