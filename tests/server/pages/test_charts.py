"""The curves of the run's page, and the page with them."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluto_dist.server.db import migrations
from pluto_dist.server.db.database import Database
from pluto_dist.server.db.metrics import Bucket
from pluto_dist.server.pages.charts import HEIGHT, WIDTH, curve, through
from pluto_dist.server.pages.logged import CHARTS, LINES, POINTS
from server.conftest import Client

FINITE = st.floats(allow_nan=False, allow_infinity=False)
PLACES = st.lists(st.none() | st.tuples(st.integers(0, 2**53), FINITE), max_size=30)
NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"


@given(PLACES)
def test_a_path_is_numbers_within_the_frame(places: list[Any]) -> None:
    """Whatever the values, a path has only moves, lines and dots, all of them inside the picture."""
    chart = curve("name", "step", places)
    if chart is None:
        assert not any(places)
        return
    steps = re.findall(rf"([ML])({NUMBER}) ({NUMBER})", chart.path)
    assert "".join(f"{letter}{x} {y}" for letter, x, y in steps) == chart.path.replace("h2", "")
    assert len(steps) == sum(place is not None for place in places)
    assert all(0 <= float(x) <= WIDTH and 0 <= float(y) <= HEIGHT for _, x, y in steps)


def test_gaps() -> None:
    """What has no value interrupts the line; a point on its own is a dot."""
    chart = curve("name", "step", [(0, 1.0), (1, 2.0), None, (3, 1.0), None, (5, 1.0), (6, 2.0)])
    assert chart is not None
    assert list(re.sub(r"[\d. ]+", "", chart.path.replace("h2", "h"))) == list("MLMhML")
    assert curve("name", "step", [None]) is None


@given(st.lists(st.tuples(st.integers(0, 9), FINITE, FINITE), min_size=1, max_size=20))
def test_a_line_through_buckets(parts: list[tuple[int, float, float]]) -> None:
    """The line visits the lowest and the highest of each bucket, from left to right."""
    buckets = [Bucket(10 * n, 10 * n + width, min(a, b), max(a, b)) for n, (width, a, b) in enumerate(parts)]
    places = through(buckets)
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert {y for _, y in places} == {y for bucket in buckets for y in (bucket.lowest, bucket.highest)}


def log(client: Client, run: int, lines: list[dict[str, Any]]) -> None:
    body = "\n".join(map(json.dumps, lines)).encode()
    assert client.post("/ingest/metrics", data=body, headers={"X-Run-Id": str(run)}).status_code == 200


def page(client: Client, run: dict[str, Any]) -> str:
    answer = client.get(run["url"].removeprefix(client.url))
    assert answer.status_code == 200
    assert "script" not in answer.headers["content-security-policy"]
    assert "<script" not in answer.text
    assert "style=" not in answer.text
    return answer.text


def paths(text: str) -> list[str]:
    return re.findall(r'<path d="([^"]*)"', text)


def test_many_points_become_few(client: Client, project: str) -> None:
    """A curve has at most 500 points, and a spike of one step among 5,000 is still in it."""
    run = client.made(project)
    values = [1.0] * 5000
    values[3333] = 100.0
    log(client, run["runId"], [{"time": n, "step": n, "data": {"loss": v}} for n, v in enumerate(values)])
    text = page(client, run)
    (path,) = paths(text)
    assert len(re.findall("[ML]", path)) <= POINTS
    assert re.search(r"[ML][\d.]+ 4[L ]", path), "the highest point is at the upper edge"
    assert ">100<" in text


def test_groups_and_names(client: Client, project: str) -> None:
    """Curves stand in groups by name, those of the system last and closed; names are escaped."""
    run = client.made(project)
    data = {"val/acc": 1.0, "sys/cpu": 1.0, "<img src=x>": 1.0, "train/a": 1.0, "odd": math.nan}
    log(client, run["runId"], [{"time": n, "step": n, "data": data} for n in range(3)])
    text = page(client, run)
    assert "<img src=x>" not in text
    assert "&lt;img src=x&gt;" in text
    groups = re.findall(r'<details class="group"( open)?>\s*<summary>([^<]*) <', text)
    assert groups == [(" open", "Metrics without a group"), (" open", "train"), (" open", "val"), ("", "sys")]
    assert len(paths(text)) == 4


def test_one_step_lies_over_time(client: Client, project: str) -> None:
    """The SDK logs its system metrics at step 0: they are drawn over time."""
    run = client.made(project)
    log(client, run["runId"], [{"time": 1000 * n, "step": 0, "data": {"sys/cpu": float(n)}} for n in range(700)])
    text = page(client, run)
    assert "00:00:00" in text
    assert "00:11:39" in text
    assert len(re.findall("[ML]", paths(text)[0])) > 100


def test_the_page_is_bounded(client: Client, project: str) -> None:
    """More metrics or lines than a page can hold are counted, not shown."""
    run = client.made(project)
    log(client, run["runId"], [{"time": 1, "step": 1, "data": {f"m{n:04}": 1.0 for n in range(CHARTS + 7)}}])
    lines = [{"time": n, "lineNumber": n, "logType": "INFO", "message": f"line {n} <b>"} for n in range(LINES + 5)]
    body = "\n".join(map(json.dumps, lines)).encode()
    client.post("/ingest/logs", data=body, headers={"X-Run-Id": str(run["runId"])})
    text = page(client, run)
    assert len(paths(text)) == CHARTS
    assert "and 7 more metrics" in text
    assert "205 lines, the last 200 are shown" in text
    assert "line 4 &lt;b&gt;" not in text
    assert "line 204 &lt;b&gt;" in text


def test_files_can_be_fetched_from_the_page(client: Client, project: str) -> None:
    """The page's link fetches the file; the file's name is text."""
    run = client.made(project)
    entry = {"fileName": "<b>.txt", "logName": "n", "fileSize": 2, "fileType": "txt", "time": 1, "step": 1}
    answer = client.post("/files", {"files": [entry]}, headers={"X-Run-Id": str(run["runId"])}).json()
    client.session.put(answer["n"][0]["<b>.txt"], data=b"hi", timeout=20)
    (link,) = re.findall(r'<a href="(/files/[^"]*)">&lt;b&gt;\.txt</a>', page(client, run))
    assert client.get(link.replace("&amp;", "&")).content == b"hi"


@pytest.mark.parametrize("steps", range(1, len(migrations.STEPS)))
def test_an_older_file_is_taken_along(tmp_path: Path, steps: int) -> None:
    """A file of an earlier version gets the steps it lacks, and keeps its runs."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        for statement in [each for step in migrations.STEPS[:steps] for each in step]:
            connection.execute(statement)
        connection.execute("INSERT INTO projects (organization, name, prefix, created_at) VALUES ('o', 'p', 'P', 1)")
        connection.execute(f"PRAGMA application_id = {migrations.APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {steps}")
        connection.commit()
    with closing(Database(path)) as database:
        assert database.execute("SELECT name FROM projects").fetchone()[0] == "p"
        assert database.execute("SELECT count(*) FROM points").fetchone()[0] == 0
