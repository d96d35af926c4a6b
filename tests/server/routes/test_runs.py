"""Status precedence, revival, resume, heartbeat, forks, details: a run after it was made."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pluto_dist.contract.run_requests import STATUSES
from server.conftest import Client
from server.test_app import shape_of

ENDS = ("COMPLETED", "TERMINATED", "CANCELLED", "FAILED")  # from the mildest to the gravest


@pytest.mark.parametrize(("first", "second"), list(itertools.product(STATUSES, STATUSES)))
def test_a_graver_end_stays(client: Client, project: str, first: str, second: str) -> None:
    """All updates answer success; a milder end after a graver one changes nothing; RUNNING always counts."""
    run = client.made(project)["runId"]
    for status in (first, second):
        answer = client.status(run, status)
        assert (answer.status_code, answer.json()) == (200, {"success": True})
    expected = second
    if second != "RUNNING" and first != "RUNNING" and ENDS.index(second) < ENDS.index(first):
        expected = first
    found = client.details(run)
    assert found["status"] == expected
    changes = [change["to"] for change in found["statusHistory"]]
    assert all(a != b for a, b in itertools.pairwise(changes))
    assert changes[-1] == expected


def test_concurrent_ends_leave_the_gravest(client: Client, connect: Any, project: str) -> None:
    run = client.made(project)["runId"]
    clients = [connect() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(clients[n % 8].status, run, ENDS[n % 4]) for n in range(32)]
        assert {each.result(60).status_code for each in sent} == {200}
    assert client.details(run)["status"] == "FAILED"


@pytest.mark.parametrize("status", ["running", "FINISHED", "STOPPED", "CRASHED", "", None])
def test_other_statuses_are_refused(client: Client, project: str, status: Any) -> None:
    answer = client.status(client.made(project)["runId"], status)
    assert (answer.status_code, shape_of(answer)) == (400, "C")


def test_documents_of_a_status(client: Client, project: str) -> None:
    run = client.made(project)["runId"]
    for name in ("statusMetadata", "loggerSettings"):
        answer = client.status(run, "FAILED", **{name: "{"})
        assert (answer.status_code, answer.json()) == (400, {"error": f"Invalid {name} JSON"})
    assert client.details(run)["status"] == "RUNNING"
    client.status(run, "FAILED", statusMetadata='{"exit":1}', loggerSettings='{"x":"\\ud800"}')
    found = client.details(run)
    assert (found["statusMetadata"], found["loggerSettings"]) == ({"exit": 1}, {"x": "\ud800"})
    assert found["statusUpdated"] is not None


@pytest.mark.parametrize(("run", "status"), [(10**9, 404), (10**40, 404), (-1, 404), (1.5, 400)])
def test_unknown_runs(client: Client, run: float, status: int) -> None:
    for answer in (
        client.status(int(run) if run > 2 else run, "RUNNING"),
        client.post("/api/runs/trigger", {"runId": run}),
        client.post("/api/runs/resume", {"runId": run}),
        client.get(f"/api/runs/details/{run}"),
    ):
        assert (answer.status_code, shape_of(answer)) == (status, "A"), answer.text


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("how", ["create", "resume"])
def test_a_late_attach_revives(client: Client, project: str, end: str, how: str) -> None:
    run = client.made(project, "job")["runId"]
    client.status(run, end)
    if how == "create":
        assert client.made(project, "job")["resumed"] is True
    else:
        assert client.post("/api/runs/resume", {"runId": run}).status_code == 200
    found = client.details(run)
    assert found["status"] == "RUNNING"
    assert [(c["from"], c["to"], c["source"]) for c in found["statusHistory"]] == [
        (None, "RUNNING", "create"),
        ("RUNNING", end, "update"),
        (end, "RUNNING", how),
    ]


def test_resume_by_each_id(client: Client, project: str) -> None:
    made = client.made(project, "job")
    for ids in (
        {"runId": made["runId"]},
        {"displayId": made["displayId"], "projectName": project},
        {"displayId": made["displayId"].lower(), "projectName": project},
        {"externalId": "job", "projectName": project},
    ):
        answer = client.post("/api/runs/resume", ids)
        assert answer.status_code == 200, answer.text
        assert {**answer.json(), "forkedFromRunId": None, "forkStep": None} == {**made, "resumed": True}
        assert not {"forkedFromRunId", "forkStep"} & set(answer.json())


REFUSED = [
    ({"externalId": "job"}, 400, "A", "projectName is required when using externalId"),
    ({"externalId": "nobody", "projectName": "nowhere"}, 404, "A", "Run not found"),
    ({"externalId": "\ud800", "projectName": "nowhere"}, 400, "A", "lone surrogate"),
    ({"displayId": "ZZZ-999", "projectName": "nowhere"}, 404, "A", "Run not found"),
    ({"displayId": "no number"}, 400, "A", "display"),
    ({}, 400, "C", "Exactly one"),
    ({"runId": 1, "displayId": "A-1"}, 400, "C", "Exactly one"),
    ({"runId": "1"}, 400, "C", "Expected number"),
]


@pytest.mark.parametrize(("body", "status", "shape", "text"), REFUSED, ids=lambda value: str(value)[:40])
def test_resume_refuses(client: Client, body: Any, status: int, shape: str, text: str) -> None:
    answer = client.post("/api/runs/resume", body)
    assert (answer.status_code, shape_of(answer)) == (status, shape)
    assert text in answer.text


def test_a_display_id_that_two_projects_have(client: Client) -> None:
    first, second = (client.made(name) for name in ("ambi-guous one", "ambi-guous-other"))
    assert first["displayId"] == second["displayId"] == "AGO-1"
    answer = client.post("/api/runs/resume", {"displayId": "AGO-1"})
    assert (answer.status_code, shape_of(answer)) == (409, "A")
    assert "ambi-guous one" in answer.text
    named = client.get("/api/runs/details/by-display-id/AGO-1", params={"projectName": "ambi-guous-other"})
    assert named.json()["id"] == second["runId"]
    assert client.get("/api/runs/details/by-display-id/AGO-1").status_code == 409


def test_details_by_each_id(client: Client, project: str) -> None:
    made = client.made(project, "job", runName="n", systemMetadata='{"a":[1]}', loggerSettings='{"l":1}')
    found = client.details(made["runId"])
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
        "url": made["url"],
    }.items() <= found.items()
    other = client.get(f"/api/runs/details/by-display-id/{made['displayId']}", params={"projectName": project}).json()
    assert other == {k: v for k, v in found.items() if k not in ("forkedFromRunId", "forkStep")}
    code = made["url"].rsplit("/", 1)[1]
    answer = client.get(f"/api/runs/details/{code}x")
    assert (answer.status_code, shape_of(answer)) == (400, "C")


def test_heartbeat(client: Client, project: str) -> None:
    run = client.made(project)["runId"]
    assert client.details(run)["heartbeatAt"] is None
    assert client.post("/api/runs/trigger", {"runId": run}).json() == {"status": "RUNNING", "triggers": None}
    client.status(run, "CANCELLED")
    assert client.post("/api/runs/trigger", {"runId": run}).json()["status"] == "CANCELLED"
    found = client.details(run)
    assert found["heartbeatAt"] is not None
    assert found["status"] == "CANCELLED"


FORKS = [
    ("own over the parent's", {"config": '{"b":2,"n":{"y":2}}'}, {"a": 1, "b": 2, "n": {"y": 2}}, []),
    ("none of its own", {}, {"a": 1, "n": {"x": 1}}, []),
    ("without config", {"inheritConfig": False, "inheritTags": True, "tags": ["o"]}, None, ["p", "group:p", "o"]),
    ("own group wins", {"inheritTags": True, "tags": ["group:o"]}, {"a": 1, "n": {"x": 1}}, ["p", "group:o"]),
    ("negative step", {"forkStep": -1}, {"a": 1, "n": {"x": 1}}, []),
]


@pytest.mark.parametrize(("name", "fields", "config", "tags"), FORKS, ids=[row[0] for row in FORKS])
def test_fork(client: Client, project: str, name: str, fields: Any, config: Any, tags: list[str]) -> None:
    """A fork's config is laid over its parent's at the top level only."""
    parent = client.made(project, config='{"a":1,"n":{"x":1}}', tags=["p", "group:p"])["runId"]
    fork = client.made(project, "fork", **{"forkRunId": parent, "forkStep": 5, **fields})
    step = fields.get("forkStep", 5)
    assert (fork["forkedFromRunId"], fork["forkStep"], fork["resumed"]) == (parent, step, False)
    found = client.details(fork["runId"])
    assert (found["config"], found["tags"], found["forkedFromRunId"]) == (config, tags, parent)
    again = client.made(project, "fork", forkRunId=parent, forkStep=5)
    assert (again["resumed"], again["forkedFromRunId"], again["forkStep"]) == (True, None, None)


def test_inherited_tags_may_exceed_the_limit(client: Client, project: str) -> None:
    parent = client.made(project, tags=[f"p{n}" for n in range(50)])["runId"]
    own = [f"o{n}" for n in range(50)]
    fork = client.made(project, forkRunId=parent, forkStep=1, inheritTags=True, tags=own)
    assert len(client.details(fork["runId"])["tags"]) == 100


def test_a_fork_at_an_inherited_step_belongs_to_the_grandparent(client: Client, project: str) -> None:
    oldest = client.made(project)["runId"]
    middle = client.made(project, forkRunId=oldest, forkStep=10)["runId"]
    assert client.made(project, forkRunId=middle, forkStep=7)["forkedFromRunId"] == oldest
    assert client.made(project, forkRunId=middle, forkStep=11)["forkedFromRunId"] == middle


def test_a_parent_in_another_project_is_refused(client: Client, project: str) -> None:
    parent = client.made(project)["runId"]
    answer = client.create(project + "-other", forkRunId=parent, forkStep=1)
    assert answer.json() == {"error": "Fork parent run not found in this project"}
    assert client.get("/api/runs/list", params={"projectName": project + "-other"}).json()["total"] == 0


def test_extra_facts_survive_as_json(client: Client, project: str) -> None:
    made = client.made(project, config=json.dumps({"deep": [{"ü": [None, True, 1.5]}]}))
    assert client.details(made["runId"])["config"] == {"deep": [{"ü": [None, True, 1.5]}]}
