"""Requests made of any values: what is sent is what the hosted tracker stores."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.picky import status_for
from contract.test_run_requests import request
from pluto_dist.contract.run_requests import (
    LATEST_MS,
    CreateRunRequest,
    ResumeRunRequest,
    TriggerRequest,
    UpdateConfigRequest,
    UpdateStatusRequest,
)
from pluto_dist.contract.storable import body_of, storable, storable_name
from pluto_dist.contract.validation import Record, Rule, issues

REQUESTS = (CreateRunRequest, ResumeRunRequest, TriggerRequest, UpdateConfigRequest, UpdateStatusRequest)
TEXT = st.text(st.characters(exclude_categories=())) | st.text("\x00\ud800", max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
DEEP = st.integers(90, 300).map(lambda depth: '{"a":' * depth + "1" + "}" * depth)
DOCUMENTS = JSON.map(json.dumps) | JSON.map(lambda value: json.dumps(value, ensure_ascii=False)) | TEXT | DEEP
NUMBERS = st.integers() | st.floats() | st.just(1e30)


def values_of(rule: Rule, required: bool) -> st.SearchStrategy[Any]:
    """Values of a field's type, without regard to its limits."""
    if rule.choices:
        values: st.SearchStrategy[Any] = st.sampled_from(rule.choices)
    elif rule.type == "array":
        values = st.lists(TEXT, max_size=50).map(tuple)
    elif rule.type == "string":
        values = DOCUMENTS if rule.is_document else TEXT | st.integers(250, 600).map("x".__mul__)
    elif rule.type == "boolean":
        values = st.booleans()
    else:
        values = NUMBERS
    return values if required and not rule.nullable else st.none() | values


def requests() -> st.SearchStrategy[Record]:
    def of(record: type[Record]) -> st.SearchStrategy[Record]:
        fields = dataclasses.fields(record)
        return st.builds(
            record, **{f.name: values_of(f.metadata["rule"], f.default is dataclasses.MISSING) for f in fields}
        )

    return st.sampled_from(REQUESTS).flatmap(of)


@given(made=requests())
def test_any_request_is_stored(made):
    """Whatever a request was made of, it is JSON of the contract's types, and nothing in it is a 500 or a 400."""
    body = body_of(made)
    assert issues(type(made), body) == ()
    assert status_for(body) == 200
    assert not any(isinstance(value, float) for value in body.values())
    assert storable(storable(made)) == storable(made)


@pytest.mark.parametrize(
    "made",
    [
        request(config='{"a": [1, 2.5, null, "\\u00e9"], "b": {}}', created_at=5, tags=("é", "")),
        UpdateStatusRequest.of(7, "FAILED", {"reason": "boom", "host": "a"}, 1_700_000_000_123),
        UpdateConfigRequest(7, '{ "spaces":   1 }'),
    ],
)
def test_what_can_be_stored_is_unchanged(made):
    """A request of values that can be stored is sent as it was made, to the byte."""
    assert storable(made) == made


CHANGES = {
    "NUL": (r'{"reason": "a\u0000b"}', {"reason": "ab"}),
    "lone surrogate": (r'{"reason": "\ud800"}', {"reason": "�"}),
    "NUL in a key": (r'{"a\u0000": 1, "a": 2}', {"a": 1, "a (2)": 2}),
    "NaN": ('{"a": [NaN, Infinity, -Infinity, 1e999]}', {"a": ["NaN", "Infinity", "-Infinity", "Infinity"]}),
    "no object": ("[1]", {"value": [1]}),
    "no JSON": ("{", {"value": "{"}),
    "too deep to be read": ("[" * 100_000, {"value": "[" * 1000}),
    "a number of many digits": ("9" * 5000, {"value": "Infinity"}),
}


@pytest.mark.parametrize(("document", "stored"), CHANGES.values(), ids=CHANGES)
def test_documents(document, stored):
    """Each fault of a document, and what is sent instead."""
    sent = storable(UpdateStatusRequest(7, "FAILED", document)).status_metadata
    assert json.loads(sent) == stored


def test_nesting_is_cut():
    """Of 124 levels, which the hosted tracker answers 500 to, the deepest are described."""
    sent = storable(UpdateStatusRequest(7, "FAILED", '{"a":' * 124 + "1" + "}" * 124)).status_metadata
    assert sent.count("{") == 100
    assert "nested too deep" in sent


def test_no_document_clears_or_is_left_out():
    """An end without a reason clears an earlier one; other documents are left out, and a config is an object."""
    assert body_of(UpdateStatusRequest(7, "COMPLETED"))["statusMetadata"] is None
    assert "config" not in body_of(request(config="null"))
    assert body_of(UpdateConfigRequest(7, None))["config"] == "{}"


@given(one=TEXT, other=TEXT)
def test_long_names_stay_apart(one, other):
    """Two long names that begin alike are two names, of at most 255 characters."""
    start = "x" * 300
    names = [storable_name(start + storable_name(text)) for text in (one, other)]
    assert max(map(len, names)) <= 255
    assert (names[0] == names[1]) == (storable_name(one) == storable_name(other))


@pytest.mark.parametrize(
    ("at", "sent"), [(1.7e12, 1_700_000_000_000), (float("nan"), 0), (-5, 0), (float("inf"), LATEST_MS), (1.5, 1)]
)
def test_times_are_whole_milliseconds(at, sent):
    """A time is an integer that can be stored."""
    body = body_of(CreateRunRequest("r", "p", created_at=at, updated_at=at))
    end = body_of(UpdateStatusRequest(7, "COMPLETED", status_updated=at))
    assert [body["createdAt"], body["updatedAt"], end["statusUpdated"]] == [sent] * 3
    assert {type(body["createdAt"]), type(end["statusUpdated"])} == {int}


def test_a_time_that_is_read_is_an_integer():
    """A request that an earlier version kept with a float has the integer."""
    read = CreateRunRequest.from_json({"runName": "r", "projectName": "p", "createdAt": 1_700_000_000_000.0})
    assert type(read.created_at) is int
