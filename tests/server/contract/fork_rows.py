"""Rows about forks: what a run inherits from its parent, and invalid forks."""

from __future__ import annotations

import json
from typing import Any

from server.contract.row import Row
from server.contract.target import Answer, Target, new_project, observed


def _parent(target: Target, steps: int = 11) -> tuple[str, int]:
    """A new project with one run that has metrics at the steps 0 to ``steps`` - 1."""
    project = new_project()
    run = target.create_run(project, config='{"a":1,"n":{"x":1}}', tags=["p", "group:p"])["runId"]
    lines = "".join(
        json.dumps({"time": 1700000000000 + n, "step": n, "data": {"loss": 1.0}}) + "\n" for n in range(steps)
    )
    headers = {"X-Run-Id": str(run), "X-Run-Name": "run", "X-Project-Name": project}
    target.send("/ingest/metrics", raw=lines.encode(), headers={**headers, "Content-Type": "application/x-ndjson"})
    return project, run


def _fork(target: Target, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    project, parent = _parent(target)
    created = target.create_run(project, forkRunId=parent, forkStep=5, **fields)
    return {**created, "parent": parent}, target.details(created["runId"])


def _answer(target: Target) -> Any:
    created, _ = _fork(target)
    return created["forkedFromRunId"] == created["parent"], created["forkStep"], created["resumed"]


def _config(target: Target) -> Any:
    return _fork(target, config='{"b":2,"n":{"y":2}}')[1]["config"]


def _no_config(target: Target) -> Any:
    _, found = _fork(target, inheritConfig=False, inheritTags=True, tags=["own", "group:own"])
    return found["config"], sorted(found["tags"])


def _many_tags(target: Target) -> int:
    project = new_project()
    parent = target.create_run(project, tags=[f"p{n}" for n in range(50)])["runId"]
    fork = target.create_run(project, forkRunId=parent, forkStep=0, inheritTags=True, tags=[f"o{n}" for n in range(50)])
    return len(target.details(fork["runId"])["tags"])


def _negative(target: Target) -> Any:
    project, parent = _parent(target)
    return target.create_run(project, forkRunId=parent, forkStep=-1)["forkStep"]


def _beyond(target: Target) -> Answer:
    project, parent = _parent(target)
    return observed(target.create(project, forkRunId=parent, forkStep=11))


def _other_project(target: Target) -> Answer:
    _, parent = _parent(target)
    return observed(target.create(new_project(), forkRunId=parent, forkStep=1))


def _existing(target: Target) -> Any:
    project, parent = _parent(target)
    fork = target.create_run(project, "fork", forkRunId=parent, forkStep=5)
    again = target.create_run(project, "fork", forkRunId=parent, forkStep=7)
    return again["resumed"], again["forkedFromRunId"], again["forkStep"], again["runId"] == fork["runId"]


def _grandparent(target: Target) -> Any:
    project, parent = _parent(target)
    child = target.create_run(project, forkRunId=parent, forkStep=5)["runId"]
    return target.create_run(project, forkRunId=child, forkStep=3)["forkedFromRunId"] == parent


def _fork_row(name: str, observe: Any, hosted: Any) -> Row:
    return Row("requests", f"fork: {name}", observe, hosted)


ROWS = [
    _fork_row("valid", _answer, (True, 5, False)),
    _fork_row("config is merged at the top level only", _config, {"a": 1, "b": 2, "n": {"y": 2}}),
    _fork_row("tags inherited, config not; own group tag wins", _no_config, (None, ["group:own", "own", "p"])),
    _fork_row("inherited tags may exceed 50", _many_tags, 100),
    _fork_row("forkStep -1", _negative, -1),
    _fork_row(
        "a step after the parent's last", _beyond,
        Answer(400, "A", "forkStep (11) exceeds the parent run's max step (10)"),
    ),
    _fork_row("parent in another project", _other_project, Answer(400, "A", "Fork parent run not found in this")),
    _fork_row("with an externalId that exists", _existing, (True, None, None, True)),
    _fork_row("a fork at an inherited step is a fork of the grandparent", _grandparent, True),
]  # fmt: skip
