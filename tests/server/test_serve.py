"""``pluto-dist server`` as a process: key, env file, log, errors and exit code."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from cli.asked import ask
from pluto_dist.server import LocalServer
from pluto_dist.server.db.database import Database
from pluto_dist.version import __version__
from recorded_runs import Recorder
from server.conftest import TIMEOUT
from server.processes import COMMAND, TIMEOUT_S, ServerProcess


def exports(text: str) -> dict[str, str]:
    found = {}
    for line in text.splitlines():
        assert line.startswith("export "), line
        name, _, value = line.removeprefix("export ").partition("=")
        found[name] = "".join(shlex.split(value))
    return found


def is_valid(url: str, key: str) -> bool:
    with requests.Session() as session:
        session.trust_env = False
        headers = {"Authorization": f"Bearer {key}"}
        response = session.get(url + "/api/runs/auth/validate", headers=headers, timeout=TIMEOUT)
        return response.status_code == 200


def test_env_file(start: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """The file is written atomically with mode 0600 once the server listens; the key is not printed."""
    path = tmp_path / "env"
    path.symlink_to(tmp_path / "elsewhere")
    server = start("--port", "0", "--env-file", str(path), env={"NO_PROXY": "intra"}).wait_until_ready()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.is_symlink()
    assert not (tmp_path / "elsewhere").exists()
    found = exports(path.read_text())
    urls = {"PLUTO_URL_API", "PLUTO_URL_APP", "PLUTO_URL_INGEST", "PLUTO_URL_PY"}
    assert set(found) == urls | {"PLUTO_API_KEY", "NO_PROXY", "no_proxy"}
    assert {found[name] for name in urls} == {server.url}
    assert found["NO_PROXY"] == "intra,127.0.0.1"
    assert found["PLUTO_API_KEY"].startswith("mlps_")
    assert is_valid(server.url, found["PLUTO_API_KEY"])
    assert server.stdout == ""
    assert found["PLUTO_API_KEY"] not in server.stderr
    database = tmp_path / "process0" / "state" / "pluto-dist" / "tracker.db"
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
    assert stat.S_IMODE(database.parent.stat().st_mode) == 0o700
    sourced = subprocess.run(
        ["sh", "-c", f". {path} && echo $PLUTO_URL_API"], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    assert sourced.stdout.strip() == server.url
    assert server.stop() == 0


def test_restart_keeps_key_and_runs(start: Callable[..., ServerProcess], tmp_path: Path) -> None:
    options = ("--port", "0", "--db", str(tmp_path / "t.db"), "--env-file", str(tmp_path / "env"))
    first = start(*options).wait_until_ready()
    key = exports((tmp_path / "env").read_text())["PLUTO_API_KEY"]
    body = {"runName": "r", "projectName": "p", "externalId": "job"}

    def create(url: str) -> dict[str, object]:
        with requests.Session() as session:
            session.trust_env = False
            headers = {"Authorization": f"Bearer {key}"}
            return session.post(url + "/api/runs/create", json=body, headers=headers, timeout=TIMEOUT).json()

    created = create(first.url)
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    second = start(*options).wait_until_ready()
    assert exports((tmp_path / "env").read_text())["PLUTO_API_KEY"] == key
    again = create(second.url)
    assert (again["runId"], again["resumed"]) == (created["runId"], True)
    assert second.stop() == 0
    other = start(
        "--port", "0", "--db", str(tmp_path / "other.db"), "--env-file", str(tmp_path / "env")
    ).wait_until_ready()
    fresh = exports((tmp_path / "env").read_text())["PLUTO_API_KEY"]
    assert fresh != key
    assert is_valid(other.url, fresh)


def test_without_env_file_two_exports_are_printed_once(start: Callable[..., ServerProcess]) -> None:
    server = start("--port", "0").wait_until_ready()
    found = exports(server.stdout)
    assert list(found) == ["PLUTO_API_KEY", "PLUTO_URL_API"]
    assert found["PLUTO_URL_API"] == server.url
    assert is_valid(server.url, found["PLUTO_API_KEY"])
    assert server.stop(signal.SIGINT) == 0
    assert found["PLUTO_API_KEY"] not in server.stderr


@pytest.mark.parametrize("source", ["file", "environment", "both"])
def test_given_key(start: Callable[..., ServerProcess], tmp_path: Path, source: str) -> None:
    """The key file takes precedence over the environment variable; the key is not printed."""
    key_file = tmp_path / "key"
    key_file.write_text("mlps_from-the-file\n")
    options = () if source == "environment" else ("--api-key-file", str(key_file))
    env = {} if source == "file" else {"PLUTO_DIST_SERVER_KEY": "mlps_from-environment"}
    server = start("--port", "0", *options, env=env).wait_until_ready()
    assert is_valid(server.url, "mlps_from-environment") is (source == "environment")
    assert is_valid(server.url, "mlps_from-the-file") is (source != "environment")
    assert server.stop() == 0
    assert server.stdout == ""
    assert "mlps_" not in server.stderr


def test_access_log(start: Callable[..., ServerProcess]) -> None:
    """With -v, a line for each request, without its query; by default none."""
    server = start("--port", "0", "-v").wait_until_ready()
    requests.get(server.url + "/api/health?key=mlps_something", timeout=TIMEOUT)
    requests.get(server.url + "/nothing", timeout=TIMEOUT)
    assert server.stop() == 0
    lines = [line.split(" ", 1) for line in server.stderr.splitlines() if ' "GET ' in line]
    assert [rest for _, rest in lines] == ['"GET /api/health HTTP/1.1" 200', '"GET /nothing HTTP/1.1" 404']
    assert "Traceback" not in server.stderr
    assert "mlps_something" not in server.stderr


def test_what_to_do_next(start: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """A start says whether the database is new, and what to type; requests are not logged."""
    db, env = str(tmp_path / "t.db"), tmp_path / "my env"
    server = start("--port", "0", "--db", db, "--env-file", str(env)).wait_until_ready()
    requests.get(server.url + "/api/health", timeout=TIMEOUT)
    assert server.stop() == 0
    first, following = server.stderr.splitlines()
    assert first.endswith(f"(new database {db})")
    assert following == f"next: `. '{env}'` in the shell of a job, start it, and open {server.url}"


@pytest.mark.exhaustive
def test_what_to_do_next_without_an_env_file(start: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """A key that is printed is to be pasted; one that was given is to be set. A known database is not new."""
    db = str(tmp_path / "t.db")
    Database(Path(db)).close()
    again = start("--port", "0", "--db", db).wait_until_ready()
    assert again.stop() == 0
    assert f"(database {db})" in again.stderr
    assert "next: paste the two export lines" in again.stderr
    given = start("--port", "0", env={"PLUTO_DIST_SERVER_KEY": "mlps_from-environment"}).wait_until_ready()
    assert given.stop() == 0
    assert "next: set PLUTO_API_KEY to that key" in given.stderr


@pytest.mark.parametrize("content", ["MY=1\n", "export PLUTO_API_KEY=mlps_x\nexport AWS_SECRET=1\n", "# notes\n"])
def test_a_file_that_is_not_ours(tmp_path: Path, content: str) -> None:
    """A file with any line of another origin is refused, and left as it is."""
    path = tmp_path / "env"
    path.write_text(content)
    done = ask(None, "server", "--port", "0", "--env-file", str(path), "--db", str(tmp_path / "t.db"))
    assert done.exit_code == 1
    assert "would be lost. Name another file." in done.output
    assert "AWS" not in done.output
    assert path.read_text() == content
    assert not (tmp_path / "t.db").exists()


def test_read_only(start: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """What is there can be read; what would change it is 403."""
    db = tmp_path / "t.db"
    with LocalServer(db) as before:
        run = Recorder(before).create()["runId"]
    headers = {"Authorization": f"Bearer {before.api_key}"}
    server = start("--port", "0", "--db", str(db), "--read-only").wait_until_ready()
    assert "read-only" in server.stderr
    for path in ("/api/runs/create", "/api/runs/resume", "/api/runs/trigger", "/ingest/metrics", "/files"):
        answer = requests.post(server.url + path, json={}, headers=headers, timeout=TIMEOUT)
        assert (answer.status_code, "read-only" in answer.json()["error"]) == (403, True)
    assert requests.delete(f"{server.url}/api/runs/{run}", headers=headers, timeout=TIMEOUT).status_code == 403
    assert requests.post(server.url + "/api/slug", headers=headers, timeout=TIMEOUT).status_code == 200
    details = requests.get(f"{server.url}/api/runs/details/{run}", headers=headers, timeout=TIMEOUT)
    assert details.json()["status"] == "RUNNING"
    assert server.stop() == 0
    assert f"next: open {server.url}; for commands that read, paste the two export lines" in server.stderr


def test_wildcard_address(start: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """A server on all addresses logs a warning, and its pages require the key."""
    options = ("--host", "0.0.0.0", "--port", "0", "--allow-host", "tracker.cluster")
    server = start(*options, "--env-file", str(tmp_path / "env")).wait_until_ready()
    assert "warning: listening on 0.0.0.0" in server.stderr
    assert server.url.startswith("http://tracker.cluster:")
    assert exports((tmp_path / "env").read_text())["NO_PROXY"].endswith("tracker.cluster")
    local = "http://127.0.0.1:" + server.url.rsplit(":", 1)[1]
    assert requests.get(local + "/", timeout=TIMEOUT).status_code == 401
    assert requests.get(local + "/api/health", timeout=TIMEOUT).status_code == 200
    assert server.stop() == 0


def test_port_in_use(start: Callable[..., ServerProcess]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = start("--port", str(taken.getsockname()[1]))
        assert server.process.wait(TIMEOUT_S) == 1
    assert "cannot listen on 127.0.0.1 port" in server.stderr
    assert "--port" in server.stderr


ERRORS = [
    ("no database", ["--db", "text"], "cannot be the tracker's database"),
    ("no key file", ["--api-key-file", "missing"], "cannot be read"),
    ("bad key", ["--api-key-file", "text"], "must start with mlps_"),
    ("no folder for the env file", ["--env-file", "missing/env"], "env file"),
    ("unknown host", ["--host", "nowhere.invalid"], "cannot listen on nowhere.invalid"),
]


@pytest.mark.parametrize(("name", "options", "text"), ERRORS, ids=[row[0] for row in ERRORS])
def test_startup_errors(
    start: Callable[..., ServerProcess], tmp_path: Path, name: str, options: list[str], text: str
) -> None:
    (tmp_path / "text").write_text("secret-looking-text " * 200)
    server = start("--port", "0", options[0], options[1] if "host" in options[0] else str(tmp_path / options[1]))
    assert server.process.wait(TIMEOUT_S) == 1
    assert text in server.stderr
    assert server.stderr.startswith("Error: ")
    assert "Traceback" not in server.stderr
    assert "secret-looking" not in server.stderr
    assert not (tmp_path / "missing").exists()


def test_without_the_server_extra(tmp_path: Path) -> None:
    """If uvicorn is missing, the error is one line with the command that installs it."""
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError('No module', name='uvicorn')")
    done = subprocess.run(
        [*COMMAND, "server", "--port", "0", "--db", str(tmp_path / "t.db")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'pluto-dist[server]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_version_and_help() -> None:
    def output(*options: str) -> str:
        return subprocess.run(
            [*COMMAND, *options], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        ).stdout

    assert __version__ in output("--version")
    assert "server" in output("--help")
    for option in ("--host", "--port", "--db", "--api-key-file", "--env-file", "--allow-host", "--private-pages"):
        assert option in output("server", "--help")


def test_folder_that_cannot_be_created(start: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """The error names the database file."""
    (tmp_path / "file").write_text("")
    server = start("--port", "0", "--db", str(tmp_path / "file" / "tracker.db"))
    assert server.process.wait(20) != 0
    assert "cannot be the tracker's database" in server.stderr
