"""Names are data, pages run no script, strangers' Host headers are refused, keys are never repeated."""

from __future__ import annotations

import html
import http.client
import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from pluto_dist.server import LocalServer
from pluto_dist.server.db.database import Database, DatabaseFileError
from server.conftest import TIMEOUT, Client

SCRIPT = "<script>alert('x')</script>"


def raw_get(server: LocalServer, path: str, host: str | None) -> tuple[int, str]:
    """A GET with any Host header, or none."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(server.url).port, timeout=TIMEOUT)
    try:
        connection.putrequest("GET", path, skip_host=True)
        if host is not None:
            connection.putheader("Host", host)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:1", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:80", 200),
        ("LOCALHOST.", 200),
        ("evil.example", 400),
        ("evil.example:8420", 400),
        ("localhost.evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("127.0.0.1@evil.example", 400),
        ("", 400),
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/health", "/static/pluto.css"])
def test_host_header(server: LocalServer, host: str, status: int, path: str) -> None:
    """A name that was made to resolve to this server (DNS rebinding) opens nothing."""
    answered, body = raw_get(server, path, host)
    assert answered == status
    if status == 400:
        assert "evil" not in body


def test_allowed_hosts() -> None:
    with LocalServer(allow_hosts=("tracker.cluster",)) as server:
        assert raw_get(server, "/api/health", "Tracker.Cluster:8420")[0] == 200
        assert raw_get(server, "/api/health", "other.cluster")[0] == 400


def test_pages_escape_and_forbid_scripts(client: Client) -> None:
    """Run name, project, tags, config keys and values, metadata, user agent: all are shown as text."""
    made = client.made(
        f"p {SCRIPT}",
        SCRIPT,
        runName=SCRIPT,
        tags=[SCRIPT],
        config=json.dumps({SCRIPT: SCRIPT, "deep": {SCRIPT: [SCRIPT]}}),
        systemMetadata=json.dumps(
            {
                "nodes": [{"host": SCRIPT, "gpus": [SCRIPT], "bad": {SCRIPT: SCRIPT}, "hidden": [SCRIPT]}],
                "drift": [{"field": SCRIPT, "usual": SCRIPT, "nodes": {SCRIPT: SCRIPT}, "more": SCRIPT}],
                "cluster": {"drift": SCRIPT},
            }
        ),
    )
    client.session.headers["User-Agent"] = SCRIPT
    client.made(f"p {SCRIPT}", SCRIPT)
    for url in (made["url"], made["url"].rsplit("/", 1)[0], client.url + "/"):
        page = client.session.get(url, timeout=TIMEOUT)
        assert page.status_code == 200
        assert "<script" not in page.text.lower()
        assert "&lt;script&gt;" in page.text
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src" not in policy
        assert "unsafe" not in policy
        assert page.headers["X-Frame-Options"] == "DENY"
        assert page.headers["Referrer-Policy"] == "no-referrer"
    assert "Access-Control-Allow-Origin" not in page.headers


@pytest.mark.parametrize("path", ["/", "/api/health", "/nothing", "/static/pluto.css", "/o/x/projects/y"])
def test_every_answer_is_nosniff(client: Client, path: str) -> None:
    assert client.get(path).headers["X-Content-Type-Options"] == "nosniff"


def test_private_pages_ask_for_the_key() -> None:
    with LocalServer(private_pages=True) as server, requests.Session() as session:
        session.trust_env = False
        run = session.post(
            server.url + "/api/runs/create",
            json={"runName": "secret-run", "projectName": "p"},
            headers={"Authorization": f"Bearer {server.api_key}"},
            timeout=TIMEOUT,
        ).json()
        for path in ("/", "/o/local-org/projects/p", urlsplit(run["url"]).path):
            for auth in (None, ("any", "mlps_wrong"), (server.api_key, "")):
                refused = session.get(server.url + path, auth=auth, timeout=TIMEOUT)
                assert refused.status_code == 401
                assert refused.headers["WWW-Authenticate"].startswith("Basic ")
                assert "secret-run" not in refused.text
            shown = session.get(server.url + path, auth=("any", server.api_key), timeout=TIMEOUT)
            assert shown.status_code == 200
            assert "secret-run" in shown.text
            assert server.api_key not in shown.text
        for broken in ("Basic", "Basic !!!", "Basic /w==", f"Bearer {server.api_key}"):
            header = {"Authorization": broken}
            assert session.get(server.url + "/", headers=header, timeout=TIMEOUT).status_code == 401


def test_the_key_is_nowhere(tmp_path: Path) -> None:
    """Not in the log (even when someone puts it in an address), the database, a page, or a repr."""
    with LocalServer(tmp_path / "t.db") as server:
        one = Client(server)
        one.session.headers["User-Agent"] = f"agent {server.api_key}"
        made = one.made("p", "job")
        one.get(f"/o/{server.api_key}?key={server.api_key}")
        one.get("/api/runs/auth/validate", headers={"Authorization": f"Bearer {server.api_key}x"})
        texts = [one.get("/").text, one.session.get(made["url"], timeout=TIMEOUT).text, repr(server)]
        texts += [*server.requests(), one.get(f"/api/runs/details/{made['runId']}").text]
        one.session.close()
        key = server.api_key
    secret = key.removeprefix("mlps_")
    assert not [text for text in texts if secret in text]
    for file in tmp_path.iterdir():
        assert secret.encode() not in file.read_bytes()


def test_access_log_line(server: LocalServer, client: Client) -> None:
    before = len(server.requests())
    client.get("/api/runs/list?projectName=hidden-value")
    client.get("/a%0Ab")
    lines = server.requests()[before:]
    assert [line.split(" ", 1)[1] for line in lines] == [
        '"GET /api/runs/list HTTP/1.1" 200',
        '"GET /a%0Ab HTTP/1.1" 404',
    ]
    assert lines[0].startswith("127.0.0.1:")


def test_files_are_private(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        with LocalServer(tmp_path / "new" / "t.db") as server:
            one = Client(server)
            one.made("p")
            one.session.close()
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "new").iterdir()}
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert set(modes.values()) == {0o600}
    assert "t.db" in modes


@pytest.mark.parametrize("kind", ["text", "folder", "other program", "newer"])
def test_a_file_that_is_no_database_of_ours(tmp_path: Path, kind: str) -> None:
    """It is refused with a reason and left as it was."""
    path = tmp_path / "it"
    if kind == "text":
        path.write_text("hello " * 500)
    elif kind == "folder":
        path.mkdir()
    elif kind == "newer":
        Database(path).close()
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE theirs (a)")
        connection.close()
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(DatabaseFileError, match="cannot be the tracker's database"):
        Database(path)
    assert not path.is_file() or path.read_bytes() == before


def test_local_server_leaves_nothing_behind() -> None:
    """No thread, no file, no socket; and it can be had again at once."""
    before = set(threading.enumerate())
    for _ in range(3):
        with LocalServer() as server:
            folder = server.db.parent
            assert requests.get(server.url + "/api/health", timeout=TIMEOUT).text == "OK"
        assert not folder.exists()
    assert set(threading.enumerate()) == before
    with pytest.raises(requests.ConnectionError):
        requests.get(server.url + "/api/health", timeout=TIMEOUT)


def test_environ_extends_no_proxy(server: LocalServer) -> None:
    variables = server.environ({"NO_PROXY": "intra.net, 10.0.0.1"})
    assert variables["NO_PROXY"] == variables["no_proxy"] == "intra.net,10.0.0.1,127.0.0.1"
    assert variables["PLUTO_API_KEY"] == server.api_key
    urls = ("PLUTO_URL_API", "PLUTO_URL_APP", "PLUTO_URL_INGEST", "PLUTO_URL_PY")
    assert {variables[name] for name in urls} == {server.url}


def test_importing_the_package_is_light() -> None:
    """Neither the package nor its server part loads click, starlette or sqlite until it is used."""
    code = (
        "import sys, pluto_dist, pluto_dist.server\n"
        "print([m for m in ('click', 'starlette', 'uvicorn', 'sqlite3', 'jinja2') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.strip() == "[]", shown.stderr


@pytest.mark.parametrize(
    "metadata",
    [
        "[1]",
        '"text"',
        '{"nodes":5,"node_classes":{},"cluster":[],"hosts":"x"}',
        '{"nodes":[1,null,"x",[],{"class":"a","gpus":5,"bad":[],"diff":{"a":1}}],"hosts":[1,null]}',
        '{"nodes":[{"class":true},{"class":-1},{"class":99},{"class":1.5}],"node_classes":[1,{"gpu":3,"nic":[1]}]}',
        '{"gpu":{"nvidia":{"devices":[1,{"memory":7}]}},"cpu":3,"platform":[]}',
        '{"hosts":[["a"],{"b":1}],"cluster":{"drift":{"x":[1]},"gpus":null},"drift":[5,{"nodes":[1]},{"field":{}}]}',
        '{"nodes":[{"gpus":[1],"rank":true,"gpu_of_rank":[[0]],"ranks":{},"uuid_of_rank":[{}],"hidden":[[]]}],"drift":1}',
        '{"node_classes":[{"gpu":{"memory":"a lot","power_limit_w":[1],"nvlink":4},"nic":{},"memory":{"total":-1}}]}',
    ],
)
def test_no_metadata_breaks_the_page(client: Client, project: str, metadata: str) -> None:
    made = client.made(project, systemMetadata=metadata)
    assert client.session.get(made["url"], timeout=TIMEOUT).status_code == 200


@pytest.mark.parametrize("name", ["a/b", "a b", "ü", "%2F", "?", "#", "", " ", "a\\b", "a\nb", "x" * 255, "'\"&"])
def test_the_url_of_a_run_opens_its_page(client: Client, name: Any) -> None:
    made = client.made(name, runName="the run of Ω", config='{"deep":' * 399 + "1" + "}" * 399)
    page = client.session.get(made["url"], timeout=TIMEOUT)
    assert page.status_code == 200
    assert "the run of Ω" in page.text
    listing = client.session.get(made["url"].rsplit("/", 1)[0], timeout=TIMEOUT)
    assert listing.status_code == 200
    assert made["displayId"] in html.unescape(listing.text)


def test_pages_of_nothing_are_404(client: Client, project: str) -> None:
    made = client.made(project)
    code = made["url"].rsplit("/", 1)[1]
    for path in (
        "/o/local-org/projects/none",
        f"/o/local-org/projects/none/{code}",
        f"/o/local-org/projects/{project}/!!",
        f"/o/other/projects/{project}/{code}",
        "/o/local-org",
        "/o/",
    ):
        assert client.get(path).status_code == 404
