"""API keys are stored only as hashes, and appear in no log and no response."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import requests

from pluto_dist.server import LocalServer
from server.conftest import TIMEOUT, Client
from server.processes import ServerProcess


def test_key_is_not_disclosed(tmp_path: Path) -> None:
    """The key is not in the access log (even if a client puts it in a URL), the database, a page or a repr."""
    with LocalServer(tmp_path / "t.db") as server:
        client = Client(server)
        client.session.headers["User-Agent"] = f"agent {server.api_key}"
        run = client.create_run("p", "job")
        client.get(f"/o/{server.api_key}?key={server.api_key}")
        client.get("/api/runs/auth/validate", headers={"Authorization": f"Bearer {server.api_key}x"})
        texts = [client.get("/").text, client.session.get(run["url"], timeout=TIMEOUT).text, repr(server)]
        texts += [*server.requests(), client.get(f"/api/runs/details/{run['runId']}").text]
        client.session.close()
        key = server.api_key
    secret = key.removeprefix("mlps_")
    assert not [text for text in texts if secret in text]
    for file in tmp_path.iterdir():
        assert secret.encode() not in file.read_bytes()


def test_key_is_stored_as_a_hash(start: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """No file of the database contains a key that was used."""
    db, key = tmp_path / "tracker.db", "mlps_" + "k" * 32
    server = start("--port", "0", "--db", str(db), env={"PLUTO_DIST_SERVER_KEY": key}).wait_until_ready()
    headers = {"Authorization": f"Bearer {key}"}
    assert requests.get(f"{server.url}/api/runs/auth/validate", headers=headers, timeout=10).status_code == 200
    server.stop()
    for file in tmp_path.glob("tracker.db*"):
        assert key.encode() not in file.read_bytes()
