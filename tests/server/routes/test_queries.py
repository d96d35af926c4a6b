"""Lists of a run: metrics with their limits and their lineage, metric names, console lines."""

from __future__ import annotations

import math
from typing import Any

import pytest

from server.conftest import Client, Run


@pytest.fixture
def run(client: Client, project: str) -> Run:
    return client.create_run(project)


def values(client: Client, run: Run, **params: Any) -> list[float | None]:
    return [row["value"] for row in client.query("metrics", run, **params).json()["metrics"]]


def test_points_in_order(client: Client, run: Run) -> None:
    """Points are sorted by name and step, and have the time they were logged at."""
    client.log_metrics(run["runId"], {"b/loss": [3.0, 2.0], "acc": [0.5]})
    rows = client.query("metrics", run).json()["metrics"]
    assert [(row["logName"], row["logGroup"], row["step"], row["value"]) for row in rows] == [
        ("acc", "", 0, 0.5),
        ("b/loss", "b", 0, 3.0),
        ("b/loss", "b", 1, 2.0),
    ]
    assert rows[0]["time"] == "2023-11-14T22:13:20.000Z"
    assert values(client, run, logGroup="b") == [3.0, 2.0]
    assert values(client, run, logName="unknown") == []


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 99, 100, 101])
def test_limit_thins_evenly(client: Client, run: Run, limit: int) -> None:
    """At most ``limit`` points of each metric are returned, among them the first and the last."""
    client.log_metrics(run["runId"], {"a": [float(n) for n in range(100)], "b": [1.0]})
    found = values(client, run, logName="a", limit=limit)
    assert len(found) <= limit
    assert found[0] == 0
    assert found == sorted(set(found))
    if limit > 1:
        assert found[-1] == 99
        assert len(found) > limit / 2 or limit > 100


def test_values_that_are_not_finite(client: Client, run: Run) -> None:
    """NaN and infinities are points without a value, and do not count in statistics."""
    client.log_metrics(run["runId"], {"odd": [1.0, math.nan, math.inf, -math.inf, 3.0], "never": [math.nan]})
    assert values(client, run, logName="odd").count(None) == 3
    (metric,) = client.query("statistics", run).json()["metrics"]
    assert (metric["logName"], metric["count"], metric["mean"]) == ("odd", 2, 2.0)


def test_large_numbers(client: Client, run: Run) -> None:
    """Values whose sum exceeds the largest double break neither the statistics nor the page."""
    client.log_metrics(run["runId"], {"big": [1.7e308, 1.7e308, -1.7e308, 5e-324]})
    assert client.query("statistics", run).status_code == 200
    assert client.get(client.details(run["runId"])["url"].replace(client.url, "")).status_code == 200


def test_fork_of_a_fork(client: Client, project: str) -> None:
    """A fork has its ancestors' points up to the steps of the forks, and none that they logged later."""
    root = client.create_run(project)
    client.log_metrics(root["runId"], {"loss": [0.0, 1.0, 2.0, 3.0]})
    child = client.create_run(project, forkRunId=root["runId"], forkStep=2)
    client.log_metrics(child["runId"], {"loss": [30.0, 40.0]}, first_step=3)
    grandchild = client.create_run(project, forkRunId=child["runId"], forkStep=3)
    client.log_metrics(grandchild["runId"], {"loss": [400.0], "own": [1.0]}, first_step=4)
    assert values(client, grandchild, logName="loss") == [0, 1, 2, 30, 400]
    assert values(client, child) == [0, 1, 2, 30, 40]
    assert values(client, root) == [0, 1, 2, 3]
    assert values(client, grandchild, logName="loss", stepMin=2, stepMax=3) == [2, 30]
    early = client.create_run(project, forkRunId=grandchild["runId"], forkStep=1)
    assert early["forkedFromRunId"] == root["runId"]
    assert values(client, early) == [0, 1]
    rejected = client.create(project, forkRunId=grandchild["runId"], forkStep=5)
    assert rejected.json() == {"error": "forkStep (5) exceeds the parent run's max step (4)"}
    names = client.get("/api/runs/metric-names", params={"projectName": project, "runIds": str(child["runId"])})
    assert names.json()["metricNames"] == ["loss"]


def test_raw_points_are_the_runs_own(client: Client, other_organization: Client, project: str) -> None:
    """Raw points are those that the run itself logged, also those not finite, of one metric."""
    root = client.create_run(project)
    client.log_metrics(root["runId"], {"loss": [0.0, 1.0], "acc": [5.0]})
    child = client.create_run(project, forkRunId=root["runId"], forkStep=1)
    client.log_metrics(child["runId"], {"loss": [float("nan"), 3.0]}, first_step=2)

    def raw(asked: Client = client, **params: Any) -> list[float]:
        answer = asked.query("metrics/raw", child, **{"logName": "loss", **params}).json()
        assert answer["truncated"] is False
        return [row["value"] if not row["nonFiniteFlags"] else -1 for row in answer["rows"]]

    assert raw() == [-1, 3]
    assert raw(stepMin=3) == raw(stepMin=3, stepMax=3) == [3]
    assert raw(logName="acc") == raw(projectName="other") == raw(other_organization) == []
    assert client.query("metrics/raw", child, logName="loss", limit=2).json()["truncated"] is True


def test_status_history_of_another_organization(client: Client, other_organization: Client, run: Run) -> None:
    """Another organization's run is as unknown as one that does not exist."""
    assert client.query("status/history", run).json()["events"][0]["toStatus"] == "RUNNING"
    for response in (other_organization.query("status/history", run), client.query("status/history", run, runId=2**40)):
        assert (response.status_code, response.json()) == (404, {"error": "Run not found"})


def test_metric_names(client: Client, project: str) -> None:
    """Names of a project or of some of its runs, sorted, limited, and searched regardless of case."""
    one, two = client.create_run(project), client.create_run(project)
    client.log_metrics(one["runId"], {"train/Loss": [1.0], "acc": [1.0]})
    client.log_metrics(two["runId"], {"acc": [1.0], "zeta": [1.0]})

    def names(**params: Any) -> list[str]:
        response = client.get("/api/runs/metric-names", params={"projectName": project, **params})
        return list(response.json()["metricNames"])

    assert names() == ["acc", "train/Loss", "zeta"]
    assert names(search="LOSS") == ["train/Loss"]
    assert names(runIds=f"{two['runId']},x") == ["acc", "zeta"]
    assert names(limit=1) == ["acc"]
    assert client.get("/api/runs/metric-names", params={"projectName": "none"}).json()["metricNames"] == []


def test_console_pages(client: Client, run: Run) -> None:
    """Console lines are sorted by time, paged, and optionally of one type, whose case is ignored."""
    lines = [
        {"time": 1 + n // 2, "lineNumber": n, "logType": "ERROR" if n % 5 == 0 else "INFO", "message": str(n)}
        for n in range(20)
    ]
    client.ingest("logs", run["runId"], lines[::-1])
    page = client.query("logs", run, limit=5, offset=5).json()
    assert ([line["message"] for line in page["logs"]], page["total"]) == (["5", "6", "7", "8", "9"], 20)
    errors = client.query("logs", run, logType="error").json()
    assert ([line["message"] for line in errors["logs"]], errors["total"]) == (["0", "5", "10", "15"], 4)


@pytest.mark.parametrize("path", ["metrics", "logs", "data", "files"])
def test_unknown_run(client: Client, other_organization: Client, run: Run, path: str) -> None:
    """As on the hosted tracker, lists are empty if the project or the organization has no such run."""
    client.log_metrics(run["runId"], {"loss": [1.0]})
    for response in (
        client.query(path, run, runId=2**40),
        client.query(path, run, projectName="other"),
        other_organization.query(path, run),
    ):
        assert (response.status_code, response.json()[path]) == (200, [])


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("metrics", {"runId": None}),
        ("metrics", {"projectName": None}),
        ("metrics", {"runId": "x"}),
        ("metrics", {"limit": 0}),
        ("metrics", {"limit": 10_001}),
        ("metrics", {"stepMin": -1}),
        ("logs", {"limit": "1e3"}),
        ("logs", {"offset": -1}),
        ("files", {"runId": 10**20}),
    ],
    ids=str,
)
def test_invalid_parameters(client: Client, run: Run, path: str, params: dict[str, Any]) -> None:
    """Missing and invalid parameters are answered 400 with a reason."""
    response = client.query(path, run, **params)
    assert response.status_code == 400
    assert response.json()["error"]
