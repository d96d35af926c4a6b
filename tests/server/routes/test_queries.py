"""Reading back: metrics with their limits and lineage, names, logs, and numbers about metrics."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import requests

from server.conftest import Client

Made = dict[str, Any]
T0 = 1_700_000_000_000


@pytest.fixture
def run(client: Client, project: str) -> Made:
    return client.made(project)


def log(client: Client, run: int, values: dict[str, list[float]], first: int = 0) -> None:
    """Each list under its name, a step for each value from ``first`` on."""
    steps = range(max(len(each) for each in values.values()))
    body = "\n".join(
        json.dumps({"time": T0 + n, "step": first + n, "data": {k: v[n] for k, v in values.items() if n < len(v)}})
        for n in steps
    )
    assert client.post("/ingest/metrics", data=body.encode(), headers={"X-Run-Id": str(run)}).status_code == 200


def ask(client: Client, what: str, run: Made, **query: Any) -> requests.Response:
    about = {"runId": run["runId"], "projectName": run["projectName"], **query}
    return client.get(f"/api/runs/{what}", params={k: v for k, v in about.items() if v is not None})


def values(client: Client, run: Made, **query: Any) -> list[float | None]:
    return [row["value"] for row in ask(client, "metrics", run, **query).json()["metrics"]]


def test_points_in_order(client: Client, run: Made) -> None:
    """Points come by name and step, with the time they were logged at."""
    log(client, run["runId"], {"b/loss": [3.0, 2.0], "acc": [0.5]})
    rows = ask(client, "metrics", run).json()["metrics"]
    assert [(row["logName"], row["logGroup"], row["step"], row["value"]) for row in rows] == [
        ("acc", "", 0, 0.5),
        ("b/loss", "b", 0, 3.0),
        ("b/loss", "b", 1, 2.0),
    ]
    assert rows[0]["time"] == "2023-11-14T22:13:20.000Z"
    assert values(client, run, logGroup="b") == [3.0, 2.0]
    assert values(client, run, logName="nothing") == []


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 99, 100, 101])
def test_a_limit_thins_evenly(client: Client, run: Made, limit: int) -> None:
    """At most ``limit`` points come of each metric, the first and the last among them."""
    log(client, run["runId"], {"a": [float(n) for n in range(100)], "b": [1.0]})
    found = values(client, run, logName="a", limit=limit)
    assert len(found) <= limit
    assert found[0] == 0
    assert found == sorted(set(found))
    if limit > 1:
        assert found[-1] == 99
        assert len(found) > limit / 2 or limit > 100


def test_what_is_not_finite(client: Client, run: Made) -> None:
    """NaN and infinities are points without a value, and no statistics are made of them."""
    log(client, run["runId"], {"odd": [1.0, math.nan, math.inf, -math.inf, 3.0], "never": [math.nan]})
    assert values(client, run, logName="odd").count(None) == 3
    (metric,) = ask(client, "statistics", run).json()["metrics"]
    assert (metric["logName"], metric["count"], metric["mean"]) == ("odd", 2, 2.0)


def test_large_numbers_are_json(client: Client, run: Made) -> None:
    """Values whose sum is beyond a double break neither an answer nor the page."""
    log(client, run["runId"], {"big": [1.7e308, 1.7e308, -1.7e308, 5e-324]})
    assert ask(client, "statistics", run).status_code == 200
    assert client.get(client.details(run["runId"])["url"].replace(client.url, "")).status_code == 200


def test_a_fork_of_a_fork(client: Client, project: str) -> None:
    """A fork shows its ancestors' points up to the steps of the forks, and nothing of what came later there."""
    root = client.made(project)
    log(client, root["runId"], {"loss": [0.0, 1.0, 2.0, 3.0]})
    child = client.made(project, forkRunId=root["runId"], forkStep=2)
    log(client, child["runId"], {"loss": [30.0, 40.0]}, first=3)
    grandchild = client.made(project, forkRunId=child["runId"], forkStep=3)
    log(client, grandchild["runId"], {"loss": [400.0], "own": [1.0]}, first=4)
    assert values(client, grandchild, logName="loss") == [0, 1, 2, 30, 400]
    assert values(client, child) == [0, 1, 2, 30, 40]
    assert values(client, root) == [0, 1, 2, 3]
    assert values(client, grandchild, logName="loss", stepMin=2, stepMax=3) == [2, 30]
    early = client.made(project, forkRunId=grandchild["runId"], forkStep=1)
    assert early["forkedFromRunId"] == root["runId"]
    assert values(client, early) == [0, 1]
    refused = client.create(project, forkRunId=grandchild["runId"], forkStep=5)
    assert refused.json() == {"error": "forkStep (5) exceeds the parent run's max step (4)"}
    names = client.get("/api/runs/metric-names", params={"projectName": project, "runIds": str(child["runId"])})
    assert names.json()["metricNames"] == ["loss"]


def test_names(client: Client, project: str) -> None:
    """Names are of the project, or of some of its runs, in order, searched without case, at most as many as asked."""
    one, two = client.made(project), client.made(project)
    log(client, one["runId"], {"train/Loss": [1.0], "acc": [1.0]})
    log(client, two["runId"], {"acc": [1.0], "zeta": [1.0]})

    def names(**query: Any) -> list[str]:
        return list(
            client.get("/api/runs/metric-names", params={"projectName": project, **query}).json()["metricNames"]
        )

    assert names() == ["acc", "train/Loss", "zeta"]
    assert names(search="LOSS") == ["train/Loss"]
    assert names(runIds=f"{two['runId']},x") == ["acc", "zeta"]
    assert names(limit=1) == ["acc"]
    assert client.get("/api/runs/metric-names", params={"projectName": "none"}).json()["metricNames"] == []


def test_logs_by_page(client: Client, run: Made) -> None:
    """Lines come by time, a page of them at a time, of one type if asked, in any case of letters."""
    lines = [
        {"time": T0 + n // 2, "lineNumber": n, "logType": "ERROR" if n % 5 == 0 else "INFO", "message": str(n)}
        for n in range(20)
    ]
    body = "\n".join(json.dumps(line) for line in lines[::-1]).encode()
    client.post("/ingest/logs", data=body, headers={"X-Run-Id": str(run["runId"])})
    answer = ask(client, "logs", run, limit=5, offset=5).json()
    assert ([line["message"] for line in answer["logs"]], answer["total"]) == (["5", "6", "7", "8", "9"], 20)
    errors = ask(client, "logs", run, logType="error").json()
    assert ([line["message"] for line in errors["logs"]], errors["total"]) == (["0", "5", "10", "15"], 4)


@pytest.mark.parametrize("what", ["metrics", "logs", "data", "files"])
def test_a_run_that_is_not_there(client: Client, stranger: Client, run: Made, what: str) -> None:
    """Lists of no run, of another project's and of another organization's are empty, as on the hosted server."""
    log(client, run["runId"], {"loss": [1.0]})
    for asked in (
        ask(client, what, run, runId=2**40),
        ask(client, what, run, projectName="other"),
        ask(stranger, what, run),
    ):
        assert (asked.status_code, asked.json()[what]) == (200, [])


@pytest.mark.parametrize(
    ("what", "query"),
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
        ("statistics", {"projectName": None}),
        ("compare", {"logName": "a"}),
        ("compare", {"logName": None, "runIds": "1"}),
        ("compare", {"logName": "a", "runIds": ",".join(["1"] * 101)}),
        ("leaderboard", {"logName": "a", "aggregation": "MEDIAN"}),
        ("leaderboard", {"logName": "a", "direction": "up"}),
        ("leaderboard", {}),
    ],
    ids=str,
)
def test_a_query_that_is_none(client: Client, run: Made, what: str, query: dict[str, Any]) -> None:
    """A query without what it needs, or with what cannot be, is a 400 that says so."""
    answer = ask(client, what, run, **query)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_statistics(client: Client, run: Made) -> None:
    """Count, bounds, mean, deviation, ends, and what lies beyond two deviations."""
    log(client, run["runId"], {"a/loss": [1.0] * 19 + [21.0], "b": [0.0]})
    (metric,) = ask(client, "statistics", run, logName="a/loss").json()["metrics"]
    assert (metric["count"], metric["min"], metric["max"], metric["mean"]) == (20, 1, 21, 2)
    assert metric["stddev"] == pytest.approx(math.sqrt(19))
    assert (metric["first"], metric["last"]) == ({"step": 0, "value": 1}, {"step": 19, "value": 21})
    (odd,) = metric["anomalies"]
    assert (odd["step"], odd["type"]) == (19, "spike")
    assert ask(client, "statistics", run, runId=2**40).status_code == 404
    assert len(ask(client, "statistics", run).json()["metrics"]) == 2


def test_comparison_and_ranking(client: Client, project: str) -> None:
    """The lowest loss wins, the highest of anything else; runs without the metric are told as such."""
    runs = [client.made(project, runName=name) for name in ("one", "two", "three")]
    log(client, runs[0]["runId"], {"loss": [4.0, 2.0], "acc": [0.2, 0.9]})
    log(client, runs[1]["runId"], {"loss": [4.0, 3.0], "acc": [0.8, 0.3]})
    ids = ",".join(str(run["runId"]) for run in runs)

    def get(what: str, **query: Any) -> Any:
        return client.get(f"/api/runs/{what}", params={"projectName": project, **query}).json()

    compared = get("compare", runIds=ids + ",999999", logName="loss")
    assert [run["stats"] and run["stats"]["final"] for run in compared["runs"]] == [2, 3, None]
    assert compared["runs"][0]["stats"]["improvement"] == 50
    assert compared["summary"]["bestRun"]["runName"] == "one"
    assert get("compare", runIds=ids, logName="acc")["summary"]["bestRun"]["runName"] == "one"
    assert get("compare", runIds=ids, logName="none")["summary"]["bestRun"] is None
    ranked = get("leaderboard", logName="acc", aggregation="MAX", direction="DESC")
    assert [(row["rank"], row["runName"], row["value"]) for row in ranked["runs"]] == [(1, "one", 0.9), (2, "two", 0.8)]
    second = get("leaderboard", logName="acc", limit=1, offset=1)
    assert ([row["rank"] for row in second["runs"]], second["total"]) == ([2], 2)
    assert [row["runName"] for row in get("leaderboard", logName="acc")["runs"]] == ["two", "one"]
