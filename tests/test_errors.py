"""Every deliberate error as a person reads it: what was wrong, what was seen, what fixes it.

The texts stand in errors.txt. A changed text is a changed file: run with PLUTO_DIST_WRITE_SNAPSHOTS=1, read it.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from client.misbehaving import RUN, Answer, Misbehaving, reply, reply_json
from lifecycle.ranks import context_of, member_of, plan_of
from pluto_dist import errors
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_requests import CreateRunRequest, CreateRunResponse
from pluto_dist.contract.secret import Secret
from pluto_dist.environments import ProcessFacts, detect
from pluto_dist.identity import decide
from pluto_dist.lifecycle.agreement import agree
from pluto_dist.lifecycle.election import create_as_owner
from pluto_dist.rendezvous.connect import connect
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import Member, Outcome
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.store import LocalStore
from pluto_dist.settings.arguments import Arguments, resolve

NOTHING = NodeState(None)
SNAPSHOT = Path(__file__).with_name("errors.txt")
WORKER = {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "WORLD_SIZE": "8", "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "4"}


def given(environ: dict[str, str] | None = None, **arguments: object) -> Callable[[], object]:
    return lambda: resolve(Arguments(**arguments), environ or {})


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


def heartbeat(answer: Answer) -> Callable[[], object]:
    """A heartbeat that gets this answer."""

    def send() -> object:
        with Misbehaving(answer) as server:
            client = TrackerClient("http://127.0.0.1:1", server.url, Secret("mlps_k"), user_agent="test")
            try:
                return client.heartbeat(7, deadline=time.monotonic() + 5)
            finally:
                client.close()

    return send


def two_names() -> object:
    store = LocalStore()
    for rank, host, name in ((0, "node-a", "monday"), (1, "node-b", "tuesday")):
        plan = plan_of(WORKER | {"RANK": str(rank)}, host=host, run_id=name)
        agree(plan, member_of(store, rank, str(rank), host=host).run(1), "")
    return None


def created(
    *answers: Answer, environ: dict[str, str] | None = None, before: bool = False, **arguments: object
) -> Callable[[], object]:
    """Rank 0 creates the run, with these answers of the tracker; raises what it publishes."""

    def go() -> object:
        membership, plan = member_of(LocalStore(), host="node-a"), plan_of(environ or {}, host="node-b", **arguments)
        with Misbehaving(*answers) as server:
            client = TrackerClient(server.url, server.url, Secret("mlps_k"), user_agent="test")
            try:
                context = context_of(plan, membership, client=client)
                if before:
                    context.channel.remember(Outcome("online", CreateRunResponse.from_json(RUN)), in_store=True)
                outcome = create_as_owner(context, {}).outcome
            finally:
                client.close()
        raise errors.received(outcome.error, outcome.message)

    return go


def connected(environ: dict[str, str]) -> object:
    return connect(detect(environ), NOTHING, "slot", deadline=time.monotonic() + 0.3)


def taken_slot() -> object:
    """Two processes that both are rank 0 of two."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    first = connect(detect(environ), NOTHING, "one slot", deadline=time.monotonic() + 20)
    try:
        return connect(detect(environ), NOTHING, "another", deadline=time.monotonic() + 0.3)
    finally:
        first.close()


DETAILS = {"id": 7, "displayId": "DIG-3", "externalId": "job-7", "status": "RUNNING", "config": {}}
FIRST = {"number": 1, "hosts": ["node-c"], "heartbeat": 0.1}


def details_with(**records: object) -> Answer:
    return reply_json(DETAILS | {"config": {"pluto_dist": {"attempts": records}}})


# It is not listed, but resumed, which had not ended; the claim is taken, but then another launch is in it.
IN_USE = [
    *(reply_json({"runs": []}), reply_json(RUN), reply_json({"events": []}), details_with(x=FIRST)),
    *(reply_json({"success": True}), details_with(x=FIRST, y=FIRST | {"number": 2}), reply_json({"success": True})),
]
MAY_LIVE = [*IN_USE[:3], details_with(x=FIRST | {"heartbeat": 10})]
IN_JOB = WORKER | {"TORCHELASTIC_RUN_ID": "J"}
ZOD = {"success": False, "error": {"name": "ZodError", "issues": [{"path": ["tags"], "message": "Required"}]}}
CASES: dict[str, Callable[[], object]] = {
    "one argument": given(timeout=-1),
    "many arguments": given({"PLUTO_URL_API": "nowhere"}, name="n" * 300, tags=["group:a", "group:b"], mode="later"),
    "an id that no run can have": given({"PLUTO_RUN_ID": "JOB-20261128093000"}),
    "a number that no run can have": given(run_id="20261128093000123456789", fork_run_id="X-9999999999", fork_step=1),
    "a config of no kind": given(config=[1, 2]),
    "a config that is no file": given(config="absent.yaml"),
    "RANK alone": launched({"RANK": "3"}),
    "RANK counts nodes": launched({"RANK": "4", "WORLD_SIZE": "4"}),
    "an impossible place": launched(WORKER | {"LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "2"}),
    "no number": launched(WORKER | {"RANK": "first"}),
    "variables of no worker": launched({"TORCHELASTIC_RUN_ID": "x"}),
    "spawned without a group": launched({}, spawned=True, starts_ranks=True),
    "no store": lambda: connected({"RANK": "0", "WORLD_SIZE": "4"}),
    "rank 0 hosts no store": lambda: connected(WORKER | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}),
    "resume without a name": lambda: decide(detect(WORKER), resume=True),
    "two names": two_names,
    "garbage in the store": lambda: (
        (store := LocalStore(), store.set("token", "\x80garbage"))
        and Membership(store, Member(0, "0", "n", "a"), NOTHING).agree_on_token(None, 0)
    ),
    "wrong key": asked(reply_json({"error": "Unauthorized", "message": "Key not found"}, 401)),
    "refused, shape A": asked(reply_json({"error": "A run can have at most one group:* tag."}, 400)),
    "no room": asked(reply_json({"error": "Organization is at limit"}, 400)),
    "no heartbeats": heartbeat(reply(404, b"404 Not Found")),
    "refused, shape C": asked(reply_json(ZOD, 400)),
    "redirected": asked(reply(307, Location="https://pluto.example.com/api/runs/create")),
    "a web page": asked(reply(200, b"<!doctype html><title>Pluto</title>", Content_Type="text/html")),
    "another shape": asked(reply_json({"runId": 5})),
    "unavailable": asked(reply_json({"error": "Internal Server Error"}, 500)),
    "unreachable": asked(None),
    "exists": created(reply_json({"runs": [{"id": 7}]}), reply_json(DETAILS), run_id="job-7", resume=False),
    "in use": created(*IN_USE, environ=IN_JOB, resume=True, timeout=30),
    "may be in use": created(*MAY_LIVE, environ=IN_JOB, resume=True, timeout=5),
    "a slot that is taken": taken_slot,
    "cancelled": created(reply_json({"status": "CANCELLED", "externalId": "job-7"}), before=True, run_id="job-7"),
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
    leaves = {c for c in leaves if not any(sub.__module__ == errors.__name__ for sub in c.__subclasses__())}
    assert {c.__name__ for c in leaves} == shown
    assert all(c.__name__ in (errors.__doc__ or "") for c in leaves)
