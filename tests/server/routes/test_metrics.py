"""Statistics, comparison and leaderboard of metrics."""

from __future__ import annotations

import math
from typing import Any

import pytest

from server.conftest import Client, Run


@pytest.fixture
def run(client: Client, project: str) -> Run:
    return client.create_run(project)


def test_statistics(client: Client, run: Run) -> None:
    """Count, bounds, mean, standard deviation, first and last value, and outliers beyond two deviations."""
    client.log_metrics(run["runId"], {"a/loss": [1.0] * 19 + [21.0], "b": [0.0]})
    (metric,) = client.query("statistics", run, logName="a/loss").json()["metrics"]
    assert (metric["count"], metric["min"], metric["max"], metric["mean"]) == (20, 1, 21, 2)
    assert metric["stddev"] == pytest.approx(math.sqrt(19))
    assert (metric["first"], metric["last"]) == ({"step": 0, "value": 1}, {"step": 19, "value": 21})
    (anomaly,) = metric["anomalies"]
    assert (anomaly["step"], anomaly["type"]) == (19, "spike")
    assert client.query("statistics", run, runId=2**40).status_code == 404
    assert len(client.query("statistics", run).json()["metrics"]) == 2


def test_compare_and_leaderboard(client: Client, project: str) -> None:
    """The best run has the lowest loss, or the highest value of another metric; runs may lack the metric."""
    runs = [client.create_run(project, runName=name) for name in ("one", "two", "three")]
    client.log_metrics(runs[0]["runId"], {"loss": [4.0, 2.0], "acc": [0.2, 0.9]})
    client.log_metrics(runs[1]["runId"], {"loss": [4.0, 3.0], "acc": [0.8, 0.3]})
    ids = ",".join(str(run["runId"]) for run in runs)

    def get(path: str, **params: Any) -> Any:
        return client.get(f"/api/runs/{path}", params={"projectName": project, **params}).json()

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


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("statistics", {"projectName": None}),
        ("compare", {"logName": "a"}),
        ("compare", {"logName": None, "runIds": "1"}),
        ("compare", {"logName": "a", "runIds": ",".join(["1"] * 101)}),
        ("leaderboard", {"logName": "a", "aggregation": "MEDIAN"}),
        ("leaderboard", {"logName": "a", "direction": "up"}),
        ("leaderboard", {"logName": "a", "offset": [0, 1]}),
        ("leaderboard", {}),
    ],
    ids=str,
)
def test_invalid_parameters(client: Client, run: Run, path: str, params: dict[str, Any]) -> None:
    """Missing and invalid parameters are answered 400 with a reason."""
    response = client.query(path, run, **params)
    assert response.status_code == 400
    assert response.json()["error"]
