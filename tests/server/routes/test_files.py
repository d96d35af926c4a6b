"""Files: announced, sent, listed, fetched; and all that must not be possible on the way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from pluto_dist.server import LocalServer
from pluto_dist.server.db import files
from pluto_dist.server.db.database import Database
from pluto_dist.server.db.files import Signatures
from server.conftest import TIMEOUT, Client

Made = dict[str, Any]


def entry(name: str = "a.bin", log_name: str = "model/last", **more: Any) -> dict[str, Any]:
    return {"fileName": name, "logName": log_name, "fileSize": 3, "fileType": "bin", "time": 1, "step": 2, **more}


def announce(client: Client, run: int, *entries: Any) -> requests.Response:
    return client.post("/files", {"files": list(entries)}, headers={"X-Run-Id": str(run)})


def listed(client: Client, run: Made, **query: Any) -> list[dict[str, Any]]:
    query = {"runId": run["runId"], "projectName": run["projectName"], **query}
    return list(client.get("/api/runs/files", params=query).json()["files"])


def put(url: str, data: bytes) -> requests.Response:
    return requests.put(url, data=data, timeout=TIMEOUT)


def fetch(url: str) -> requests.Response:
    return requests.get(url, timeout=TIMEOUT)


@pytest.fixture
def run(client: Client, project: str) -> Made:
    return client.made(project)


@pytest.fixture
def url(client: Client, run: Made) -> str:
    return str(announce(client, run["runId"], entry()).json()["model/last"][0]["a.bin"])


def test_there_and_back(client: Client, run: Made, url: str) -> None:
    """A file is listed once its bytes are here, with their size, and comes back as an attachment of no type."""
    assert listed(client, run) == []
    assert put(url, b"hello").status_code == 200
    (file,) = listed(client, run)
    assert {k: file[k] for k in ("fileName", "fileSize", "logName", "logGroup", "step")} == {
        "fileName": "a.bin",
        "fileSize": 5,
        "logName": "model/last",
        "logGroup": "model",
        "step": 2,
    }
    answer = fetch(file["url"])
    assert answer.content == b"hello"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


def test_announced_again_it_is_the_same_file(client: Client, run: Made, url: str) -> None:
    """A sender that starts over leaves one file, with the bytes that came last."""
    put(url, b"one")
    again = announce(client, run["runId"], entry(caption="now")).json()["model/last"][0]["a.bin"]
    put(again, b"three")
    (file,) = listed(client, run)
    assert (file["fileSize"], file["caption"], fetch(file["url"]).content) == (5, "now", b"three")


@pytest.mark.parametrize(
    "name", ["../../escape", "/etc/passwd", "..", "a/b\\c", "x" * 1000, "ü 🚀\r\nSet-Cookie: a=b", '"; x="', "<script>"]
)
def test_a_name_is_data(client: Client, run: Made, server: LocalServer, name: str) -> None:
    """Whatever a file is called, its bytes lie under their digest, and the name comes back as it was."""
    before = {path for path in server.db.parent.rglob("*") if not path.name.startswith(server.db.name)}
    url = announce(client, run["runId"], entry(name, log_name=name)).json()[name][0][name]
    assert put(url, name.encode()).status_code == 200
    (file,) = listed(client, run)
    assert (file["fileName"], file["logName"]) == (name, name)
    answer = fetch(file["url"])
    assert answer.content == name.encode()
    assert "set-cookie" not in answer.headers
    new = {path for path in server.db.parent.rglob("*") if not path.name.startswith(server.db.name)} - before
    assert all(len(path.name) in (2, 64) and set(path.name) <= set("0123456789abcdef") for path in new)


def test_the_same_bytes_lie_there_once(client: Client, run: Made, server: LocalServer) -> None:
    """Equal contents share one blob, and its folder is the owner's alone."""
    content = run["displayId"].encode() * 100
    for name in ("one", "two"):
        put(announce(client, run["runId"], entry(name)).json()["model/last"][0][name], content)
    folder = server.db.with_name(server.db.name + ".blobs")
    found = [path for path in folder.rglob("*") if path.is_file() and path.read_bytes() == content]
    assert len(found) == 1
    assert folder.stat().st_mode & 0o777 == 0o700
    assert found[0].stat().st_mode & 0o777 == 0o600


def test_an_address_is_for_one_thing(client: Client, run: Made, url: str) -> None:
    """An address opens its own file, by its own method, unaltered, and nothing else."""
    put(url, b"mine")
    other = announce(client, run["runId"], entry("b.bin")).json()["model/last"][0]["b.bin"]
    base, query = url.split("?")
    fields = {name: values[0] for name, values in parse_qs(query).items()}
    assert fetch(url).status_code == 403
    assert put(listed(client, run)[0]["url"], b"x").status_code == 403
    assert put(f"{other.split('?')[0]}?{query}", b"x").status_code == 403
    for changed in (
        {**fields, "expires": str(int(fields["expires"]) + 1)},
        {**fields, "signature": "0" * 64},
        {**fields, "signature": "ü"},
        {**fields, "expires": "9" * 30},
        {**fields, "expires": "-1"},
        {},
    ):
        assert requests.put(base, params=changed, data=b"x", timeout=TIMEOUT).status_code == 403
    assert fetch(listed(client, run)[0]["url"]).content == b"mine"


def test_an_address_expires(server: LocalServer, url: str) -> None:
    """After its time an address opens nothing, however well it is signed."""
    number = int(urlsplit(url).path.rpartition("/")[2])
    with closing(Database(server.db)) as database:
        late, early = (Signatures(database).query("GET", number, seconds) for seconds in (-1, 60))
    assert fetch(f"{server.url}/files/{number}?{late}").status_code == 403
    assert fetch(f"{server.url}/files/{number}?{early}").status_code == 404  # the bytes have not come yet
    expires = int(parse_qs(urlsplit(url).query)["expires"][0])
    assert 0 < expires - time.time() <= files.UPLOAD_S


def test_the_access_log_tells_no_signature(server: LocalServer, url: str) -> None:
    """The signature stands in the query, which the access log leaves out."""
    put(url, b"x")
    assert "signature" not in server.requests()[-1]
    assert parse_qs(urlsplit(url).query)["signature"][0] not in "".join(server.requests())


def test_who_may_announce(client: Client, stranger: Client, server: LocalServer, run: Made) -> None:
    """Announcing needs the key of the run's organization."""
    body = {"files": [entry()]}
    headers = {"X-Run-Id": str(run["runId"])}
    assert requests.post(server.url + "/files", json=body, headers=headers, timeout=TIMEOUT).status_code == 401
    assert announce(stranger, run["runId"], entry()).status_code == 404
    assert client.post("/files", body).status_code == 400  # no run


@pytest.mark.parametrize(
    "wrong",
    [
        "text",
        {},
        entry(fileName=""),
        entry(fileSize=-1),
        entry(fileSize=1.5),
        entry(fileSize=1e300),
        entry(step="1"),
        entry(step=10**30),
        entry(time=10**15),
        entry(name="a\x00"),
        entry(name="\ud800"),
        entry(name="n" * 1001),
        entry(caption=1),
    ],
    ids=str,
)
def test_what_is_no_file(client: Client, run: Made, wrong: Any) -> None:
    """An entry that is none is a 400 that says why, and nothing of the request is announced."""
    answer = announce(client, run["runId"], entry("good"), wrong)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]


def test_optional_fields_may_be_null(client: Client, run: Made) -> None:
    """The SDK sends a null step for a file that belongs to none."""
    answer = announce(client, run["runId"], entry(step=None, caption=None, annotations=None, sampleIndex=None))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "body", [{}, {"files": None}, {"files": {}}, {"files": [entry()] * 1001}], ids=lambda b: str(b)[:20]
)
def test_a_list_that_is_none(client: Client, run: Made, body: Any) -> None:
    """The list must be one, and of a bounded length."""
    assert client.post("/files", body, headers={"X-Run-Id": str(run["runId"])}).status_code == 400


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Client]:
    with LocalServer(tmp_path / "t.db", file_limit=1000) as server:
        one = Client(server)
        yield one
        one.session.close()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_has_a_limit(small: Client, tmp_path: Path, chunked: bool) -> None:
    """A file beyond the limit is 413, declared or not, and leaves nothing on the disk."""
    run = small.made("p")
    url = announce(small, run["runId"], entry()).json()["model/last"][0]["a.bin"]
    data: Any = (b"x" * 100 for _ in range(20)) if chunked else b"x" * 2000
    assert requests.put(url, data=data, timeout=TIMEOUT).status_code == 413
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "blobs" in str(path)] == []
    assert put(url, b"x" * 1000).status_code == 200
