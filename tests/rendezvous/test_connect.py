"""Where ranks meet when no agent hosts a store, and what a node remembers when a store died with its host.

Every rank is a process of its own: torch keeps the stores that a process hosts for its life.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from pluto_dist.contract.failure import Failure
from pluto_dist.contract.run_requests import CreateRunResponse
from pluto_dist.errors import ExchangeError
from pluto_dist.identity import TOKEN
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import Member, Outcome, PriorAttempt
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.store import LocalStore

ANSWER = CreateRunResponse(7, 3, "DIG-3", "digits", "local", "http://127.0.0.1/x", False)
RANK = """
import json, os, sys, time
import torch.distributed  # takes seconds, which are no part of the limits
from pathlib import Path
from pluto_dist.rendezvous import connect as meeting
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import Member
from pluto_dist.errors import ExchangeError
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.environments import LaunchContext
from pluto_dist.environments.topology import Topology
rank, world, seconds, place, late = json.loads(sys.argv[1])
folder = NodeState(Path(place)) if isinstance(place, str) else NodeState(None)
address = tuple(place) if isinstance(place, list) else None
topology = Topology(rank, world, rank, world, 0, 1)
context = LaunchContext("bare", topology, hosted_address=address)
time.sleep(late)
began = time.monotonic()
try:
    shared = meeting.connect(context, folder, f"seat {os.getpid()}", deadline=began + seconds)
    token = Membership(shared, Member(rank, "0", "one", "h"), NodeState(None)).agree_on_token(None, 0)
    print(json.dumps({"rank": rank, "token": token, "seconds": time.monotonic() - began}), flush=True)
    sys.stdin.read()
except ExchangeError as error:
    print(json.dumps({"rank": rank, "error": str(error), "seconds": time.monotonic() - began}), flush=True)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def started(*settings: list[object]) -> Iterator[list[dict]]:
    """One process for each (rank, world size, seconds, place, seconds late); what each prints. They stay until then."""
    environ = {**os.environ, "RES_OPTIONS": "attempts:0"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([sys.executable, "-c", RANK, json.dumps(each)], env=environ, **pipes) for each in settings
    ]
    try:
        yield [json.loads(process.stdout.readline()) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate(timeout=60)


def ranks(*settings: list[object]) -> list[dict]:
    """What each process of :func:`started` prints."""
    with started(*settings) as seen:
        return seen


@pytest.mark.parametrize("order", [pytest.param("rank 0 first", marks=pytest.mark.exhaustive), "rank 0 last"])
def test_rank_0_hosts_where_torch_will(order):
    """Whoever comes first, the ranks agree on one token in the store that rank 0 hosts."""
    place = ["127.0.0.1", free_port()]
    late = [0, 1, 1] if order == "rank 0 first" else [2, 0, 0]
    seen = ranks(*([rank, 3, 30, place, late[rank]] for rank in range(3)))
    assert len({report["token"] for report in seen}) == 1


def test_a_launch_on_one_node_meets_in_its_folder(tmp_path):
    """Without an address rank 0 hosts on any port and tells it; a port that an earlier rank 0 left is no hindrance."""
    NodeState(tmp_path).set("port", str(free_port()))
    seen = ranks(*([rank, 3, 30, str(tmp_path), 0 if rank else 1] for rank in range(3)))
    assert len({report["token"] for report in seen}) == 1


def test_two_jobs_on_one_port_do_not_mix():
    """A second job that comes to the first one's port gets an error on every rank, never the first one's token."""
    place = ["127.0.0.1", free_port()]
    with started(*([rank, 2, 30, place, 0] for rank in range(2))) as first:
        second = ranks(*([rank, 2, 8, place, 0] for rank in range(2)))
    assert len({report["token"] for report in first}) == 1
    assert all("another" in report["error"] or "cannot host" in report["error"] for report in second)


def test_rank_0_never_comes():
    """The wait for rank 0 ends at its time, with an error that says what to do."""
    (seen,) = ranks([1, 2, 2, ["127.0.0.1", free_port()], 0])
    assert "init_process_group" in seen["error"]
    assert 1.5 < seen["seconds"] < 30


# What nodes remember.


def node(store: LocalStore, number: int, folder: Path | None) -> Membership:
    return Membership(store, Member(number, str(number), "one", f"node-{number}"), NodeState(folder))


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "a", tmp_path / "b"]
    for folder in made:
        folder.mkdir(mode=0o700)
    return made


def lived_through(folders: list[Path]) -> str:
    """An attempt of two nodes whose store is gone; the token that they had."""
    store = LocalStore()
    places = [node(store, n, folder) for n, folder in enumerate(folders)]
    places[1].store.add("0/forgot", 1)  # the second node's word: nobody waits in this one thread
    token = places[0].agree_on_token(2, 0)
    assert places[1].agree_on_token(2, 0) == token
    for place in places:
        place.run(1).remember(Outcome("online", ANSWER), in_store=place is places[0])
    places[1].fail(Failure("ValueError: boom", "node-1", 1))
    return token


@pytest.mark.parametrize("survivors", [[0], [1], [0, 1]], ids=["the first node", "the second", "both"])
def test_one_node_that_remembers_is_enough(folders, survivors):
    """In a new store the launch goes on with its token, its run and its failure, whoever is new."""
    token = lived_through(folders)
    store = LocalStore()
    places = [node(store, n, folders[n] if n in survivors else None) for n in (0, 1)]
    for n in survivors:
        assert places[n].agree_on_token(2, 0) == token
    for place in places:
        assert place.agree_on_token(2, 5) == token
        assert place.run(1).prior_attempt() == PriorAttempt(7, joined=True)
    if 1 in survivors:
        assert places[0].last_failure() == Failure("ValueError: boom", "node-1", 1)
        again = node(LocalStore(), 1, folders[1])  # the attempt after the next did not end of it
        assert again.agree_on_token(2, 0) == token
        assert again.last_failure() is None


def test_a_newcomer_waits_for_those_who_remember(folders):
    """A node without memory makes no token while another may still come with one."""
    token = lived_through(folders)
    store = LocalStore()
    newcomer = node(store, 0, None)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(newcomer.agree_on_token, 2, 60)
        time.sleep(0.3)
        assert not waiting.done()
        assert node(store, 1, folders[1]).agree_on_token(2, 0) == token
        assert waiting.result(30) == token


def test_nobody_remembers(folders):
    """Once every node has said so, the launch is a new one, without waiting."""
    store = LocalStore()
    store.add("0/forgot", 1)  # the other node's word
    began = time.monotonic()
    token = node(store, 0, folders[0]).agree_on_token(2, 30)
    assert TOKEN.fullmatch(token)
    assert time.monotonic() - began < 20
    assert NodeState(folders[0]).get("token") == token


def test_a_silent_node_is_waited_for_no_longer_than_said(folders):
    """A node that never speaks costs the bound, and then the launch has a token."""
    began = time.monotonic()
    assert TOKEN.fullmatch(node(LocalStore(), 0, folders[0]).agree_on_token(2, 0.5))
    assert 0.4 < time.monotonic() - began < 30


def test_two_memories_end_as_one(folders):
    """Nodes that remember different tokens agree on one of them, and remember it from then on."""
    for name, folder in zip("ab", folders, strict=True):
        NodeState(folder).set("token", name * 20)
    store = LocalStore()
    tokens = {node(store, n, folder).agree_on_token(2, 0) for n, folder in enumerate(folders)}
    assert tokens == {"a" * 20}
    assert {NodeState(folder).get("token") for folder in folders} == tokens


@pytest.mark.parametrize("planted", ["", "TOKEN", "a" * 21, "../../etc", "a" * 19 + "\n", "\x00" * 20])
def test_a_planted_memory_is_not_believed(folders, planted):
    """What is no token is no memory: a new one is made, and the run's id holds nothing that was planted."""
    (folders[0] / ".pluto_dist_token").write_text(planted)
    token = node(LocalStore(), 0, folders[0]).agree_on_token(None, 0)
    assert TOKEN.fullmatch(token)
    assert token != planted


@pytest.mark.parametrize("planted", ["lived seven", "lived -1", "lived " + "9" * 500])
def test_a_planted_run_is_an_error_at_most(folders, planted):
    """A remembered run that is no number is ExchangeError when it is read, and nothing else."""
    token = lived_through(folders)
    NodeState(folders[0]).set(f"{token} run 1", planted)
    place = node(LocalStore(), 0, folders[0])
    assert place.agree_on_token(2, 0) == token
    with pytest.raises(ExchangeError):
        place.run(1).prior_attempt()
