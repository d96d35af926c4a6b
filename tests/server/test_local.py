"""``LocalServer``: its environment variables, what it leaves behind, and what importing it loads."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import requests

from pluto_dist.server import LocalServer
from server.conftest import TIMEOUT


def test_local_server_leaves_nothing_behind() -> None:
    """After ``stop`` there is no thread, no file and no socket; another server can start at once."""
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
    """The variables have the key, all four URLs, and the server's host in NO_PROXY."""
    variables = server.environ({"NO_PROXY": "intra.net, 10.0.0.1"})
    assert variables["NO_PROXY"] == variables["no_proxy"] == "intra.net,10.0.0.1,127.0.0.1"
    assert variables["PLUTO_API_KEY"] == server.api_key
    urls = ("PLUTO_URL_API", "PLUTO_URL_APP", "PLUTO_URL_INGEST", "PLUTO_URL_PY")
    assert {variables[name] for name in urls} == {server.url}


def test_importing_the_package_is_light() -> None:
    """Importing the package or its server loads neither click nor what the server needs."""
    code = (
        "import sys, pluto_dist, pluto_dist.server\n"
        "print([m for m in ('click', 'starlette', 'uvicorn', 'sqlite3', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]", done.stderr
