"""Ranks that come at once, and what is stored of what they bring."""

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
    return statuses(answers), created, len({(b["runId"], b["number"]) for b in bodies}), target.made(project)["number"]


def _existing_project(target: Target) -> Any:
    project = new_project()
    target.made(project)
    return _one_run(target, project, target.at_once(RANKS, lambda _: target.create(project, "job")))


def _new_project(target: Target) -> Any:
    """Five bursts, for the real server fails in most, not in all."""
    found: set[int] = set()
    for _ in range(5):
        project = new_project()
        found |= statuses(target.at_once(RANKS, lambda _, project=project: target.create(project, "job")))
    return found


def _distinct(target: Target) -> Any:
    found: set[int] = set()
    for _ in range(5):
        project = new_project()
        found |= statuses(target.at_once(RANKS, lambda n, project=project: target.create(project, f"job-{n}")))
    return found


def _retried(target: Target) -> Any:
    """A rank that is answered 500 tries again: in the end all are in one run."""
    project = new_project()

    def stubborn(_: int) -> requests.Response:
        for _ in range(10):
            if (answer := target.create(project, "job")).status_code == 200:
                break
        return answer

    answers = target.at_once(RANKS, stubborn)
    return statuses(answers), len({answer.json()["runId"] for answer in answers})


def _first(target: Target) -> Any:
    project = new_project()
    run = target.made(
        project, "job", systemMetadata='{"host":"A"}', loggerSettings='{"by":"A"}', tags=["A"],
        config='{"who":"A","shared":{"a":1,"x":"A"},"lst":[1,2],"s":1}',
    )["runId"]  # fmt: skip
    for who in "BC":
        target.made(
            project, "job", systemMetadata=json.dumps({"host": who}), loggerSettings="{}", tags=[who],
            config=json.dumps({"who": who, "shared": {who: 1, "x": None}, "lst": [who], "s": {"now": who}}),
        )  # fmt: skip
    target.made(project, "job", config="{}")
    return target.details(run)


def _kept(target: Target) -> Any:
    found = _first(target)
    return found["systemMetadata"], found["loggerSettings"], found["tags"]


def _merged(target: Target) -> Any:
    return _first(target)["config"]


def _no_metadata(target: Target) -> Any:
    project = new_project()
    run = target.made(project, "job")["runId"]
    target.made(project, "job", systemMetadata='{"host":"B"}')
    return target.details(run)["systemMetadata"]


def _values(sent: str) -> Any:
    def ask(target: Target) -> Any:
        return target.details(target.made(new_project(), config=sent)["runId"])["config"]

    return ask


def _array_then_object(target: Target) -> Any:
    project = new_project()
    run = target.made(project, "job", config="[1,2]")["runId"]
    target.made(project, "job", config='{"a":1}')
    return target.details(run)["config"]


def _concurrent_keys(count: int, padding: int = 0) -> Any:
    def ask(target: Target) -> int:
        project = new_project()
        run = target.made(project, "job", config='{"base":1}')["runId"]
        target.at_once(count, lambda n: target.create(project, "job", config=json.dumps({f"k{n}": "x" * padding})))
        return len(target.details(run)["config"])

    return ask


def _sequential_keys(target: Target) -> int:
    project = new_project()
    run = target.made(project, "job", config='{"base":1}')["runId"]
    for n in range(16):
        target.made(project, "job", config=json.dumps({f"k{n}": n}))
    return len(target.details(run)["config"])


def _stale_reads(target: Target) -> int:
    project = new_project()
    run = target.made(project, "job", config="{}")["runId"]
    stale = 0
    for n in range(50):
        target.made(project, "job", config=json.dumps({"n": n}))
        stale += target.details(run)["config"]["n"] != n
    return stale


def _value(sent: str, stored: Any) -> Row:
    return Row("stored", f"config {sent or 'empty'}", _values(sent), stored)


def _lost(count: int, padding: int = 0) -> Row:
    some = AnyOf(f"fewer than {count + 1} keys", lambda found: found < count + 1)
    name = f"{count} resumes at once with a config key each" + (f" of {padding // 1000} kB" if padding else "")
    return Row("stored", name, _concurrent_keys(count, padding), some, count + 1, CONFIG)


BURNED = AnyOf("one run, the next number later than 3", lambda seen: seen[:3] == ({200}, 1, 1) and seen[3] > 3)
SOME_500 = AnyOf("500 to some ranks", lambda found: found == {200, 500})
ROWS = [
    Row("races", "32 ranks, one new externalId, a project", _existing_project, BURNED, ({200}, 1, 1, 3), NUMBERS),
    Row("races", "32 ranks, one new externalId, new project", _new_project, SOME_500, {200}, VALID),
    Row("races", "32 ranks, an externalId each, new project", _distinct, SOME_500, {200}, VALID),
    Row("races", "a retry cures it", _retried, ({200}, 1)),
    Row("stored", "metadata, settings and tags stay the first's", _kept, ({"host": "A"}, {"by": "A"}, ["A"])),
    Row("stored", "metadata of a later rank is dropped where the first sent none", _no_metadata, None),
    Row(
        "stored", "config is merged at every depth, later wins", _merged,
        {"who": "C", "shared": {"a": 1, "x": None, "B": 1, "C": 1}, "lst": ["C"], "s": {"now": "C"}},
    ),
    _value("", None),
    _value("null", None),
    _value("[1,2]", [1, 2]),
    _value('"abc"', "abc"),
    _value("5", 5),
    _value("false", False),
    _value('{"a":1e400}', {"a": None}),
    _value('{"a":9223372036854775807}', AnyOf("9223372036854776000", lambda seen: float(seen["a"]) == 2.0**63)),
    _value('{"__proto__":{"a":1},"b":2}', {"b": 2}),
    Row("stored", "a list that keys are merged into", _array_then_object, {"0": 1, "1": 2, "a": 1}),
    _lost(16),
    _lost(16, 100_000),
    _lost(64),
    Row("stored", "16 resumes one after the other", _sequential_keys, 17),
    Row("stored", "a read right after a resume is never stale", _stale_reads, 0),
]  # fmt: skip
