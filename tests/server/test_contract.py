"""The contract, row by row: what the open-source server was measured to answer, and this one must.

A row says what is sent, the status and the shape of the answer, and a text that must be in it. Where
this server is better on purpose, ``better`` names what the measured server did.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from pluto_dist.server import LocalServer
from pluto_dist.server.database import Database
from pluto_dist.server.records import now_ms

from .conftest import TIMEOUT, Client

CREATE = "/api/runs/create"
ANSWER_KEYS = {
    "runId",
    "number",
    "displayId",
    "projectName",
    "organizationSlug",
    "url",
    "resumed",
    "forkedFromRunId",
    "forkStep",
}


def shape_of(answer: requests.Response) -> str:
    """run, ok, A, B, C or text: see the three error shapes in the server's answers module."""
    if not answer.headers.get("content-type", "").startswith("application/json"):
        return "text"
    body = answer.json()
    if answer.status_code == 200:
        return "run" if set(body) == ANSWER_KEYS else "ok"
    if isinstance(body["error"], dict):
        assert body["success"] is False
        assert body["error"]["name"] == "ZodError"
        assert all({"code", "path", "message"} <= set(issue) for issue in body["error"]["issues"])
        return "C"
    assert isinstance(body["error"], str)
    return "B" if "message" in body else "A"


@dataclass(frozen=True)
class Row:
    name: str
    fields: dict[str, Any]
    status: int
    shape: str
    text: str = ""
    resumes: bool = False  # sent after a create with the same external id
    better: str = field(default="", compare=False)


def deep(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


NEW = [
    Row("plain", {}, 200, "run"),
    Row("external id", {"externalId": "job-1"}, 200, "run"),
    Row("external id empty", {"externalId": ""}, 400, "C", "String must contain at least 1 character(s)"),
    Row("external id null", {"externalId": None}, 200, "run"),
    Row("external id number", {"externalId": 7}, 400, "C", "Expected string, received number"),
    Row("external id blank", {"externalId": " "}, 200, "run"),
    Row("external id 255", {"externalId": "x" * 255}, 200, "run"),
    Row("external id 255 emoji", {"externalId": "🚀" * 255}, 200, "run"),
    Row("external id 256", {"externalId": "x" * 256}, 400, "A", "externalId", better="500, number burned"),
    Row("run name 255", {"runName": "n" * 255}, 200, "run"),
    Row("run name 300", {"runName": "n" * 300}, 400, "A", "runName", better="500, number burned"),
    Row("run name empty", {"runName": ""}, 200, "run"),
    Row("run name null", {"runName": None}, 400, "C", "Expected string, received null"),
    Row("tags 50", {"tags": ["t"] * 50}, 200, "run"),
    Row("tags 51", {"tags": ["t"] * 51}, 400, "C", "A run can have at most 50 tags"),
    Row("tags a string", {"tags": "a"}, 400, "C", "Expected array, received string"),
    Row("tags with a number", {"tags": [1]}, 400, "C", "Expected string, received number"),
    Row("tags null", {"tags": None}, 200, "run"),
    Row("tags repeated and empty", {"tags": ["a", "a", ""]}, 200, "run"),
    Row("two groups", {"tags": ["group:a", "group:b"]}, 400, "A", "at most one group:* tag."),
    Row("one group twice", {"tags": ["group:a", "group:a"]}, 400, "A", "at most one group:* tag."),
    Row("Group is no group", {"tags": ["group:a", "Group:b"]}, 200, "run"),
    Row("config no JSON", {"config": "{"}, 400, "A", "Invalid JSON format in request body"),
    Row("metadata no JSON", {"systemMetadata": "x"}, 400, "A", "Invalid JSON format in request body"),
    Row("settings no JSON", {"loggerSettings": "x"}, 400, "A", "Invalid JSON format in request body"),
    Row("config an object", {"config": {}}, 400, "C", "Expected string, received object"),
    Row("metadata an object", {"systemMetadata": {}}, 400, "C", "Expected string, received object"),
    Row("config empty", {"config": ""}, 200, "run"),
    Row("config null text", {"config": "null"}, 200, "run"),
    Row("config list", {"config": "[1,2]"}, 200, "run"),
    Row("config scalar", {"config": "5"}, 200, "run"),
    Row("metadata list", {"systemMetadata": "[1]"}, 200, "run"),
    Row("NaN in config", {"config": '{"a":NaN}'}, 400, "A", "Invalid JSON format in request body"),
    Row("Infinity in metadata", {"systemMetadata": "[-Infinity]"}, 400, "A", "Invalid JSON format"),
    Row("1e400 in config", {"config": '{"a":1e400}'}, 200, "run"),
    Row("large integer", {"config": '{"a":9223372036854775807}'}, 200, "run"),
    Row("__proto__", {"config": '{"__proto__":{"a":1},"b":2}'}, 200, "run"),
    Row("123 deep", {"config": deep(123)}, 200, "run"),
    Row("124 deep", {"config": deep(124)}, 200, "run", better="500"),
    Row("2000 deep", {"config": deep(2000)}, 400, "A", better="500"),
    Row("NUL in config", {"config": r'{"a":"\u0000"}'}, 400, "A", "NUL", better="500, number burned"),
    Row("NUL in a key of metadata", {"systemMetadata": r'{"\u0000":1}'}, 400, "A", "NUL", better="500"),
    Row("NUL in run name", {"runName": "a\0"}, 400, "A", "runName contains a NUL", better="500"),
    Row("NUL in tag", {"tags": ["a\0"]}, 400, "A", "tags[0] contains a NUL", better="500"),
    Row("NUL in external id", {"externalId": "a\0"}, 400, "A", "externalId contains a NUL", better="500"),
    Row("NUL in project", {"projectName": "a\0"}, 400, "A", "projectName contains a NUL", better="500"),
    Row("surrogate in config", {"config": r'{"a":"\ud800"}'}, 400, "A", "lone surrogate", better="500"),
    Row("surrogate in run name", {"runName": "\ud800"}, 400, "A", "lone surrogate", better="500"),
    Row("surrogate in external id", {"externalId": "\ud800"}, 400, "A", "lone surrogate", better="500"),
    Row("created -1", {"createdAt": -1}, 400, "C"),
    Row("created 1.5", {"createdAt": 1.5}, 400, "C"),
    Row("created text", {"createdAt": "2026-01-01T00:00:00Z"}, 400, "C"),
    Row("created beyond any date", {"createdAt": 8640000000000001}, 400, "C"),
    Row("created 0", {"createdAt": 0}, 200, "run"),
    Row("created as float", {"createdAt": 1700000000000.0}, 200, "run"),
    Row("created at the end of 9999", {"createdAt": 253402300799999}, 200, "run"),
    Row("created in 10000", {"createdAt": 253402300800000}, 400, "A", "9999", better="500"),
    Row("updated in 10000", {"updatedAt": 8640000000000000}, 400, "A", "9999", better="500"),
    Row("unknown field", {"colour": "blue"}, 200, "run"),
    Row("fork without step", {"forkRunId": 1}, 400, "A", "forkStep is required when forkRunId is provided"),
    Row("fork of nothing", {"forkRunId": 10**9, "forkStep": 1}, 400, "A", "Fork parent run not found"),
    Row("fork of 0", {"forkRunId": 0, "forkStep": 1}, 200, "run"),
    Row("step without fork", {"forkStep": 1}, 200, "run"),
    Row("fork 1.5", {"forkRunId": 1.5, "forkStep": 1}, 400, "A", "forkRunId", better="500"),
    Row("fork step 1.5", {"forkRunId": 1, "forkStep": 1.5}, 400, "A", "forkStep", better="500"),
    Row("fork id text", {"forkRunId": "1", "forkStep": 1}, 400, "C", "Expected number, received string"),
    Row("inherit text", {"inheritConfig": "yes"}, 400, "C", "Expected boolean, received string"),
    Row("unicode", {"runName": "Ω/ü", "externalId": "日本", "tags": ["é"]}, 200, "run"),
    Row("project 255", {"projectName": "q" * 255}, 200, "run"),
    Row("project 256", {"projectName": "q" * 256}, 400, "A", "projectName", better="500"),
    Row("project empty", {"projectName": ""}, 200, "run"),
    Row("project blank", {"projectName": " "}, 200, "run"),
    Row("project dashes", {"projectName": "---"}, 200, "run"),
    Row("project ligatures", {"projectName": "ﬃ ﬃ ﬃ ﬃ ﬃ"}, 200, "run", better="500"),
]
RESUME = [
    Row("again", {}, 200, "run", resumes=True),
    Row("other name and tags", {"runName": "other", "tags": ["z"]}, 200, "run", resumes=True),
    Row("run name 300", {"runName": "n" * 300}, 200, "run", resumes=True),
    Row("tags 51", {"tags": ["t"] * 51}, 400, "C", "at most 50 tags", resumes=True),
    Row("two groups", {"tags": ["group:a", "group:b"]}, 400, "A", "group:*", resumes=True),
    Row("config no JSON", {"config": "{"}, 400, "A", "Invalid JSON", resumes=True, better="500"),
    Row("NaN in config", {"config": "[NaN]"}, 400, "A", "Invalid JSON", resumes=True, better="500"),
    Row("metadata no JSON", {"systemMetadata": "x"}, 200, "run", resumes=True),
    Row("settings no JSON", {"loggerSettings": "x"}, 200, "run", resumes=True),
    Row("NaN in metadata", {"systemMetadata": "[NaN]"}, 200, "run", resumes=True),
    Row("config list", {"config": "[1]"}, 200, "run", resumes=True),
    Row("NUL in config", {"config": r'{"a":"\u0000"}'}, 400, "A", "NUL", resumes=True, better="200, lost"),
    Row("created in 10000", {"createdAt": 253402300800000}, 200, "run", resumes=True),
    Row("fork of nothing", {"forkRunId": 10**9, "forkStep": 1}, 200, "run", resumes=True),
    Row("fork without step", {"forkRunId": 3}, 200, "run", resumes=True),
]


def row_id(row: Row) -> str:
    return ("resume: " if row.resumes else "new: ") + row.name + (" (better)" if row.better else "")


@pytest.mark.parametrize("row", NEW + RESUME, ids=row_id)
def test_row_of_create(client: Client, project: str, row: Row) -> None:
    """Status and shape are the measured ones; a refusal takes no number and makes no project."""
    body = {"runName": "run", "projectName": project, **row.fields}
    if row.resumes:
        body["externalId"] = "job"
        first = client.made(project, "job", config='{"kept":1}', tags=["first"])
    answer = client.post(CREATE, data=json.dumps(body), headers={"Content-Type": "application/json"})

    assert (answer.status_code, shape_of(answer)) == (row.status, row.shape), answer.text
    assert row.text in json.dumps(answer.json(), ensure_ascii=False)
    if row.resumes and row.status == 200:
        assert answer.json()["resumed"] is True
        assert answer.json()["runId"] == first["runId"]
        assert answer.json()["forkedFromRunId"] is None
        details = client.details(first["runId"])
        assert (details["name"], details["tags"], details["config"]) == ("run", ["first"], {"kept": 1})
    if row.status == 200 and not row.resumes:
        assert answer.json()["resumed"] is False
    if row.status != 200 and not row.resumes:
        listing = client.get("/api/runs/list", params={"projectName": project}).json()
        assert listing == {"runs": [], "total": 0}
        assert client.made(project)["number"] == 1


@dataclass(frozen=True)
class BodyRow:
    name: str
    content_type: str | None
    data: bytes
    status: int
    shape: str
    text: str


GOOD = b'{"runName":"r","projectName":"bodies"}'
BODIES = [
    BodyRow("empty", "application/json", b"", 400, "A", "Malformed JSON in request body"),
    BodyRow("not JSON", "application/json", b"{", 400, "A", "Malformed JSON in request body"),
    BodyRow("gzip", "application/json", gzip.compress(GOOD), 400, "A", "Malformed JSON in request body"),
    BodyRow("NaN", "application/json", b'{"createdAt":NaN}', 400, "A", "Malformed JSON in request body"),
    BodyRow("array", "application/json", b"[]", 400, "C", "Expected object, received array"),
    BodyRow("null", "application/json", b"null", 400, "C", "Expected object, received null"),
    BodyRow("no field", "application/json", b"{}", 400, "C", "Required"),
    BodyRow("no project", "application/json", b'{"runName":"r"}', 400, "C", "Required"),
    BodyRow("no content type", None, GOOD, 500, "A", "Internal Server Error"),
    BodyRow("text", "text/plain", GOOD, 500, "A", "Internal Server Error"),
    BodyRow("charset", "application/json; charset=utf-8", GOOD, 200, "run", "runId"),
    BodyRow("json suffix", "application/vnd.api+json", GOOD, 200, "run", "runId"),
]


@pytest.mark.parametrize("row", BODIES, ids=lambda row: row.name)
def test_row_of_bodies(client: Client, row: BodyRow) -> None:
    headers = {"Content-Type": row.content_type} if row.content_type else {}
    answer = client.post(CREATE, data=row.data, headers=headers)
    assert (answer.status_code, shape_of(answer)) == (row.status, row.shape), answer.text
    assert row.text in answer.text


KEY = "KEY"  # stands for the server's key below
AUTH = [
    ("missing", None, 401, None),
    ("no key after the scheme", "Bearer ", 401, None),
    ("key without scheme", KEY, 401, None),
    ("two blanks", f"Bearer  {KEY}", 401, None),
    ("unknown", "Bearer mlps_unknown", 401, "Key not found"),
    ("unknown mlpi", "Bearer mlpi_unknown", 401, "Key not found"),
    ("wrong prefix", "Bearer sk-123", 401, "Invalid API key"),
    ("Basic as the scheme", f"Basic {KEY}", 200, None),
    ("lower case", f"bearer {KEY}", 200, None),
]


@pytest.mark.parametrize("body", [{"runName": "r", "projectName": "auth"}, "garbage"], ids=["good", "bad"])
@pytest.mark.parametrize(("name", "header", "status", "message"), AUTH, ids=[row[0] for row in AUTH])
def test_row_of_keys(
    server: LocalServer, name: str, header: str | None, status: int, message: str | None, body: Any
) -> None:
    """The key is looked at before the body; no answer repeats it."""
    headers = {} if header is None else {"Authorization": header.replace(KEY, server.api_key)}
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(server.url + CREATE, json=body, headers=headers, timeout=TIMEOUT)
    if status == 200:
        assert answer.status_code == (200 if isinstance(body, dict) else 400)
        return
    expected = {"error": "Unauthorized"} | ({"message": message} if message else {})
    assert (answer.status_code, answer.json()) == (401, expected)
    assert server.api_key not in answer.text


def test_revoked_and_expired_keys_say_so(server: LocalServer, connect: Any) -> None:
    """Keys are looked up in the file at every request: another process may revoke one."""
    other = Database(server.db)
    try:
        other.add_key("mlps_revoked-key")
        other.revoke_key("mlps_revoked-key")
        other.add_key("mlps_expired-key", expires_at=now_ms() - 1)
    finally:
        other.close()
    for key, message in (("revoked", "has been revoked"), ("expired", "has expired")):
        answer = connect(f"mlps_{key}-key").get("/api/runs/auth/validate")
        assert (answer.status_code, answer.json()["message"]) == (401, f"API key {message}")


def test_another_organization_has_runs_of_its_own(
    server: LocalServer, client: Client, connect: Any, project: str
) -> None:
    other = Database(server.db)
    try:
        other.add_key("mlps_other-org-key", organization="other-org")
    finally:
        other.close()
    theirs = connect("mlps_other-org-key")
    mine = client.made(project, "job")
    made = theirs.made(project, "job")
    assert (made["resumed"], made["number"], made["organizationSlug"]) == (False, 1, "other-org")
    assert made["runId"] != mine["runId"]
    assert theirs.get(f"/api/runs/details/{mine['runId']}").status_code == 404
    assert theirs.status(mine["runId"], "FAILED").status_code == 404
    fork = theirs.create(project, forkRunId=mine["runId"], forkStep=1)
    assert fork.json() == {"error": "Fork parent run not found in this project"}


LOCKED = [
    ("POST", CREATE),
    ("POST", "/api/runs/resume"),
    ("POST", "/api/runs/status/update"),
    ("POST", "/api/runs/config/update"),
    ("POST", "/api/runs/trigger"),
    ("POST", "/api/slug"),
    ("GET", "/api/runs/details/1"),
    ("GET", "/api/runs/details/by-display-id/A-1"),
    ("GET", "/api/runs/list"),
    ("GET", "/api/runs/auth/validate"),
    ("POST", "/api/runs/tags/update"),
    ("POST", "/api/runs/logName/add"),
    ("POST", "/api/runs/alert"),
    ("POST", "/api/runs/modelGraph/create"),
    ("POST", "/ingest/metrics"),
    ("POST", "/ingest/logs"),
    ("POST", "/ingest/data"),
    ("POST", "/files"),
    ("GET", "/api/runs/projects"),
    ("GET", "/api/runs/metric-names"),
    ("GET", "/api/runs/metrics"),
    ("GET", "/api/runs/logs"),
    ("GET", "/api/runs/data"),
    ("GET", "/api/runs/files"),
    ("GET", "/api/runs/statistics"),
    ("GET", "/api/runs/compare"),
    ("GET", "/api/runs/leaderboard"),
]


@pytest.mark.parametrize(("method", "path"), LOCKED, ids=str)
def test_every_route_wants_the_key(server: LocalServer, method: str, path: str) -> None:
    answer = requests.request(method, server.url + path, timeout=TIMEOUT)
    assert (answer.status_code, answer.json()) == (401, {"error": "Unauthorized"})


UNKNOWN = [
    ("PUT", CREATE),
    ("POST", CREATE + "/"),
    ("GET", CREATE),
    ("POST", "/api/runs/auth/validate"),
    ("GET", "/api/slug"),
    ("GET", "/api/runs/nothing"),
    ("DELETE", "/"),
    ("GET", "/static/../app.py"),
]


@pytest.mark.parametrize(("method", "path"), UNKNOWN, ids=str)
def test_unknown_paths_and_methods_are_plain_404(client: Client, method: str, path: str) -> None:
    answer = client.session.request(method, client.url + path, timeout=TIMEOUT)
    assert (answer.status_code, answer.text) == (404, "404 Not Found")


def test_the_small_routes(client: Client) -> None:
    validated = client.get("/api/runs/auth/validate")
    assert validated.status_code == 200
    assert validated.json()["valid"] is True
    assert client.post("/api/slug").json() == {"organization": {"slug": "local-org"}}
    health = requests.get(client.url + "/api/health", timeout=TIMEOUT)
    assert (health.status_code, health.text) == (200, "OK")


def test_names_that_differ_anyhow_are_different_runs(client: Client, project: str) -> None:
    """Case, blanks and the normal form of Unicode count, in external ids and in project names."""
    ids = ["x1", "X1", "x1 ", "\u00e9", "e\u0301"]
    assert len({client.made(project, each)["runId"] for each in ids}) == len(ids)
    projects = [project + each for each in ("\u00e9", "e\u0301")]
    assert len({client.made(each, "x1")["runId"] for each in projects}) == 2


STORED = [
    ('{"a":1e400}', {"a": None}),
    ('{"a":9223372036854775807}', {"a": 9223372036854776000.0}),
    ('{"__proto__":{"a":1},"b":2}', {"b": 2}),
    ("null", None),
    ("", None),
    ('"abc"', "abc"),
    ("false", False),
    ("[1,2]", [1, 2]),
]


@pytest.mark.parametrize(("sent", "stored"), STORED, ids=[sent or "empty" for sent, _ in STORED])
def test_config_is_stored_as_measured(client: Client, project: str, sent: str, stored: Any) -> None:
    run = client.made(project, "job", config=sent)
    assert client.details(run["runId"])["config"] == stored


def test_a_list_as_config_becomes_an_object_when_keys_arrive(client: Client, project: str) -> None:
    run = client.made(project, "job", config="[1,2]")
    client.made(project, "job", config='{"a":1}')
    assert client.details(run["runId"])["config"] == {"0": 1, "1": 2, "a": 1}


def test_what_a_later_rank_brings(client: Client, project: str) -> None:
    """Metadata, settings and tags stay the creator's; config is merged at every depth, later wins."""
    run = client.made(
        project,
        "job",
        tags=["first"],
        systemMetadata='{"host":"A"}',
        config='{"who":"A","shared":{"a":1,"x":"A"},"lst":[1,2],"s":1}',
    )
    for who in "BC":
        client.made(
            project,
            "job",
            tags=[who],
            systemMetadata=json.dumps({"host": who}),
            loggerSettings="{}",
            config=json.dumps({"who": who, "shared": {who: 1, "x": None}, "lst": [who], "s": {"now": who}}),
        )
    client.made(project, "job", config="{}")
    found = client.details(run["runId"])
    assert (found["tags"], found["systemMetadata"], found["loggerSettings"]) == (["first"], {"host": "A"}, None)
    assert found["config"] == {
        "who": "C",
        "shared": {"a": 1, "x": None, "B": 1, "C": 1},
        "lst": ["C"],
        "s": {"now": "C"},
    }
    assert [attach["outcome"] for attach in found["attaches"]] == ["created"] + ["resumed"] * 3
    assert found["attachCount"] == 4
    assert "systemMetadata" in found["attaches"][0]["fields"]
    assert found["attaches"][0]["userAgent"].startswith("python-requests")


def test_config_update(client: Client, project: str) -> None:
    run = client.made(project, config='{"a":{"x":1}}')["runId"]
    for config, status in [
        ('{"a":{"y":2},"b":3}', 200),
        ("null", 200),
        ("{", 400),
        (r'{"z":"\u0000"}', 400),
        ('{"q":NaN}', 400),
    ]:
        answer = client.post("/api/runs/config/update", {"runId": run, "config": config})
        assert answer.status_code == status, answer.text
        assert shape_of(answer) == ("ok" if status == 200 else "A")
    assert client.details(run)["config"] == {"a": {"x": 1, "y": 2}, "b": 3}
    unknown = client.post("/api/runs/config/update", {"runId": 10**9, "config": "{}"})
    assert (unknown.status_code, unknown.json()) == (404, {"error": "Run not found"})


def test_created_at_keeps_milliseconds(client: Client, project: str) -> None:
    run = client.made(project, createdAt=1700000000123, updatedAt=253402300799999)["runId"]
    found = client.details(run)
    assert found["createdAt"] == "2023-11-14T22:13:20.123Z"
    assert found["updatedAt"] == "9999-12-31T23:59:59.999Z"


@pytest.mark.parametrize("megabytes", [1, 20])
def test_large_metadata_is_kept(client: Client, project: str, megabytes: int) -> None:
    blob = "x" * (megabytes * 1_000_000)
    run = client.made(project, systemMetadata=json.dumps({"blob": blob}))["runId"]
    assert client.details(run)["systemMetadata"] == {"blob": blob}


def test_a_body_beyond_the_limit_is_413(project: str) -> None:
    with LocalServer(body_limit=100_000) as small:
        one = Client(small)
        try:
            answer = one.create(project, config=json.dumps("x" * 5_000_000))
            assert (answer.status_code, shape_of(answer)) == (413, "A")
            assert one.made(project)["number"] == 1
        finally:
            one.session.close()


def test_list_is_newest_first(client: Client, project: str) -> None:
    made = [client.made(project, runName=f"r{n}", tags=[str(n)])["runId"] for n in range(5)]
    answer = client.get("/api/runs/list", params={"projectName": project, "limit": 3}).json()
    assert [run["id"] for run in answer["runs"]] == made[::-1][:3]
    assert answer["total"] == 5
    assert {"id", "name", "number", "displayId", "status", "tags", "createdAt"} <= set(answer["runs"][0])
    for wrong in ({}, {"projectName": project, "limit": "0"}, {"projectName": project, "limit": "x"}):
        refused = client.get("/api/runs/list", params=wrong)
        assert (refused.status_code, shape_of(refused)) == (400, "C")
