"""The reading code against a tracker over HTTP."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from hosted import columns
from pluto_dist.errors import AuthenticationError, ConfigurationError, RequestRefusedError
from pluto_dist.query import RunDetails, Tracker
from recorded_runs import CONTENT, TIME, Recorder

pytestmark = pytest.mark.both_trackers


@pytest.fixture
def recorder(tracker_class: columns.TrackerClass) -> Iterator[Recorder]:
    with tracker_class() as server:
        yield Recorder(server)


@pytest.fixture
def tracker(recorder: Recorder) -> Iterator[Tracker]:
    with Tracker(environ=recorder.server.environ()) as opened:
        yield opened


@pytest.mark.both_trackers(by_default=True)
def test_what_a_run_has(recorder, tracker, tmp_path):
    """Details, metrics with those that are not finite, console lines, files with their bytes, history and page."""
    made = recorder.whole()
    found = tracker.run(made["displayId"])
    assert (found.id, found.project, found.status) == (made["runId"], "digits", "FAILED")
    assert found.config["net"] == {"depth": 1, "act": "gelu"}
    assert found.status_updated is not None
    assert found.status_updated.timestamp() == (TIME + 60_000) / 1000
    assert tracker.metric_names(found) == ("odd", "train/loss")
    points = tracker.metrics(found, "train/loss")
    assert [(each.step, each.time_ms, each.value) for each in points] == [(n, TIME + n, 1 / (n + 1)) for n in range(5)]
    values = [each.value for each in tracker.metrics(found, "odd")]
    assert values[0] == 1
    assert math.isnan(values[1])
    assert values[2:] == [math.inf, -math.inf]
    assert tracker.last_values(found)["train/loss"] == pytest.approx(0.2)
    assert [(each.rank, each.message) for each in tracker.console(found)] == [
        (0, "[rank0] hello"), (1, "[rank1] world"), (None, "plain é"),
    ]  # fmt: skip
    assert tracker.console_length(found) == 3
    (file,) = tracker.files(found)
    assert (file.name, file.log_name, file.step, file.size) == ("weights.bin", "model", 3, len(CONTENT))
    tracker.download(file, tmp_path / "weights")
    assert (tmp_path / "weights").read_bytes() == CONTENT
    assert [(each.from_status, each.to_status) for each in tracker.status_history(found)] == [
        (None, "RUNNING"), ("RUNNING", "FAILED"),
    ]  # fmt: skip
    assert tracker.page(found) == made["url"]


@pytest.mark.both_trackers(by_default=True)
def test_a_run_by_each_of_its_names(recorder, tracker):
    """Number, display id, external id and page find it, without a project, and none of them wakes it."""
    made = recorder.whole()
    names = (made["runId"], made["displayId"], made["url"])
    assert {tracker.run(name).id for name in names} == {made["runId"]}
    assert tracker.run("job-1", "digits").id == made["runId"]
    assert tracker.details(made["runId"]).status == "FAILED"


def test_an_external_id_in_any_project(recorder, tracker):
    """A run of this package has its id in its config, where it is found without its project."""
    made = recorder.create("first", "job-a", config='{"pluto_dist": {"run_id": "job-a"}}')
    recorder.create("second", "job-b", config='{"pluto_dist": {"run_id": "job-b"}}')
    assert tracker.run("job-a").id == made["runId"]


def test_a_display_id_of_two_projects(recorder, tracker):
    """Without a project it is an error that names both; with one it is found."""
    first, second = recorder.create("digits"), recorder.create("digs")
    assert first["displayId"] == second["displayId"]
    with pytest.raises(RequestRefusedError, match=r"several projects: .*digs") as raised:
        tracker.run(first["displayId"])
    assert raised.value.status == 409
    assert tracker.run(first["displayId"], "digs").id == second["runId"]


@pytest.mark.parametrize("name", ["DIG-99", "99", "no-such-job", "JOB-20261128093000"])
def test_no_such_run(tracker, name):
    """It is an error with status 404 that has the name."""
    with pytest.raises(RequestRefusedError, match=name) as raised:
        tracker.run(name)
    assert raised.value.status == 404


def test_a_page_of_another_tracker(tracker):
    """The error names both; no request goes there."""
    with pytest.raises(ConfigurationError, match="another tracker"):
        tracker.run("http://127.0.0.1:9/o/x/projects/p/Uk")
    with pytest.raises(ConfigurationError, match="not the address of a run's page"):
        tracker.run(f"{tracker.settings.url_api}/o/x")


def test_lists(recorder, tracker):
    """Filters, order, limit and pages of a project's runs; the projects."""
    for number in (1, 2, 3):
        made = recorder.create("digits", f"job-{number}", runName=f"run {number}", tags=[f"t{number}"])
        if number > 1:
            recorder.status(made["runId"], "COMPLETED")
    names = [each.name for each in tracker.runs("digits", sort="name")]
    assert names == ["run 1", "run 2", "run 3"]
    assert [each.name for each in tracker.runs("digits", limit=1)] == ["run 3"]
    assert {each.name for each in tracker.runs("digits", status=["COMPLETED"])} == {"run 2", "run 3"}
    assert [each.name for each in tracker.runs("digits", tags=["t2"], search="RUN")] == ["run 2"]
    assert [(each.name, each.run_count) for each in tracker.projects()] == [("digits", 3)]
    assert list(tracker.runs("no such project")) == []


def test_pages(recorder, tracker, monkeypatch):
    """Runs, points and lines beyond one page are all read; several points of a step at a page's end, too."""
    monkeypatch.setattr("pluto_dist.query.tracker.RUNS_PER_PAGE", 2)
    monkeypatch.setattr("pluto_dist.query.tracker.POINTS_PER_PAGE", 3)
    monkeypatch.setattr("pluto_dist.query.tracker.LINES_PER_PAGE", 2)
    runs = [recorder.create("digits")["runId"] for _ in range(5)]
    assert [each.id for each in tracker.runs("digits")] == runs[::-1]
    recorder.metric(runs[0], "loss", *range(7))
    recorder.ingest("metrics", runs[0], {"time": TIME + 9, "step": 2, "data": {"loss": 9.0}})
    recorder.print(runs[0], *"abcde")
    found = tracker.details(runs[0])
    assert [each.value for each in tracker.metrics(found, "loss")] == [0, 1, 2, 9, 3, 4, 5, 6]
    assert [each.message for each in tracker.console(found)] == list("abcde")


def test_a_frame(recorder, tracker):
    """With pandas, the points of all metrics are a table."""
    frame = tracker.metrics_frame(tracker.details(recorder.whole()["runId"]))
    assert list(frame.columns) == ["metric", "step", "time", "value"]
    assert len(frame) == 9
    assert frame["value"].isna().sum() == 1


def test_cancel(recorder, tracker):
    """The run is CANCELLED: a heartbeat of its job has that status."""
    made = recorder.create()
    tracker.cancel(tracker.details(made["runId"]))
    assert tracker.details(made["runId"]).status == "CANCELLED"
    assert tracker.client.heartbeat(made["runId"], deadline=tracker.deadline).status == "CANCELLED"


def test_no_key_and_a_wrong_key(recorder):
    """Both are errors that say which tracker; the key is not shown."""
    environ = recorder.server.environ()
    with pytest.raises(ConfigurationError, match="no API key"):
        Tracker(environ={**environ, "PLUTO_API_KEY": ""})
    with Tracker(environ=environ, api_key="mlps_wrong-key-wrong") as tracker, pytest.raises(AuthenticationError):
        tracker.projects()
    assert "mlps_" not in repr(tracker)


def test_reading_changes_nothing(recorder, tracker):
    """All reading together leaves status, updatedAt and history of an ended run as they were."""
    made = recorder.whole()

    def state() -> RunDetails:
        return tracker.details(made["runId"])

    before, history = state(), tracker.status_history(state())
    for name in (made["runId"], made["displayId"], made["url"]):
        tracker.run(name)
    list(tracker.console(before)), tracker.files(before), tracker.data(before), tracker.page(before)
    assert state() == before
    assert tracker.status_history(state()) == history
