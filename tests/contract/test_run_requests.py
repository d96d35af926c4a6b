"""The contract's records: what they become as JSON, what is none of them, and what cannot be stored."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluto_dist.contract import run_requests
from pluto_dist.contract.run_requests import (
    LATEST_MS,
    STATUSES,
    CreateRunRequest,
    CreateRunResponse,
    ResumeRunRequest,
    SuccessResponse,
    TriggerRequest,
    TriggerResponse,
    UpdateConfigRequest,
    UpdateStatusRequest,
    UpdateTagsRequest,
    refusals,
)
from pluto_dist.contract.validation import (
    ContractError,
    Record,
    Rule,
    issues,
    parse_document,
    unstorable,
    unstorable_in,
)

RECORDS: tuple[type[Record], ...] = (
    CreateRunRequest,
    CreateRunResponse,
    ResumeRunRequest,
    UpdateStatusRequest,
    UpdateConfigRequest,
    UpdateTagsRequest,
    SuccessResponse,
    TriggerRequest,
    TriggerResponse,
)
SMALLEST: dict[type[Record], dict[str, Any]] = {
    CreateRunRequest: {"runName": "r", "projectName": "p"},
    CreateRunResponse: {
        "runId": 1,
        "number": 1,
        "displayId": "P-1",
        "projectName": "p",
        "organizationSlug": "o",
        "url": "http://x/r",
        "resumed": False,
    },
    ResumeRunRequest: {},
    UpdateStatusRequest: {"runId": 1, "status": "RUNNING"},
    UpdateConfigRequest: {"runId": 1, "config": "{}"},
    UpdateTagsRequest: {"runId": 1, "tags": ["a"]},
    SuccessResponse: {"success": True},
    TriggerRequest: {"runId": 1},
    TriggerResponse: {},
}
RULES = [(record, field.metadata["rule"]) for record in RECORDS for field in dataclasses.fields(record)]
RULE_IDS = [f"{record.__name__}.{rule.json}" for record, rule in RULES]
OF_ANOTHER_TYPE = {"string": "s", "number": 1, "boolean": True, "array": ["s"], "object": {"k": 1}, "null": None}


def values_of(rule: Rule, required: bool) -> st.SearchStrategy[Any]:
    """Values that a field may hold, as the record has them."""
    if rule.choices:
        values: st.SearchStrategy[Any] = st.sampled_from(rule.choices)
    elif rule.type == "array":
        values = st.lists(st.text(), max_size=50).map(tuple)
    elif rule.type == "string":
        values = st.text(min_size=rule.min_length or 0)
    elif rule.type == "boolean":
        values = st.booleans()
    else:
        values = st.integers(0, LATEST_MS)
    return values if required and not rule.nullable else st.none() | values


def records() -> st.SearchStrategy[Record]:
    def of(record: type[Record]) -> st.SearchStrategy[Record]:
        fields = dataclasses.fields(record)
        wanted = {f.name: values_of(f.metadata["rule"], f.default is dataclasses.MISSING) for f in fields}
        return st.builds(record, **wanted)

    return st.sampled_from(RECORDS).flatmap(of)


def test_every_record_is_in_the_table():
    """A record that is added to the contract is added here."""
    defined = {value for value in vars(run_requests).values() if isinstance(value, type) and issubclass(value, Record)}
    assert set(RECORDS) == defined - {Record}
    assert SMALLEST.keys() == set(RECORDS)


@given(record=records())
def test_round_trip(record):
    """A record, as JSON text and back, is the same record; None is absent in a request and null in an answer."""
    sent = record.to_json()
    required = {f.metadata["rule"].json for f in dataclasses.fields(record) if f.default is dataclasses.MISSING}
    if required <= sent.keys():  # a request leaves out its nulls, one that it must have included
        assert type(record).from_json(json.loads(json.dumps(sent))) == record
    assert (None in sent.values()) <= record.nulls


@pytest.mark.parametrize("record", RECORDS)
def test_smallest_bodies(record):
    """What the contract does not require may be absent, and what it does not know is dropped."""
    small = record.from_json(SMALLEST[record])
    assert record.from_json({**SMALLEST[record], "unheardOf": [1], "": {}}) == small


@pytest.mark.parametrize(("record", "rule"), RULES, ids=RULE_IDS)
def test_a_missing_field(record, rule):
    """A required field that is missing is one issue, with its path; another may be missing."""
    body = {name: value for name, value in SMALLEST[record].items() if name != rule.json}
    found = issues(record, body)
    if rule.json in SMALLEST[record]:
        (issue,) = found
        assert issue.to_json() == {
            "code": "invalid_type",
            "expected": rule.type,
            "received": "undefined",
            "path": [rule.json],
            "message": "Required",
        }
    else:
        assert found == ()


@pytest.mark.parametrize("received", OF_ANOTHER_TYPE)
@pytest.mark.parametrize(("record", "rule"), RULES, ids=RULE_IDS)
def test_a_field_of_another_type(record, rule, received):
    """Types are strict: no text for a number, no number for a boolean, null only where the contract has it."""
    found = issues(record, {**SMALLEST[record], rule.json: OF_ANOTHER_TYPE[received]})
    if received == rule.type or (received == "null" and rule.nullable):
        assert all(rule.choices and issue.path == (rule.json,) for issue in found)
        return
    (issue,) = found
    assert issue.path == (rule.json,)
    assert issue.detail["code"] == "invalid_type"
    assert issue.message.startswith("Expected ")
    assert issue.message.endswith(f", received {received}")
    with pytest.raises(ContractError, match=rule.json):
        record.from_json({**SMALLEST[record], rule.json: OF_ANOTHER_TYPE[received]})


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("body", [None, [], "x", 1, True])
def test_a_body_that_is_no_object(record, body):
    """Anything but an object is one issue at the root."""
    (issue,) = issues(record, body)
    assert issue.path == ()
    assert issue.message.startswith("Expected object, received ")


BODIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([r.json for _, r in RULES]), inner),
    max_leaves=12,
)


@given(record=st.sampled_from(RECORDS), body=BODIES)
def test_any_json_is_a_record_or_a_contract_error(record, body):
    """Parsing garbage raises ContractError and nothing else."""
    try:
        made = record.from_json(body)
    except ContractError as error:
        assert error.issues
        return
    assert isinstance(made, record)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1.5, -1])
def test_run_ids_of_answers_are_whole_numbers(bad):
    """An answer whose run id no request could name is not the contract's."""
    with pytest.raises(ContractError, match="runId"):
        CreateRunResponse.from_json({**SMALLEST[CreateRunResponse], "runId": bad})


def test_all_issues_at_once():
    """Every wrong field is told, in the contract's order, and which item of an array is wrong."""
    found = issues(CreateRunRequest, {"runName": None, "externalId": "", "tags": ["a", 1, None], "createdAt": -1})
    assert [issue.path for issue in found] == [
        ("runName",),
        ("projectName",),
        ("externalId",),
        ("tags", 1),
        ("tags", 2),
        ("createdAt",),
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, None),
        (1_700_000_000_123, None),
        (1_700_000_000_000.0, None),
        (8_640_000_000_000_000, None),
        (8_640_000_000_000_001, "less than or equal"),
        (-1, "greater than or equal"),
        (1.5, "Expected integer"),
        (float("nan"), "Expected integer"),
        (float("inf"), "Expected integer"),
        ("2026-01-01", "Expected number"),
        (True, "Expected number"),
    ],
)
@pytest.mark.parametrize("name", ["createdAt", "updatedAt"])
def test_dates(name, value, message):
    """Dates are whole milliseconds from 1970 to the last that an ECMAScript Date can hold."""
    found = issues(CreateRunRequest, {**SMALLEST[CreateRunRequest], name: value})
    assert [message in issue.message for issue in found] == ([] if message is None else [True])


@pytest.mark.parametrize("count", [0, 1, 50, 51, 1000])
def test_number_of_tags(count):
    """At most 50 tags."""
    found = issues(CreateRunRequest, {**SMALLEST[CreateRunRequest], "tags": ["t"] * count})
    assert [issue.message for issue in found] == (["A run can have at most 50 tags"] if count > 50 else [])


@pytest.mark.parametrize("status", [*STATUSES, "running", "FINISHED", "", None, 1, ["RUNNING"], {}])
def test_statuses(status):
    """The tracker's five words and no other."""
    found = issues(UpdateStatusRequest, {"runId": 1, "status": status})
    assert (not found) == (status in STATUSES)


def request(**fields: Any) -> CreateRunRequest:
    return CreateRunRequest(**{"run_name": "r", "project_name": "p", **fields})


NAMES = {"run_name": "runName", "project_name": "projectName", "external_id": "externalId"}


@pytest.mark.parametrize("unit", ["x", "é", "作", "😀", "e\u0301"])
@pytest.mark.parametrize("name", NAMES)
def test_lengths_count_characters(name, unit):
    """255 characters pass whatever their bytes; one more is refused, and the message tells how many there are."""
    exact = (unit * 255)[:255]
    assert refusals(request(**{name: exact})) == ()
    (told,) = refusals(request(**{name: exact + "x"}))
    assert told.startswith(f"{NAMES[name]} has 256 characters")


@pytest.mark.parametrize(
    ("tags", "refused"),
    [
        ((), False),
        (("group:a",), False),
        (("group:a", "b", "Group:c", " group:d"), False),
        (("group:a", "group:b"), True),
        (("group:a", "group:a"), True),
        (("group:", "group:"), True),
        (("a", "a", ""), False),
    ],
)
def test_group_tags(tags, refused):
    """At most one tag that starts with group:, an identical one counts too."""
    assert refusals(request(tags=tags)) == (("A run can have at most one group:* tag.",) if refused else ())


@pytest.mark.parametrize("bad", ["\x00", "a\x00b", "\ud800", "\udfff", "a\udc00\ud800"])
@pytest.mark.parametrize("name", [*NAMES, "tags"])
def test_names_that_cannot_be_stored(name, bad):
    """A NUL or a lone surrogate in a name or tag is refused, and the message says where."""
    (told,) = refusals(request(**{name: ("fine", bad) if name == "tags" else bad}))
    assert told.startswith("tags[1] contains" if name == "tags" else f"{NAMES[name]} contains")


DOCUMENTS = {
    "escaped NUL": (r'{"a":"\u0000"}', "NUL"),
    "escaped NUL in a key": (r'{"a\u0000":1}', "NUL"),
    "deep": (r'[[[{"a":[{"b":"x\u0000"}]}]]]', "NUL"),
    "backslash before u0000": (r'{"a":"\\u0000"}', None),
    "two backslashes before an escape": (r'{"a":"\\\u0000"}', "NUL"),
    "escaped lone surrogate": (r'{"a":"\ud800"}', "surrogate"),
    "escaped lone low surrogate": (r'{"a":"\udc00x"}', "surrogate"),
    "escaped pair": (r'{"a":"\ud83d\ude00"}', None),
    "pair the wrong way round": (r'{"a":"\ude00\ud83d"}', "surrogate"),
    "raw surrogate": ('{"a":"\ud800"}', "surrogate"),
    "raw emoji": ('{"a":"😀"}', None),
    "escaped tab": (r'{"a":"\t\u0001"}', None),
    "a plain string": (r'"\u0000"', "NUL"),
    "not JSON": ("{", None),
    "raw NUL is not JSON": ('{"a":"\x00"}', None),
    "empty": ("", None),
    "null": ("null", None),
    "number": ("5", None),
}


@pytest.mark.parametrize(("document", "bad"), DOCUMENTS.values(), ids=DOCUMENTS)
@pytest.mark.parametrize(
    ("name", "told_as"),
    [("config", "config"), ("system_metadata", "systemMetadata"), ("logger_settings", "loggerSettings")],
)
def test_documents_that_cannot_be_stored(name, told_as, document, bad):
    """In a document, what counts is the parsed text: an escape that means NUL is refused, one that looks so is not."""
    found = refusals(request(**{name: document}))
    assert [told.startswith(f"{told_as} contains") and bad in told for told in found] == ([] if bad is None else [True])


@given(texts=st.lists(st.text(st.characters(exclude_categories=()))), ensure_ascii=st.booleans())
def test_a_document_is_as_storable_as_its_strings(texts, ensure_ascii):
    """However a document is written, with escapes or without, all that is bad in its parsed strings is found."""
    document = json.dumps(texts, ensure_ascii=ensure_ascii)
    assert unstorable_in(document) == {bad for text in parse_document(document) if (bad := unstorable(text))}


@pytest.mark.parametrize("name", ["created_at", "updated_at"])
@pytest.mark.parametrize(("at", "refused"), [(0, False), (LATEST_MS, False), (LATEST_MS + 1, True), (9e15, True)])
def test_dates_that_cannot_be_stored(name, at, refused):
    """Nothing after the year 9999, though the schema lets it pass."""
    assert bool(refusals(request(**{name: at}))) is refused


@pytest.mark.parametrize(
    ("parent", "step", "refused"),
    [(None, None, False), (None, 3, False), (7, 0, False), (7, None, True), (0, None, False)],
)
def test_forks_say_from_where(parent, step, refused):
    """A fork needs the step; 0 is a step, and no parent is no fork."""
    assert bool(refusals(request(fork_run_id=parent, fork_step=step))) is refused


def test_all_refusals_at_once():
    """One call tells everything."""
    bad = request(
        run_name="x" * 300, external_id="\x00", tags=("group:a", "group:b"), config=r'"\ud800"', fork_run_id=1
    )
    assert len(refusals(bad)) == 5


@given(text=st.text(st.characters(exclude_categories=())))
def test_storable_text_is_what_utf8_and_sql_can_hold(text):
    """Text passes exactly if it encodes to UTF-8 without a zero byte."""
    try:
        holds = b"\0" not in text.encode()
    except UnicodeEncodeError:
        holds = False
    assert (unstorable(text) is None) is holds


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "[Infinity]",
        '{"a":-Infinity}',
        "",
        "{",
        "'a'",
        "[1,]",
        "\x00",
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 5000,
    ],
    ids=lambda text: text[:12] or "empty",
)
def test_what_is_no_document(text):
    """What is not JSON, NaN and nesting beyond the parser are one ValueError; never a RecursionError."""
    with pytest.raises(ValueError):  # its message is the parser's
        parse_document(text)


@pytest.mark.parametrize("text", ["null", "[]", '"NaN"', "1e400", '{"a":[1,{"b":null}]}', "[" * 200 + "]" * 200])
def test_what_is_a_document(text):
    """Any JSON value is one, and so is the text "NaN"."""
    assert parse_document(text) == json.loads(text)
