"""Metrics, console lines and files on the run's page, within their limits."""

from __future__ import annotations

import math
import re

from pluto_dist.server.pages.logged_data import CHARTS, LINES, POINTS
from server.conftest import Client, Run


def page(client: Client, run: Run) -> str:
    response = client.get(run["url"].removeprefix(client.url))
    assert response.status_code == 200
    assert "script" not in response.headers["content-security-policy"]
    assert "<script" not in response.text
    assert "style=" not in response.text
    return response.text


def paths(text: str) -> list[str]:
    return re.findall(r'<path d="([^"]*)"', text)


def test_points_are_limited(client: Client, project: str) -> None:
    """A chart has at most 500 points, and shows a spike of one step among 5,000."""
    run = client.create_run(project)
    values = [1.0] * 5000
    values[3333] = 100.0
    client.ingest("metrics", run["runId"], [{"time": n, "step": n, "data": {"loss": v}} for n, v in enumerate(values)])
    text = page(client, run)
    (path,) = paths(text)
    assert len(re.findall("[ML]", path)) <= POINTS
    assert re.search(r"[ML][\d.]+ 4[L ]", path), "the highest point is at the upper edge"
    assert ">100<" in text


def test_chart_groups(client: Client, project: str) -> None:
    """Charts are grouped by name, system metrics last and collapsed; names are escaped."""
    run = client.create_run(project)
    data = {"val/acc": 1.0, "sys/cpu": 1.0, "<img src=x>": 1.0, "train/a": 1.0, "odd": math.nan}
    client.ingest("metrics", run["runId"], [{"time": n, "step": n, "data": data} for n in range(3)])
    text = page(client, run)
    assert "<img src=x>" not in text
    assert "&lt;img src=x&gt;" in text
    groups = re.findall(r'<details class="group"( open)?>\s*<summary>([^<]*) <', text)
    assert groups == [(" open", "Metrics without a group"), (" open", "train"), (" open", "val"), ("", "sys")]
    assert len(paths(text)) == 4


def test_time_axis(client: Client, project: str) -> None:
    """The SDK logs system metrics at step 0 only, so their axis is time."""
    run = client.create_run(project)
    client.ingest(
        "metrics", run["runId"], [{"time": 1000 * n, "step": 0, "data": {"sys/cpu": float(n)}} for n in range(700)]
    )
    text = page(client, run)
    assert "00:00:00" in text
    assert "00:11:39" in text
    assert len(re.findall("[ML]", paths(text)[0])) > 100


def test_lists_are_limited(client: Client, project: str) -> None:
    """Metrics and console lines over the limits are counted and not shown."""
    run = client.create_run(project)
    client.ingest(
        "metrics", run["runId"], [{"time": 1, "step": 1, "data": {f"m{n:04}": 1.0 for n in range(CHARTS + 7)}}]
    )
    lines = [{"time": n, "lineNumber": n, "logType": "INFO", "message": f"line {n} <b>"} for n in range(LINES + 5)]
    client.ingest("logs", run["runId"], lines)
    text = page(client, run)
    assert len(paths(text)) == CHARTS
    assert "and 7 more metrics" in text
    assert "205 lines, the last 200 are shown" in text
    assert "line 4 &lt;b&gt;" not in text
    assert "line 204 &lt;b&gt;" in text


def test_download_link(client: Client, project: str) -> None:
    """The page links to the file; its name is escaped."""
    run = client.create_run(project)
    entry = {"fileName": "<b>.txt", "logName": "n", "fileSize": 2, "fileType": "txt", "time": 1, "step": 1}
    uploads = client.post("/files", {"files": [entry]}, headers={"X-Run-Id": str(run["runId"])}).json()
    client.session.put(uploads["n"][0]["<b>.txt"], data=b"hi", timeout=20)
    (link,) = re.findall(r'<a href="(/files/[^"]*)">&lt;b&gt;\.txt</a>', page(client, run))
    assert client.get(link.replace("&amp;", "&")).content == b"hi"
