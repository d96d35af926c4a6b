"""Runs: status precedence, resume, heartbeat, config, forks, details and lists."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pluto_dist.contract import attempts
from pluto_dist.contract.run_requests import STATUSES
from server.conftest import Client, error_shape

ENDS = ("COMPLETED", "TERMINATED", "CANCELLED", "FAILED")  # in ascending precedence


@pytest.mark.parametrize(("first", "second"), list(itertools.product(STATUSES, STATUSES)))
def test_status_precedence(client: Client, project: str, first: str, second: str) -> None:
    """Every update succeeds; an end after one of higher precedence has no effect; RUNNING always has."""
    run = client.create_run(project)["runId"]
    for status in (first, second):
        response = client.status(run, status)
        assert (response.status_code, response.json()) == (200, {"success": True})
    expected = second
    if second != "RUNNING" and first != "RUNNING" and ENDS.index(second) < ENDS.index(first):
        expected = first
    found = client.details(run)
    assert found["status"] == expected
    changes = [change["to"] for change in found["statusHistory"]]
    assert all(a != b for a, b in itertools.pairwise(changes))
    assert changes[-1] == expected


def test_concurrent_ends_keep_the_highest_precedence(client: Client, connect: Any, project: str) -> None:
    run = client.create_run(project)["runId"]
    clients = [connect() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(clients[n % 8].status, run, ENDS[n % 4]) for n in range(32)]
        assert {each.result(60).status_code for each in sent} == {200}
    assert client.details(run)["status"] == "FAILED"


@pytest.mark.parametrize("status", ["running", "FINISHED", "STOPPED", "CRASHED", "", None])
def test_unknown_statuses_are_rejected(client: Client, project: str, status: Any) -> None:
    response = client.status(client.create_run(project)["runId"], status)
    assert (response.status_code, error_shape(response)) == (400, "C")


def test_status_documents(client: Client, project: str) -> None:
    run = client.create_run(project)["runId"]
    for name in ("statusMetadata", "loggerSettings"):
        response = client.status(run, "FAILED", **{name: "{"})
        assert (response.status_code, response.json()) == (400, {"error": f"Invalid {name} JSON"})
        for bad in ("NUL", "surrogate"):
            sent = json.dumps({"x": "\0" if bad == "NUL" else "\ud800"})
            response = client.status(run, "FAILED", **{name: sent})
            assert (response.status_code, error_shape(response)) == (400, "A")
            assert name in response.text
            assert bad in response.text
    found = client.details(run)
    assert (found["status"], found["statusUpdated"]) == ("RUNNING", None)
    client.status(run, "FAILED", statusMetadata='{"exit":1}', loggerSettings='{"x":{"y":1}}')
    client.status(run, "FAILED", loggerSettings='{"x":{"z":2}}')
    found = client.details(run)
    assert (found["statusMetadata"], found["loggerSettings"]) == ({"exit": 1}, {"x": {"y": 1, "z": 2}})
    client.status(run, "RUNNING", statusMetadata=None)
    found = client.details(run)
    assert (found["statusMetadata"], found["loggerSettings"]) == (None, {"x": {"y": 1, "z": 2}})


@pytest.mark.parametrize(
    ("run", "status"), [(10**9, 404), (2**62, 404), (10**40, 400), (-(10**40), 400), (-1, 404), (1.5, 400)]
)
def test_unknown_runs(client: Client, run: float, status: int) -> None:
    for response in (
        client.status(int(run) if run > 2 else run, "RUNNING"),
        client.post("/api/runs/trigger", {"runId": run}),
        client.post("/api/runs/resume", {"runId": run}),
        client.get(f"/api/runs/details/{run}"),
    ):
        assert (response.status_code, error_shape(response)) == (status, "A"), response.text


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("how", ["create", "resume"])
def test_attach_after_the_end_reopens_the_run(client: Client, project: str, end: str, how: str) -> None:
    run = client.create_run(project, "job")["runId"]
    client.status(run, end)
    if how == "create":
        assert client.create_run(project, "job")["resumed"] is True
    else:
        assert client.post("/api/runs/resume", {"runId": run}).status_code == 200
    found = client.details(run)
    assert found["status"] == "RUNNING"
    assert [(c["from"], c["to"], c["source"]) for c in found["statusHistory"]] == [
        (None, "RUNNING", "create"),
        ("RUNNING", end, "update"),
        (end, "RUNNING", how),
    ]


def test_the_row_is_written_after_its_status(client: Client, project: str) -> None:
    """As on the hosted tracker, where equal times are rare: a client cannot take them for each other."""
    run = client.create_run(project, "job")["runId"]
    for request in ("FAILED", "resume", "FAILED", "create", "RUNNING"):
        if request == "create":
            client.create_run(project, "job")
        elif request == "resume":
            client.post("/api/runs/resume", {"runId": run})
        else:
            client.status(run, request)
        found = client.details(run)
        assert found["statusUpdated"] < found["updatedAt"], request


def test_resume_by_each_id(client: Client, project: str) -> None:
    created = client.create_run(project, "job")
    for ids in (
        {"runId": created["runId"]},
        {"displayId": created["displayId"], "projectName": project},
        {"displayId": created["displayId"].lower(), "projectName": project},
        {"externalId": "job", "projectName": project},
    ):
        response = client.post("/api/runs/resume", ids)
        assert response.status_code == 200, response.text
        assert {**response.json(), "forkedFromRunId": None, "forkStep": None} == {**created, "resumed": True}
        assert not {"forkedFromRunId", "forkStep"} & set(response.json())


REJECTED = [
    ({"externalId": "job"}, 400, "A", "projectName is required when using externalId"),
    ({"externalId": "nobody", "projectName": "nowhere"}, 404, "A", "Run not found"),
    ({"externalId": "\ud800", "projectName": "nowhere"}, 400, "A", "lone surrogate"),
    ({"displayId": "ZZZ-999", "projectName": "nowhere"}, 404, "A", "Run not found"),
    ({"displayId": "no number"}, 400, "A", "display"),
    ({"displayId": f"AAA-{2**31}"}, 400, "A", "at most 2147483647"),
    ({"displayId": f"AAA-{'9' * 5000}"}, 400, "A", "at most 2147483647"),
    ({"displayId": "ZZZ-0000000000000000000000009"}, 404, "A", "Run not found"),
    ({"runId": 10**400}, 400, "A", "runId is 1000"),
    ({}, 400, "C", "Exactly one"),
    ({"runId": 1, "displayId": "A-1"}, 400, "C", "Exactly one"),
    ({"runId": "1"}, 400, "C", "Expected number"),
]


@pytest.mark.parametrize(("body", "status", "shape", "text"), REJECTED, ids=lambda value: str(value)[:40])
def test_resume_rejects(client: Client, body: Any, status: int, shape: str, text: str) -> None:
    response = client.post("/api/runs/resume", body)
    assert (response.status_code, error_shape(response)) == (status, shape)
    assert text in response.text


def test_ambiguous_display_id(client: Client) -> None:
    first, second = (client.create_run(name) for name in ("ambi-guous one", "ambi-guous-other"))
    assert first["displayId"] == second["displayId"] == "AGO-1"
    response = client.post("/api/runs/resume", {"displayId": "AGO-1"})
    assert (response.status_code, error_shape(response)) == (409, "A")
    assert "ambi-guous one" in response.text
    found = client.get("/api/runs/details/by-display-id/AGO-1", params={"projectName": "ambi-guous-other"})
    assert found.json()["id"] == second["runId"]
    assert client.get("/api/runs/details/by-display-id/AGO-1").status_code == 409


def test_details_by_each_id(client: Client, project: str) -> None:
    created = client.create_run(project, "job", runName="n", systemMetadata='{"a":[1]}', loggerSettings='{"l":1}')
    found = client.details(created["runId"])
    assert {
        "config": None,
        "systemMetadata": {"a": [1]},
        "loggerSettings": {"l": 1},
        "status": "RUNNING",
        "statusMetadata": None,
        "statusUpdated": None,
        "externalId": "job",
        "tags": [],
        "name": "n",
        "projectName": project,
        "number": 1,
        "forkedFromRunId": None,
        "forkStep": None,
        "logNames": [],
        "url": created["url"],
    }.items() <= found.items()
    other = client.get(
        f"/api/runs/details/by-display-id/{created['displayId']}", params={"projectName": project}
    ).json()
    assert other == {k: v for k, v in found.items() if k not in ("forkedFromRunId", "forkStep")}
    code = created["url"].rsplit("/", 1)[1]
    response = client.get(f"/api/runs/details/{code}x")
    assert (response.status_code, error_shape(response)) == (400, "C")


def test_heartbeat(client: Client, project: str) -> None:
    run = client.create_run(project)["runId"]
    assert client.details(run)["heartbeatAt"] is None
    assert client.post("/api/runs/trigger", {"runId": run}).json() == {"status": "RUNNING", "triggers": None}
    client.status(run, "CANCELLED")
    assert client.post("/api/runs/trigger", {"runId": run}).json()["status"] == "CANCELLED"
    found = client.details(run)
    assert found["heartbeatAt"] is not None
    assert found["status"] == "CANCELLED"


FORKS = [
    ("own keys override the parent's", {"config": '{"b":2,"n":{"y":2}}'}, {"a": 1, "b": 2, "n": {"y": 2}}, []),
    ("no config of its own", {}, {"a": 1, "n": {"x": 1}}, []),
    ("config not inherited", {"inheritConfig": False, "inheritTags": True, "tags": ["o"]}, None, ["p", "group:p", "o"]),
    (
        "own group tag replaces the parent's",
        {"inheritTags": True, "tags": ["group:o"]},
        {"a": 1, "n": {"x": 1}},
        ["p", "group:o"],
    ),
    ("negative step", {"forkStep": -1}, {"a": 1, "n": {"x": 1}}, []),
]


@pytest.mark.parametrize(("name", "fields", "config", "tags"), FORKS, ids=[row[0] for row in FORKS])
def test_fork(client: Client, project: str, name: str, fields: Any, config: Any, tags: list[str]) -> None:
    """A fork's config is merged into its parent's at the top level only."""
    parent = client.create_run(project, config='{"a":1,"n":{"x":1}}', tags=["p", "group:p"])["runId"]
    fork = client.create_run(project, "fork", **{"forkRunId": parent, "forkStep": 5, **fields})
    step = fields.get("forkStep", 5)
    assert (fork["forkedFromRunId"], fork["forkStep"], fork["resumed"]) == (parent, step, False)
    found = client.details(fork["runId"])
    assert (found["config"], found["tags"], found["forkedFromRunId"]) == (config, tags, parent)
    again = client.create_run(project, "fork", forkRunId=parent, forkStep=5)
    assert (again["resumed"], again["forkedFromRunId"], again["forkStep"]) == (True, None, None)


def test_inherited_tags_may_exceed_the_limit(client: Client, project: str) -> None:
    parent = client.create_run(project, tags=[f"p{n}" for n in range(50)])["runId"]
    own = [f"o{n}" for n in range(50)]
    fork = client.create_run(project, forkRunId=parent, forkStep=1, inheritTags=True, tags=own)
    assert len(client.details(fork["runId"])["tags"]) == 100


def test_fork_at_an_inherited_step_is_a_fork_of_the_grandparent(client: Client, project: str) -> None:
    oldest = client.create_run(project)["runId"]
    middle = client.create_run(project, forkRunId=oldest, forkStep=10)["runId"]
    assert client.create_run(project, forkRunId=middle, forkStep=7)["forkedFromRunId"] == oldest
    assert client.create_run(project, forkRunId=middle, forkStep=11)["forkedFromRunId"] == middle


def test_parent_in_another_project_is_rejected(client: Client, project: str) -> None:
    parent = client.create_run(project)["runId"]
    response = client.create(project + "-other", forkRunId=parent, forkStep=1)
    assert response.json() == {"error": "Fork parent run not found in this project"}
    assert client.get("/api/runs/list", params={"projectName": project + "-other"}).json()["total"] == 0


def test_config_round_trips(client: Client, project: str) -> None:
    created = client.create_run(project, config=json.dumps({"deep": [{"ü": [None, True, 1.5]}]}))
    assert client.details(created["runId"])["config"] == {"deep": [{"ü": [None, True, 1.5]}]}


def test_config_update(client: Client, project: str) -> None:
    run = client.create_run(project, config='{"a":{"x":1}}')["runId"]
    for config, status in [
        ('{"a":{"y":2},"b":3}', 200),
        ("null", 200),
        ("{", 400),
        (r'{"z":"\u0000"}', 400),
        ('{"q":NaN}', 400),
    ]:
        response = client.post("/api/runs/config/update", {"runId": run, "config": config})
        assert response.status_code == status, response.text
        assert error_shape(response) == ("ok" if status == 200 else "A")
    assert client.details(run)["config"] == {"a": {"x": 1, "y": 2}, "b": 3}
    unknown = client.post("/api/runs/config/update", {"runId": 10**9, "config": "{}"})
    assert (unknown.status_code, unknown.json()) == (404, {"error": "Run not found"})


def test_list_is_newest_first(client: Client, project: str) -> None:
    created = [client.create_run(project, runName=f"r{n}", tags=[str(n)])["runId"] for n in range(5)]
    response = client.get("/api/runs/list", params={"projectName": project, "limit": 3}).json()
    assert [run["id"] for run in response["runs"]] == created[::-1][:3]
    assert response["total"] == 5
    assert response["runs"][0]["projectName"] == project
    missing = client.get("/api/runs/list")
    assert (missing.status_code, error_shape(missing)) == (400, "A")
    for invalid in ({"projectName": project, "limit": "0"}, {"projectName": project, "limit": "x"}):
        rejected = client.get("/api/runs/list", params=invalid)
        assert (rejected.status_code, error_shape(rejected)) == (400, "C")


def test_attempts(client: Client, project: str) -> None:
    """The records of a run's attempts, oldest first, each with its key; what is no record is left out."""
    first = attempts.record({}, attempts.Attempt("k3", 0.0, 4, ["a", "b"], 10.0))
    second = attempts.record({"x": first}, attempts.Attempt("k3", 60.0, 2, ["a"], 10.0))
    stored = {"z": first, "b": second, "a": second, "c": "no record", "d": {"number": "2"}}
    run = client.create_run(project, config=json.dumps({"pluto_dist": {"attempts": stored}}))["runId"]
    response = client.get(f"/api/runs/{run}/attempts")
    expected = [{**first, "key": "z"}, {**second, "key": "a"}, {**second, "key": "b"}]
    assert (response.status_code, response.json()) == (200, {"attempts": expected})


@pytest.mark.parametrize("config", [None, "[1]", "{}", '{"pluto_dist": {"attempts": 1}}'])
def test_no_attempts(client: Client, project: str, config: str | None) -> None:
    run = client.create_run(project, config=config)["runId"]
    assert client.get(f"/api/runs/{run}/attempts").json() == {"attempts": []}


@pytest.mark.parametrize("run", ["1000000000", "-1", "1.5", "no-number", "1e400"])
def test_attempts_of_unknown_runs(client: Client, run: str) -> None:
    """The errors are those of details."""
    found, details = (client.get(path) for path in (f"/api/runs/{run}/attempts", f"/api/runs/details/{run}"))
    assert found.status_code in (400, 404)
    assert (found.status_code, found.content) == (details.status_code, details.content)


def test_attempts_of_another_organization(client: Client, other_organization: Client, project: str) -> None:
    run = client.create_run(project)["runId"]
    assert other_organization.get(f"/api/runs/{run}/attempts").status_code == 404
