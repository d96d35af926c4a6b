"""Every deliberate error as a person reads it: what was wrong, what was seen, what fixes it.

The texts stand in errors.txt. A changed text is a changed file: run with PLUTO_DIST_WRITE_SNAPSHOTS=1, read it.
"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from client.misbehaving import RUN, Answer, Misbehaving, reply, reply_json

from pluto_dist import errors
from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_requests import CreateRunRequest, CreateRunResponse
from pluto_dist.contract.secret import Secret
from pluto_dist.environments import detect
from pluto_dist.environments.context import ProcessFacts
from pluto_dist.identity import decide
from pluto_dist.lifecycle.agreement import agree
from pluto_dist.lifecycle.creation import run_name
from pluto_dist.lifecycle.election import lead
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.rendezvous.connect import connect
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import Member, Outcome
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.store import LocalStore
from pluto_dist.settings.arguments import Arguments, prepare

NOTHING = NodeState(None)
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
            client = TrackerClient(url, url, Secret("mlps_k"), user_agent="test")
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
        exchange = Membership(store, Member(rank, str(rank), "n", host), NOTHING)
        mine = plan(WORKER | {"RANK": str(rank)}, run_id=name)
        agree(dataclasses.replace(mine, host=host), exchange.run(1), "")
    return None


def led(
    *answers: Answer, environ: dict[str, str] | None = None, before: bool = False, **arguments: object
) -> Callable[[], object]:
    """The leader's part, with these answers of the tracker; raises what it tells the others."""

    def go() -> object:
        exchange = Membership(LocalStore(), Member(0, "0", "n", "node-a"), NOTHING)
        token = exchange.agree_on_token(None, 0)
        run, mine = exchange.run(1), plan(environ or {}, **arguments)
        if before:
            run.remember(Outcome("online", CreateRunResponse.from_json(RUN)), tell=True)
        with Misbehaving(*answers) as server:
            client = TrackerClient(server.url, server.url, Secret("mlps_k"), user_agent="test")
            try:
                signed = agree(mine, run, token)
                outbox = Outbox(None, run_name(mine, signed.reference), token)
                outcome, _ = lead(mine, exchange, run, signed, client, outbox, {})
            finally:
                client.close()
        raise errors.received(outcome.error, outcome.message)

    return go


def meet(environ: dict[str, str]) -> object:
    return connect(detect(environ), NOTHING, "seat", deadline=time.monotonic() + 0.3)


def taken_seat() -> object:
    """Two processes that both are rank 0 of two."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    first = connect(detect(environ), NOTHING, "one seat", deadline=time.monotonic() + 20)
    try:
        return connect(detect(environ), NOTHING, "another", deadline=time.monotonic() + 0.3)
    finally:
        first.close()


IN_USE = {
    "status": "RUNNING",
    "heartbeatAt": "2999-01-01T00:00:00Z",
    "config": {"pluto_dist": {"attempts": {"x": {"number": 1, "hosts": ["node-c"]}}}},
}
IN_JOB = WORKER | {"TORCHELASTIC_RUN_ID": "J"}
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
    "no store": lambda: meet({"RANK": "0", "WORLD_SIZE": "4"}),
    "rank 0 hosts no store": lambda: meet(WORKER | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}),
    "resume without a name": lambda: decide(detect(WORKER), resume=True),
    "two names": two_names,
    "garbage in the store": lambda: (
        (store := LocalStore(), store.set("token", "\x80garbage"))
        and Membership(store, Member(0, "0", "n", "a"), NOTHING).agree_on_token(None, 0)
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
    "in use": led(reply_json(RUN), reply_json(IN_USE), environ=IN_JOB, resume=True, timeout=1),
    "a seat that is taken": taken_seat,
    "cancelled": led(reply_json({"status": "CANCELLED"}), before=True),
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
