"""The record of each attempt in a run's config, whatever else is there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluto_dist.contract.attempts import Attempt, key, newest, record, recorded

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def made(earlier: dict[str, Any], **changes: Any) -> dict[str, Any]:
    facts = {"launch": "k3", "started": 0.0, "world_size": 4, "hosts": ["a", "b"], "heartbeat": 10.0}
    return record(earlier, Attempt(**(facts | changes)))


def test_the_first_attempt_changes_nothing():
    """A first attempt has a number, a start, its hosts, and nothing to compare with."""
    assert made({}) == {
        "number": 1,
        "launch": "k3",
        "start": "1970-01-01T00:00:00.000Z",
        "world_size": 4,
        "hosts": ["a", "b"],
        "heartbeat": 10.0,
    }


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, {"joined": [], "left": []}),
        ({"hosts": ["a", "c"]}, {"joined": ["c"], "left": ["b"]}),
        ({"hosts": ["a"], "world_size": 2}, {"joined": [], "left": ["b"], "world_size_before": 4}),
        ({"hosts": ["b", "a"]}, {"joined": [], "left": []}),
        ({"hosts": ["a", "a"]}, {"joined": [], "left": ["b"]}),
        (
            {"failure": {"reason": "ValueError: boom", "rank": 3, "host": "b"}},
            {"after_failure": {"reason": "ValueError: boom", "rank": 3, "host": "b"}},
        ),
        ({"missing": 2}, {"nodes_missing": 2}),
    ],
)
def test_a_later_attempt_records_what_changed(change, told):
    """Hosts that came and went, another world size, the failure before it, the nodes that are missing."""
    again = made({"x": made({})}, **change)
    assert again["number"] == 2
    assert again.items() >= told.items()


def test_records_of_two_owners_stand_side_by_side():
    """Two live rank 0s have keys of their own; one of the two is the newest, the same for all who ask."""
    first = {key(0.0, "node-a"): made({})}
    both = first | {key(60.0, "node-a"): made(first), key(60.0, "node-a"): made(first)}
    assert len(both) == 3
    last = newest(both)
    assert last is not None
    assert (last["number"], last["key"]) == (2, max(both))


@given(config=JSON, garbage=st.dictionaries(st.text(max_size=5), JSON, max_size=5))
def test_whatever_the_tracker_returns(config, garbage):
    """Foreign content is ignored: a record is made all the same, and is JSON."""
    records = recorded({"pluto_dist": {"attempts": garbage}})
    json.dumps(made(records), allow_nan=False)
    json.dumps(made(recorded(config)), allow_nan=False)
    assert made(records)["number"] >= 1 or newest(records) is not None
