"""Rows about concurrent ranks, and about what is stored of their requests."""

from __future__ import annotations

import json
from typing import Any

import requests

from server.contract.row import CONFIG, NUMBERS, VALID, AnyOf, Row
from server.contract.target import Target, new_project, statuses

RANKS = 32


def _one_run(target: Target, project: str, answers: list[requests.Response]) -> Any:
    bodies = [answer.json() for answer in answers if answer.status_code == 200]
    created = sum(not body["resumed"] for body in bodies)
    return (
        statuses(answers),
        created,
        len({(b["runId"], b["number"]) for b in bodies}),
        target.create_run(project)["number"],
    )


def _existing_project(target: Target) -> Any:
    project = new_project()
    target.create_run(project)
    return _one_run(target, project, target.concurrently(RANKS, lambda _: target.create(project, "job")))


def _new_project(target: Target) -> Any:
    """Five bursts, because the hosted tracker fails in most of them, not in all."""
    found: set[int] = set()
    for _ in range(5):
        project = new_project()
        found |= statuses(target.concurrently(RANKS, lambda _, project=project: target.create(project, "job")))
    return found


def _distinct(target: Target) -> Any:
    found: set[int] = set()
    for _ in range(5):
        project = new_project()
        found |= statuses(target.concurrently(RANKS, lambda n, project=project: target.create(project, f"job-{n}")))
    return found


def _retried(target: Target) -> Any:
    """Ranks that are answered 500 retry; in the end all have the same run."""
    project = new_project()

    def create_with_retries(_: int) -> requests.Response:
        for _ in range(10):
            if (answer := target.create(project, "job")).status_code == 200:
                break
        return answer

    answers = target.concurrently(RANKS, create_with_retries)
    return statuses(answers), len({answer.json()["runId"] for answer in answers})


def _first(target: Target) -> Any:
    project = new_project()
    run = target.create_run(
        project, "job", systemMetadata='{"host":"A"}', loggerSettings='{"by":"A"}', tags=["A"],
        config='{"rank":"A","shared":{"a":1,"x":"A"},"lst":[1,2],"s":1}',
    )["runId"]  # fmt: skip
    for rank in "BC":
        target.create_run(
            project, "job", systemMetadata=json.dumps({"host": rank}), loggerSettings="{}", tags=[rank],
            config=json.dumps({"rank": rank, "shared": {rank: 1, "x": None}, "lst": [rank], "s": {"now": rank}}),
        )  # fmt: skip
    target.create_run(project, "job", config="{}")
    return target.details(run)


def _kept(target: Target) -> Any:
    found = _first(target)
    return found["systemMetadata"], found["loggerSettings"], found["tags"]


def _merged(target: Target) -> Any:
    return _first(target)["config"]


def _no_metadata(target: Target) -> Any:
    project = new_project()
    run = target.create_run(project, "job")["runId"]
    target.create_run(project, "job", systemMetadata='{"host":"B"}')
    return target.details(run)["systemMetadata"]


def _values(sent: str) -> Any:
    def observe(target: Target) -> Any:
        return target.details(target.create_run(new_project(), config=sent)["runId"])["config"]

    return observe


def _array_then_object(target: Target) -> Any:
    project = new_project()
    run = target.create_run(project, "job", config="[1,2]")["runId"]
    target.create_run(project, "job", config='{"a":1}')
    return target.details(run)["config"]


def _concurrent_keys(count: int, padding: int = 0) -> Any:
    def observe(target: Target) -> int:
        project = new_project()
        run = target.create_run(project, "job", config='{"base":1}')["runId"]
        target.concurrently(count, lambda n: target.create(project, "job", config=json.dumps({f"k{n}": "x" * padding})))
        return len(target.details(run)["config"])

    return observe


def _sequential_keys(target: Target) -> int:
    project = new_project()
    run = target.create_run(project, "job", config='{"base":1}')["runId"]
    for n in range(16):
        target.create_run(project, "job", config=json.dumps({f"k{n}": n}))
    return len(target.details(run)["config"])


def _stale_reads(target: Target) -> int:
    project = new_project()
    run = target.create_run(project, "job", config="{}")["runId"]
    stale = 0
    for n in range(50):
        target.create_run(project, "job", config=json.dumps({"n": n}))
        stale += target.details(run)["config"]["n"] != n
    return stale


def _value(sent: str, stored: Any) -> Row:
    return Row("stored", f"config {sent or 'empty'}", _values(sent), stored)


def _lost_keys(count: int, padding: int = 0) -> Row:
    fewer = AnyOf(f"fewer than {count + 1} keys", lambda found: found < count + 1)
    name = f"{count} concurrent resumes with a config key each" + (f" of {padding // 1000} kB" if padding else "")
    return Row("stored", name, _concurrent_keys(count, padding), fewer, count + 1, CONFIG)


NUMBERS_LOST = AnyOf(
    "one run, and the next number is greater than 3", lambda found: found[:3] == ({200}, 1, 1) and found[3] > 3
)
SOME_500 = AnyOf("500 to some ranks", lambda found: found == {200, 500})
ROWS = [
    Row("races", "32 ranks, one externalId, known project", _existing_project, NUMBERS_LOST, ({200}, 1, 1, 3), NUMBERS),
    Row("races", "32 ranks, one externalId, new project", _new_project, SOME_500, {200}, VALID),
    Row("races", "32 ranks, 32 externalIds, new project", _distinct, SOME_500, {200}, VALID),
    Row("races", "with retries all ranks get the run", _retried, ({200}, 1)),
    Row("stored", "metadata, settings and tags of the first rank are kept", _kept, ({"host": "A"}, {"by": "A"}, ["A"])),
    Row("stored", "metadata of a later rank is ignored, even if the first sent none", _no_metadata, None),
    Row(
        "stored", "config is merged at every depth, later values win", _merged,
        {"rank": "C", "shared": {"a": 1, "x": None, "B": 1, "C": 1}, "lst": ["C"], "s": {"now": "C"}},
    ),
    _value("", None),
    _value("null", None),
    _value("[1,2]", [1, 2]),
    _value('"abc"', "abc"),
    _value("5", 5),
    _value("false", False),
    _value('{"a":1e400}', {"a": None}),
    _value('{"a":9223372036854775807}', AnyOf("9223372036854776000", lambda found: float(found["a"]) == 2.0**63)),
    _value('{"__proto__":{"a":1},"b":2}', {"b": 2}),
    Row("stored", "keys merged into a list", _array_then_object, {"0": 1, "1": 2, "a": 1}),
    _lost_keys(16),
    _lost_keys(16, 100_000),
    _lost_keys(64),
    Row("stored", "16 sequential resumes with a config key each", _sequential_keys, 17),
    Row("stored", "a read after a resume is never stale", _stale_reads, 0),
]  # fmt: skip
