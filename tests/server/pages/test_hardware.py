"""Nodes and GPUs on the run's page."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.conftest import TIMEOUT, Client


@pytest.mark.parametrize(
    "metadata",
    [
        "[1]",
        '"text"',
        '{"nodes":5,"node_classes":{},"cluster":[],"hosts":"x"}',
        '{"nodes":[1,null,"x",[],{"class":"a","gpus":5,"bad":[],"diff":{"a":1}}],"hosts":[1,null]}',
        '{"nodes":[{"class":true},{"class":-1},{"class":99},{"class":1.5}],"node_classes":[1,{"gpu":3,"nic":[1]}]}',
        '{"gpu":{"nvidia":{"devices":[1,{"memory":7}]}},"cpu":3,"platform":[]}',
        '{"hosts":[["a"],{"b":1}],"cluster":{"drift":{"x":[1]},"gpus":null},"drift":[5,{"nodes":[1]},{"field":{}}]}',
        '{"nodes":[{"gpus":[1],"rank":true,"gpu_of_rank":[[0]],"ranks":{},"uuid_of_rank":[{}],"hidden":[[]]}],"drift":1}',
        '{"node_classes":[{"gpu":{"memory":"a lot","power_limit_w":[1],"nvlink":4},"nic":{},"memory":{"total":-1}}]}',
    ],
)
def test_unexpected_metadata(client: Client, project: str, metadata: str) -> None:
    """No metadata document breaks the page."""
    run = client.create_run(project, systemMetadata=metadata)
    assert client.session.get(run["url"], timeout=TIMEOUT).status_code == 200


def table_of(page: str) -> str:
    """The section with the nodes."""
    return page.partition('<section id="hardware">')[2].partition("</section>")[0]


def of_attempts(**records: Any) -> str:
    return json.dumps({"pluto_dist": {"attempts": records}})


def test_the_attempts_of_a_run(client: Client, project: str) -> None:
    """The page shows the newest attempt, with its silent nodes, and links to the others; the config does without."""
    first = {"cluster": {"nodes": 2}, "nodes": [{"node": 0, "host": "a"}, {"node": 1, "host": "old-b"}]}
    hardware = [{"cluster": {"nodes": 2}, "nodes": [{"node": 1, "host": "new-b", "bad": {"3": "GpuIsLost"}}]}]
    silent = [{"node": "1", "host": "new-b", "since": "2026-01-01T01:00:00Z"}]
    config = of_attempts(x={"number": 1}, y={"number": 2, "hardware": hardware, "silent": silent})
    run = client.create_run(project, systemMetadata=json.dumps(first), config=config)
    client.post("/api/runs/trigger", {"runId": run["runId"]})

    page = client.session.get(run["url"], timeout=TIMEOUT).text
    assert "new-b: silent since 2026-01-01T01:00:00Z" in page
    row_a, row_b = table_of(page).partition("<tbody>")[2].partition("</tbody>")[0].split("</tr>")[:2]
    assert "silent" not in row_a
    assert client.details(run["runId"])["heartbeatAt"][:19] in row_a
    assert all(word in row_b for word in ("new-b", "GpuIsLost", "silent since 2026-01-01T01:00:00Z"))
    assert '<a href="?attempt=1#hardware">1</a>' in table_of(page)
    assert "attempts.y.hardware" not in page

    before = table_of(client.session.get(run["url"] + "?attempt=1", timeout=TIMEOUT).text)
    assert "old-b" in before
    assert "new-b" not in before
    for other in ("7", "-1", "x", "9" * 5000, ""):
        assert "new-b" in client.session.get(run["url"], params={"attempt": other}, timeout=TIMEOUT).text


@pytest.mark.parametrize(
    "record",
    [
        {"number": 2, "hardware": [{"cluster": 5, "nodes": {"a": 1}}], "silent": {"1": "x"}},
        {"number": 2, "hardware": [{"cluster": {"nodes": 1e30}, "nodes": [{"node": 1e30}, 3]}], "silent": [[], None]},
        {"number": 10**30, "hardware": "x", "silent": [{"node": "<b>", "host": "<b>", "since": "<b>"}]},
    ],
)
def test_unexpected_records(client: Client, project: str, record: dict[str, Any]) -> None:
    """No record of an attempt breaks the page, or is more than text on it."""
    run = client.create_run(project, config=of_attempts(x={"number": 1}, y=record))
    page = client.session.get(run["url"], timeout=TIMEOUT)
    assert page.status_code == 200
    assert "<li><b>" not in page.text
