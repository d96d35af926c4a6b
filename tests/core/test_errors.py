"""Every deliberate error as a person reads it: what was wrong, what was seen, what fixes it.

The texts stand in errors.txt. A changed text is a changed file: run with PLUTO_DIST_WRITE_SNAPSHOTS=1, read it.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from misbehaving import RUN, Answer, Misbehaving, reply, reply_json

from pluto_dist import errors
from pluto_dist.arguments import Arguments, prepare
from pluto_dist.client import Client
from pluto_dist.exchange import Exchange, Member
from pluto_dist.identity import decide
from pluto_dist.joining import Plan, agree, lead
from pluto_dist.launchers import ProcessFacts, detect
from pluto_dist.settings import Secret
from pluto_dist.store import LocalStore, connect
from pluto_dist.wire import CreateRunRequest

SNAPSHOT = Path(__file__).with_name("errors.txt")
WORKER = {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "WORLD_SIZE": "8", "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "4"}


def given(environ: dict[str, str] | None = None, **arguments: object) -> Callable[[], object]:
    return lambda: prepare(Arguments(**arguments), environ or {})


def launched(environ: dict[str, str], **facts: bool) -> Callable[[], object]:
    return lambda: detect(environ, ProcessFacts(**facts))


def asked(answer: Answer | None) -> Callable[[], object]:
    """A create-run call that gets this answer."""

    def ask() -> object:
        with Misbehaving(*([answer] if answer else [])) as server:
            url = server.url if answer else "http://127.0.0.1:1"
            client = Client(url, url, Secret("mlps_k"), user_agent="test")
            client.stop()  # one try
            try:
                return client.create(CreateRunRequest("ddp", "digits", "job-7"), deadline=time.monotonic() + 5)
            finally:
                client.close()

    return ask


def plan(environ: dict[str, str], **arguments: object) -> Plan:
    prepared = prepare(Arguments(**arguments), environ)
    context = detect(environ)
    decision = decide(context, run_id=prepared.settings.run_id, resume=prepared.settings.resume)
    return Plan(prepared.settings, context, decision, prepared.request, {}, 1, "node-b", time.monotonic())


def two_names() -> object:
    store = LocalStore()
    for rank, host, name in ((0, "node-a", "monday"), (1, "node-b", "tuesday")):
        exchange = Exchange(store, Member(rank, str(rank), "n", host))
        mine = plan(WORKER | {"RANK": str(rank)}, run_id=name)
        agree(dataclasses.replace(mine, host=host), exchange, exchange.run(1))
    return None


def led(*answers: Answer, before: int | None = None, **arguments: object) -> Callable[[], object]:
    """The leader's part, with these answers of the tracker; raises what it tells the others."""

    def go() -> object:
        exchange = Exchange(LocalStore(), Member(0, "0", "n", "node-a"))
        run, mine = exchange.run(1), plan({}, **arguments)
        if before is not None:
            run.began(before)
        with Misbehaving(*answers) as server:
            client = Client(server.url, server.url, Secret("mlps_k"), user_agent="test")
            try:
                outcome = lead(mine, exchange, run, agree(mine, exchange, run), client, {})
            finally:
                client.close()
        raise errors.received(outcome.error, outcome.message)

    return go


ZOD = {"success": False, "error": {"name": "ZodError", "issues": [{"path": ["tags"], "message": "Required"}]}}
CASES: dict[str, Callable[[], object]] = {
    "one argument": given(timeout=-1),
    "many arguments": given({"PLUTO_URL_API": "nowhere"}, name="n" * 300, tags=["group:a", "group:b"], mode="later"),
    "a config of no kind": given(config=[1, 2]),
    "a config that is no file": given(config="absent.yaml"),
    "RANK alone": launched({"RANK": "3"}),
    "RANK counts nodes": launched({"RANK": "4", "WORLD_SIZE": "4"}),
    "no number": launched(WORKER | {"RANK": "first"}),
    "variables of no worker": launched({"TORCHELASTIC_RUN_ID": "x"}),
    "spawned without a group": launched({}, spawned=True),
    "no store": lambda: connect(detect({"RANK": "0", "WORLD_SIZE": "4"}), timeout=1),
    "torchrun's store not shared": lambda: connect(detect(WORKER), timeout=1),
    "resume without a name": lambda: decide(detect(WORKER), resume=True),
    "two names": two_names,
    "garbage in the store": lambda: (
        (store := LocalStore(), store.set("token", "\x80garbage")) and Exchange(store, Member(0, "0", "n", "a")).token()
    ),
    "wrong key": asked(reply_json({"error": "Unauthorized", "message": "Key not found"}, 401)),
    "refused, shape A": asked(reply_json({"error": "Organization is at limit"}, 400)),
    "refused, shape C": asked(reply_json(ZOD, 400)),
    "redirected": asked(reply(307, Location="https://pluto.example.com/api/runs/create")),
    "a web page": asked(reply(200, b"<!doctype html><title>Pluto</title>", Content_Type="text/html")),
    "another shape": asked(reply_json({"runId": 5})),
    "unavailable": asked(reply_json({"error": "Internal Server Error"}, 500)),
    "unreachable": asked(None),
    "exists": led(reply_json(RUN), run_id="job-7", resume=False),
    "cancelled": led(reply_json({"status": "CANCELLED"}), before=7),
}


@contextmanager
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield


def text_of(case: Callable[[], object]) -> str:
    with pytest.raises(errors.PlutoDistError) as caught:
        case()
    shown = re.sub(r"127\.0\.0\.1:\d{2,}", "127.0.0.1:PORT", str(caught.value))
    return f"{type(caught.value).__name__}: {shown}"


def test_the_texts(monkeypatch):
    """The text of every error is the one that was last read and approved."""
    with no_proxy(monkeypatch):
        texts = "\n\n".join(f"# {name}\n{text_of(case)}" for name, case in CASES.items()) + "\n"
    if os.environ.get("PLUTO_DIST_WRITE_SNAPSHOTS"):
        SNAPSHOT.write_text(texts)
    assert texts == SNAPSHOT.read_text()


def test_the_whole_tree_is_shown():
    """Every class of the tree that is raised has its text in the snapshot, and stands in the drawn tree."""
    shown = set(re.findall(r"^(\w+Error): ", SNAPSHOT.read_text(), re.MULTILINE))
    leaves = {c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.PlutoDistError)}
    leaves = {c for c in leaves if not c.__subclasses__()}
    assert {c.__name__ for c in leaves} == shown
    assert all(c.__name__ in (errors.__doc__ or "") for c in leaves)
