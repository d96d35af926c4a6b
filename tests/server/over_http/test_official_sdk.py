"""The official SDK, unmodified and in its own virtual environment, logs to this server and reads back."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from pluto_dist.server import LocalServer
from server.sdk_venv import python_with_sdk

pytestmark = pytest.mark.timeout(300)  # the first test on a machine also creates the virtual environment
STEPS = 1000
JOB_S = 100

TRAIN = """
import math, pathlib
import pluto
op = pluto.init(project="sdk-train", name="first", run_id="job-7", config={"lr": 0.1, "net": {"depth": 2}}, tags=["a"])
for step in range(1000):
    pluto.log({"train/loss": 1 / (step + 1), "accuracy": step / 1000}, step=step)
print("a line on the console")
pluto.log({"odd": math.nan, "phase": "warmup"}, step=1000)
pluto.log({"spread": pluto.Histogram([1.0, 2.0, 2.0, 3.0], bins=3)}, step=3)
pathlib.Path("weights.bin").write_bytes(bytes(range(256)) * 8)
pluto.log({"weights": pluto.Artifact("weights.bin", caption="last"), "note": pluto.Text("some text")}, step=3)
op.update_config({"lr": 0.2, "net": {"width": 8}})
op.add_tags(["b"])
pluto.alert("the loss is low", title="careful", level="WARNING")
op.finish()
report(id=op.id)
"""
READ = """
import pathlib
import pluto.query as pq
project, run = "sdk-train", facts["id"]
files = pq.get_files(project, run)
report(
    projects=pq.list_projects(), runs=pq.list_runs(project), run=pq.get_run(project, run),
    by_display_id=pq.get_run(project, pq.get_run(project, run)["displayId"])["id"],
    names=pq.get_metric_names(project, [run]), found=pq.get_metric_names(project, search="LOSS"),
    metrics=pq.get_metrics(project, run, ["train/loss", "accuracy"]), range=pq.get_metrics(
        project, run, ["accuracy"], step_min=10, step_max=12), few=pq.get_metrics(project, run, ["accuracy"], limit=50),
    odd=pq.get_metrics(project, run, ["odd"]), logs=pq.get_logs(project, run), errors=pq.get_logs(
        project, run, log_type="error"), files=files,
    contents=[pq.download_file(project, run, f["logName"], pathlib.Path(".")).read_bytes().hex() for f in files],
    statistics=pq.get_statistics(project, run, ["accuracy"]), compared=pq.compare_runs(project, [run], "train/loss"),
    leaderboard=pq.leaderboard(project, "accuracy", direction="DESC"),
)
"""
AGAIN = """
import pluto, pluto.query as pq
first = pluto.init(project="sdk-again", name="first", run_id="job-8")
for step in range(10):
    pluto.log({"loss": float(step)}, step=step)
first.finish()
number, display_id = first.id, pq.get_run("sdk-again", first.id)["displayId"]
ids, resumed = [], []
for step, name in enumerate((dict(run_id="job-8", resume=True), dict(run_id=number), dict(run_id=display_id)), 10):
    op = pluto.init(project="sdk-again", **name)
    pluto.log({"loss": float(step)}, step=step)
    op.finish()
    ids.append(op.id)
    resumed.append(op.resumed)
fork = pluto.init(project="sdk-again", name="fork", fork_run_id=number, fork_step=4)
pluto.log({"loss": 99.0}, step=5)
fork.finish()
try:
    pluto.init(project="sdk-again", name="beyond", fork_run_id=number, fork_step=500)
    rejected = ""
except RuntimeError as error:
    rejected = str(error)
values = lambda run: [row["value"] for row in pq.get_metrics("sdk-again", run, ["loss"])]
report(number=number, ids=ids, resumed=resumed, values=values(number), fork=fork.id, fork_values=values(fork.id),
     parent=fork.fork_run_id, step=fork.fork_step, rejected=rejected, runs=pq.list_runs("sdk-again"))
"""
LATER = """
import pathlib, pluto.query as pq
pathlib.Path("config.yaml").write_text("lr: 1")
pq.upload_file("sdk-train", facts["id"], "later/config", "config.yaml")
pq.upload_file("sdk-train", facts["id"], "later/config", "config.yaml")
report(files=pq.get_files("sdk-train", facts["id"], "later/config"))
"""
PREAMBLE = """
import json, pathlib, sys
facts = json.loads(sys.argv[2])
def report(**values):
    pathlib.Path(sys.argv[1]).write_text(json.dumps(values))
"""

Job = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def sdk(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Runs a program with the SDK in a home folder of its own, without telemetry; returns what it reports."""
    python = python_with_sdk()

    def run(program: str, **facts: Any) -> dict[str, Any]:
        home = tmp_path_factory.mktemp("home")
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("PLUTO", "MLOP", "PYTHON", "RANK", "WORLD_SIZE"))
        }
        own = {"HOME": str(home), "PLUTO_DIR": str(home), "PLUTO_DISABLE_TELEMETRY": "1", "XDG_DATA_HOME": str(home)}
        script, report = home / "job.py", home / "report.json"
        script.write_text(PREAMBLE + program)
        done = subprocess.run(
            [python, script, report, json.dumps(facts)],
            env={**inherited, **server.environ(inherited), **own},
            cwd=home,
            capture_output=True,
            text=True,
            timeout=JOB_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(report.read_text()))

    return run


@pytest.fixture(scope="module")
def trained(sdk: Job) -> int:
    return int(sdk(TRAIN)["id"])


@pytest.fixture(scope="module")
def read(sdk: Job, trained: int) -> dict[str, Any]:
    return sdk(READ, id=trained)


@pytest.fixture(scope="module")
def again(sdk: Job) -> dict[str, Any]:
    return sdk(AGAIN)


def named(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["metric"] == name]


def test_every_point_is_stored(read: dict[str, Any]) -> None:
    """1,000 steps of two metrics are read back in order, with the logged values."""
    for name, value in (("train/loss", lambda step: 1 / (step + 1)), ("accuracy", lambda step: step / STEPS)):
        rows = named(read["metrics"], name)
        assert [row["step"] for row in rows] == list(range(STEPS))
        assert [row["value"] for row in rows] == [value(step) for step in range(STEPS)]


def test_step_range_and_limit(read: dict[str, Any]) -> None:
    """A range of steps has exactly its points; a limit thins the points and keeps the first and the last."""
    assert [row["step"] for row in read["range"]] == [10, 11, 12]
    assert len(read["few"]) <= 50
    assert (read["few"][0]["step"], read["few"][-1]["step"]) == (0, STEPS - 1)


def test_nan_is_kept(read: dict[str, Any]) -> None:
    """NaN is a point without a value."""
    assert [(row["step"], row["value"]) for row in read["odd"]] == [(STEPS, None)]


def test_metric_names(read: dict[str, Any]) -> None:
    """All metrics of the run are listed, system metrics included; a search ignores case."""
    assert {"train/loss", "accuracy", "odd"} <= set(read["names"])
    assert any(name.startswith("sys/") for name in read["names"])
    assert read["found"] == ["train/loss"]


def test_run_details(read: dict[str, Any], trained: int) -> None:
    """Config is merged, tags are added, the status is COMPLETED, and the log names have their types."""
    run = read["run"]
    assert (run["id"], run["name"], run["externalId"], run["status"]) == (trained, "first", "job-7", "COMPLETED")
    assert run["config"] == {"lr": 0.2, "net": {"depth": 2, "width": 8}}
    assert run["tags"] == ["a", "b"]
    types = {name["logName"]: name["logType"] for name in run["logNames"]}
    expected = {"train/loss": "METRIC", "weights": "ARTIFACT", "note": "TEXT", "spread": "HISTOGRAM", "phase": "DATA"}
    assert expected.items() <= types.items()
    assert read["by_display_id"] == trained
    assert [(project["name"], project["runCount"]) for project in read["projects"]] == [("sdk-train", 1)]
    assert [each["id"] for each in read["runs"]] == [trained]


def test_console(read: dict[str, Any]) -> None:
    """Lines that the job printed are stored with their type."""
    line = next(line for line in read["logs"] if line["message"] == "a line on the console")
    assert line["logType"] == "INFO"
    assert {line["logType"] for line in read["errors"]} == {"ERROR"}


def test_files_round_trip(read: dict[str, Any]) -> None:
    """Files are listed under their log names, and downloads equal uploads."""
    contents = dict(zip([file["logName"] for file in read["files"]], read["contents"], strict=True))
    assert contents == {"note": b"some text".hex(), "weights": (bytes(range(256)) * 8).hex()}
    weights = next(file for file in read["files"] if file["logName"] == "weights")
    assert (weights["fileSize"], weights["fileType"], weights["step"]) == (2048, "bin", 3)


def test_statistics_comparison_and_leaderboard(read: dict[str, Any], trained: int) -> None:
    """The aggregates agree with the logged points."""
    (accuracy,) = read["statistics"]["metrics"]
    assert (accuracy["count"], accuracy["min"], accuracy["max"]) == (STEPS, 0, 0.999)
    assert accuracy["mean"] == pytest.approx(0.4995)
    assert accuracy["last"] == {"step": 999, "value": 0.999}
    assert read["compared"]["summary"]["bestRun"]["runId"] == trained
    assert read["compared"]["runs"][0]["stats"]["final"] == pytest.approx(1 / STEPS)
    assert [(row["rank"], row["runId"], row["value"]) for row in read["leaderboard"]["runs"]] == [(1, trained, 0.999)]


def test_structured_data_and_alerts(trained: int, server: LocalServer, client: Any) -> None:
    """A histogram, a text value and an alert are stored, and listed or shown on the run's page."""
    query = {"runId": trained, "projectName": "sdk-train"}
    rows = {row["logName"]: row for row in client.get("/api/runs/data", params=query).json()["data"]}
    assert json.loads(rows["spread"]["data"])["freq"] == [1, 2, 1]
    assert (rows["phase"]["dataType"], rows["phase"]["data"]) == ("string-series", "warmup")
    page = client.get(client.details(trained)["url"].removeprefix(server.url)).text
    assert "the loss is low" in page


def test_resume_by_any_id(again: dict[str, Any]) -> None:
    """The SDK resumes the run by external id, by number and by display id, and continues to log."""
    assert again["ids"] == [again["number"]] * 3
    assert again["resumed"] == [True] * 3
    assert again["values"] == [float(step) for step in range(13)]
    assert {run["id"] for run in again["runs"]} == {again["number"], again["fork"]}


def test_fork(again: dict[str, Any]) -> None:
    """A fork at step 4 has the parent's points up to step 4 and its own; a fork after the last step is rejected."""
    assert (again["parent"], again["step"]) == (again["number"], 4)
    assert again["fork_values"] == [0.0, 1.0, 2.0, 3.0, 4.0, 99.0]
    assert "forkStep (500) exceeds the parent run's max step (12)" in again["rejected"]


def test_upload_to_an_ended_run(sdk: Job, trained: int) -> None:
    """A file can be uploaded to a run that has ended; uploaded twice, it exists once."""
    (file,) = sdk(LATER, id=trained)["files"]
    assert (file["fileName"], file["fileSize"]) == ("config.yaml", 5)


def test_no_request_failed(read: dict[str, Any], server: LocalServer) -> None:
    """The only error in the access log is the rejected fork."""
    lines = [line for line in server.requests() if line.split()[-1] != "200"]
    assert all('"POST /api/runs/create' in line and line.endswith(" 400") for line in lines), lines
