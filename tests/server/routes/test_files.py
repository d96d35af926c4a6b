"""Files: upload URLs, uploads, lists and downloads; signatures, limits and invalid requests."""

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
from pluto_dist.server.db.files import UrlSigner
from server.conftest import TIMEOUT, Client, Run


def entry(name: str = "a.bin", log_name: str = "model/last", **more: Any) -> dict[str, Any]:
    return {"fileName": name, "logName": log_name, "fileSize": 3, "fileType": "bin", "time": 1, "step": 2, **more}


def register(client: Client, run: int, *entries: Any) -> requests.Response:
    return client.post("/files", {"files": list(entries)}, headers={"X-Run-Id": str(run)})


def list_files(client: Client, run: Run) -> list[dict[str, Any]]:
    return list(client.query("files", run).json()["files"])


def upload(url: str, data: bytes) -> requests.Response:
    return requests.put(url, data=data, timeout=TIMEOUT)


def download(url: str) -> requests.Response:
    return requests.get(url, timeout=TIMEOUT)


@pytest.fixture
def run(client: Client, project: str) -> Run:
    return client.create_run(project)


@pytest.fixture
def url(client: Client, run: Run) -> str:
    return str(register(client, run["runId"], entry()).json()["model/last"][0]["a.bin"])


def test_upload_and_download(client: Client, run: Run, url: str) -> None:
    """A file is listed once it is uploaded, with its size, and downloaded as an attachment."""
    assert list_files(client, run) == []
    assert upload(url, b"hello").status_code == 200
    (file,) = list_files(client, run)
    assert {k: file[k] for k in ("fileName", "fileSize", "logName", "logGroup", "step")} == {
        "fileName": "a.bin",
        "fileSize": 5,
        "logName": "model/last",
        "logGroup": "model",
        "step": 2,
    }
    response = download(file["url"])
    assert response.content == b"hello"
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"].startswith("attachment")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in response.headers["content-security-policy"]


def test_repeated_registration(client: Client, run: Run, url: str) -> None:
    """A file that is registered and uploaded twice exists once, with the last bytes."""
    upload(url, b"one")
    again = register(client, run["runId"], entry(caption="now")).json()["model/last"][0]["a.bin"]
    upload(again, b"three")
    (file,) = list_files(client, run)
    assert (file["fileSize"], file["caption"], download(file["url"]).content) == (5, "now", b"three")


@pytest.mark.parametrize(
    "name", ["../../escape", "/etc/passwd", "..", "a/b\\c", "x" * 1000, "ü 🚀\r\nSet-Cookie: a=b", '"; x="', "<script>"]
)
def test_names_are_not_paths(client: Client, run: Run, server: LocalServer, name: str) -> None:
    """Any name is listed unchanged, and the bytes are stored under their digest."""
    before = {path for path in server.db.parent.rglob("*") if not path.name.startswith(server.db.name)}
    url = register(client, run["runId"], entry(name, log_name=name)).json()[name][0][name]
    assert upload(url, name.encode()).status_code == 200
    (file,) = list_files(client, run)
    assert (file["fileName"], file["logName"]) == (name, name)
    response = download(file["url"])
    assert response.content == name.encode()
    assert "set-cookie" not in response.headers
    new = {path for path in server.db.parent.rglob("*") if not path.name.startswith(server.db.name)} - before
    assert all(len(path.name) in (2, 64) and set(path.name) <= set("0123456789abcdef") for path in new)


def test_equal_contents_are_stored_once(client: Client, run: Run, server: LocalServer) -> None:
    """Equal contents share one blob of mode 0600, in a folder of mode 0700."""
    content = run["displayId"].encode() * 100
    for name in ("one", "two"):
        upload(register(client, run["runId"], entry(name)).json()["model/last"][0][name], content)
    folder = server.db.with_name(server.db.name + ".blobs")
    found = [path for path in folder.rglob("*") if path.is_file() and path.read_bytes() == content]
    assert len(found) == 1
    assert folder.stat().st_mode & 0o777 == 0o700
    assert found[0].stat().st_mode & 0o777 == 0o600


def test_signature_covers_file_and_method(client: Client, run: Run, url: str) -> None:
    """A signed URL is valid for its file and its method only, and only unaltered."""
    upload(url, b"mine")
    other = register(client, run["runId"], entry("b.bin")).json()["model/last"][0]["b.bin"]
    base, query = url.split("?")
    fields = {name: values[0] for name, values in parse_qs(query).items()}
    assert download(url).status_code == 403
    assert upload(list_files(client, run)[0]["url"], b"x").status_code == 403
    assert upload(f"{other.split('?')[0]}?{query}", b"x").status_code == 403
    for changed in (
        {**fields, "expires": str(int(fields["expires"]) + 1)},
        {**fields, "signature": "0" * 64},
        {**fields, "signature": "ü"},
        {**fields, "expires": "9" * 30},
        {**fields, "expires": "-1"},
        {},
    ):
        assert requests.put(base, params=changed, data=b"x", timeout=TIMEOUT).status_code == 403
    assert download(list_files(client, run)[0]["url"]).content == b"mine"


def test_signature_expires(server: LocalServer, url: str) -> None:
    """A signed URL is rejected once it has expired."""
    number = int(urlsplit(url).path.rpartition("/")[2])
    with closing(Database(server.db)) as database:
        expired, valid = (UrlSigner(database).sign("GET", number, seconds) for seconds in (-1, 60))
    assert download(f"{server.url}/files/{number}?{expired}").status_code == 403
    assert download(f"{server.url}/files/{number}?{valid}").status_code == 404  # the file is not uploaded yet
    expires = int(parse_qs(urlsplit(url).query)["expires"][0])
    assert 0 < expires - time.time() <= files.UPLOAD_S


def test_access_log_omits_the_signature(server: LocalServer, url: str) -> None:
    """The access log omits the query string, which contains the signature."""
    upload(url, b"x")
    assert "signature" not in server.requests()[-1]
    assert parse_qs(urlsplit(url).query)["signature"][0] not in "".join(server.requests())


def test_registration_requires_the_key(
    client: Client, other_organization: Client, server: LocalServer, run: Run
) -> None:
    """Upload URLs require the key of the run's organization."""
    body = {"files": [entry()]}
    headers = {"X-Run-Id": str(run["runId"])}
    assert requests.post(server.url + "/files", json=body, headers=headers, timeout=TIMEOUT).status_code == 401
    assert register(other_organization, run["runId"], entry()).status_code == 404
    assert client.post("/files", body).status_code == 400  # no X-Run-Id


@pytest.mark.parametrize(
    "invalid",
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
def test_invalid_entry(client: Client, run: Run, invalid: Any) -> None:
    """An invalid entry is answered 400 with a reason."""
    response = register(client, run["runId"], entry("valid"), invalid)
    assert response.status_code == 400, response.text
    assert response.json()["error"]


def test_optional_fields_may_be_null(client: Client, run: Run) -> None:
    """The SDK sends a null step for a file without a step."""
    response = register(client, run["runId"], entry(step=None, caption=None, annotations=None, sampleIndex=None))
    assert response.status_code == 200


@pytest.mark.parametrize(
    "body", [{}, {"files": None}, {"files": {}}, {"files": [entry()] * 1001}], ids=lambda b: str(b)[:20]
)
def test_invalid_file_list(client: Client, run: Run, body: Any) -> None:
    """``files`` is a list of limited length."""
    assert client.post("/files", body, headers={"X-Run-Id": str(run["runId"])}).status_code == 400


@pytest.fixture
def limited_client(tmp_path: Path) -> Iterator[Client]:
    with LocalServer(tmp_path / "t.db", file_limit=1000) as server:
        one = Client(server)
        yield one
        one.session.close()


@pytest.mark.parametrize("chunked", [False, True])
def test_file_limit(limited_client: Client, tmp_path: Path, chunked: bool) -> None:
    """A file over the limit is answered 413, with and without a Content-Length, and nothing is stored."""
    run = limited_client.create_run("p")
    url = register(limited_client, run["runId"], entry()).json()["model/last"][0]["a.bin"]
    data: Any = (b"x" * 100 for _ in range(20)) if chunked else b"x" * 2000
    assert requests.put(url, data=data, timeout=TIMEOUT).status_code == 413
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "blobs" in str(path)] == []
    assert upload(url, b"x" * 1000).status_code == 200
