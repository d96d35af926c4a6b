"""Filters of run lists: which runs match, and which filters are invalid."""

from __future__ import annotations

from typing import Any

import pytest

from pluto_dist.server.db.filters import FilterError, matches

RUN = {
    "status": "FAILED",
    "name": "run",
    "tags": ["a", "b"],
    "createdAt": "2026-01-02T00:00:00.000Z",
    "updatedAt": None,
    "heartbeatAt": None,
    "config": {"lr": 0.1, "net": {"depth": 2}, "opt.name": "adam", "on": True},
    "systemMetadata": None,
}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({}, True),
        ({"status": "FAILED"}, True),
        ({"state": "crashed"}, True),
        ({"state": {"$in": ["running", "finished"]}}, False),
        ({"state": {"$nin": ["running"]}}, True),
        ({"tags": "a"}, True),
        ({"tags": {"$in": ["z", "b"]}}, True),
        ({"tags": {"$ne": "a"}}, False),
        ({"tags": ["a", "b"]}, True),
        ({"config.lr": {"$gte": 0.1, "$lt": 0.2}}, True),
        ({"config.lr.value": 0.1}, True),
        ({"config.net.depth": {"$gt": 2}}, False),
        ({"config.opt.name": "adam"}, True),
        ({"config.missing": {"$lt": 1}}, False),
        ({"config.missing": None}, True),
        ({"config.opt.name": {"$gt": 1}}, False),
        ({"systemMetadata.host": "x"}, False),
        ({"summaryMetrics.loss": {"$lt": 1}}, True),
        ({"summary_metrics.other": {"$lt": 1}}, False),
        ({"created_at": {"$gte": "2026-01-01"}}, True),
        ({"heartbeat_at": {"$lt": "2026-01-01"}}, False),
        ({"$or": [{"name": "x"}, {"name": "run"}]}, True),
        ({"$and": [{"name": "x"}, {"name": "run"}]}, False),
        ({"$not": {"name": "x"}}, True),
        ({"name": "run", "status": "RUNNING"}, False),
    ],
    ids=str,
)
def test_matches(condition: dict[str, Any], expected: bool) -> None:
    """A filter matches a run or not, even if the run lacks the field."""
    assert matches(condition, RUN.get, {"loss": 0.5}.get) is expected


def nested(depth: int) -> dict[str, Any]:
    return {"$not": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    "condition",
    [[], "x", {"$nor": []}, {"$or": {}}, {"name": {"$regex": "(a+)+$"}}, {"nonsense": 1}, {"config": 1}, nested(30)],
    ids=lambda condition: str(condition)[:30],
)
def test_invalid_filter(condition: Any) -> None:
    """An unknown word is an error, because ignoring it would give a wrong result."""
    with pytest.raises(FilterError):
        matches(condition, RUN.get, {"loss": 0.5}.get)
