"""A run that is not settled is kept once: by one rank of a node, under the id that its ranks agree on, until it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lifecycle.ranks import context_of, member_of, plan_of
from pluto_dist.client.offline import queue
from pluto_dist.client.offline.entry import Entry
from pluto_dist.errors import ExchangeError
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.lifecycle.unsettled import UnsettledRun, alone, creation_of
from pluto_dist.rendezvous.session import Session
from pluto_dist.rendezvous.store import LocalStore


def rank_of(folder: Path, rank: int, *, nodes: int = 1, node: int = 0, attempt: int = 0) -> Plan:
    """A worker of torchrun on this machine, whose node keeps its state below ``folder``."""
    place = folder / f"node{node}" / f"attempt_{attempt}" / str(rank)
    place.mkdir(parents=True, exist_ok=True)
    place.parent.chmod(0o700)
    place.parents[1].chmod(0o700)
    environ = {
        "RANK": str(rank), "WORLD_SIZE": "4", "LOCAL_RANK": str(rank % 2), "LOCAL_WORLD_SIZE": str(4 // nodes),
        "GROUP_RANK": str(node), "GROUP_WORLD_SIZE": str(nodes), "TORCHELASTIC_RUN_ID": "none",
        "TORCHELASTIC_RESTART_COUNT": str(attempt), "TORCHELASTIC_MAX_RESTARTS": "3",
        "TORCHELASTIC_ERROR_FILE": str(place / "error.json"), "PLUTO_DIR": str(folder / "state"), "PLUTO_API_KEY": "k",
    }  # fmt: skip
    return plan_of(environ, timeout=1)


def entries(folder: Path) -> list[Entry]:
    """What is kept, of all runs."""
    root = folder / "state" / "pluto-dist" / "spool"
    found = queue.runs(root) if root.exists() else []
    return [entry for each in found for entry, _ in each.entries()]


def test_one_rank_of_a_node_keeps_it(tmp_path):
    """Four ranks that are not connected have one id, and one create-run request with the config, for all of them."""
    ranks = [UnsettledRun(rank_of(tmp_path, rank), Session()) for rank in range(4)]
    for each in ranks:
        each.keep(None, None)
        each.keep(None, None)
    assert len({each.context.run_name for each in ranks if each.context}) == 1
    assert [each.outbox is not None for each in ranks] == [True, False, False, False]
    (entry,) = entries(tmp_path)
    assert entry.request.external_id == entry.run.reference.value
    assert json.loads(entry.request.config)["pluto_dist"]["world_size"] == 4


def test_the_next_attempt_keeps_it_again(tmp_path):
    """Under the same id, with a record of its own."""
    for attempt in range(2):
        UnsettledRun(rank_of(tmp_path, 0, attempt=attempt), Session()).keep(None, None)
    first, second = entries(tmp_path)
    assert first.run == second.run
    assert first.key != second.key


@pytest.mark.parametrize("node", [0, 1])
def test_a_node_that_cannot_know_the_id_keeps_nothing(tmp_path, node):
    """Of several nodes only that of rank 0 may name the run before they are connected."""
    unsettled = UnsettledRun(rank_of(tmp_path, 2 * node, nodes=2, node=node), Session())
    unsettled.keep(None, None)
    assert len(entries(tmp_path)) == (node == 0)
    assert (unsettled.context is None) == (node == 1)


def connected(plan: Plan, folder: Path, **more: Any) -> Any:
    return context_of(plan, member_of(LocalStore()), spool=plan.settings.spool, **more)


def test_a_rank_that_loses_the_store_keeps_the_attempt_that_it_created(tmp_path):
    """Its end would be that of an earlier attempt, if what it keeps were of another one than what the tracker has."""
    plan, store = rank_of(tmp_path, 0), LostStore()
    context = context_of(plan, member_of(store), spool=plan.settings.spool)
    context.outbox.attempt = "the attempt"
    store.is_lost = True
    assert creation_of(context).key == "the attempt"


class LostStore(LocalStore):
    """A store that can be lost."""

    is_lost = False

    def get_all(self, keys: Sequence[str]) -> list[str | None]:
        if self.is_lost:
            raise ExchangeError("it is lost")
        return super().get_all(keys)


def test_the_ranks_that_are_connected_keep_it_once(tmp_path):
    """The first to claim it; the others know that it is kept."""
    plan, store = rank_of(tmp_path, 1), LocalStore()
    for rank in range(3):
        context = context_of(plan, member_of(store, rank), spool=plan.settings.spool)
        UnsettledRun(plan, Session()).keep(context, None)
    assert len(entries(tmp_path)) == 1


def test_what_is_kept_goes_once_the_run_is_settled(tmp_path):
    """And nothing is kept from then on."""
    unsettled = UnsettledRun(rank_of(tmp_path, 0), Session())
    unsettled.keep(None, None)
    unsettled.settled()
    unsettled.keep(None, None)
    assert entries(tmp_path) == []


def test_what_was_kept_moves_to_the_agreed_id(tmp_path):
    """A token that the other nodes agreed on meanwhile is the right one."""
    plan = rank_of(tmp_path, 0, nodes=2)
    unsettled = UnsettledRun(plan, Session())
    unsettled.keep(None, None)
    context = connected(plan, tmp_path)
    assert entries(tmp_path)[0].run != context.run_name
    unsettled.agreed(context)
    assert [entry.run for entry in entries(tmp_path)] == [context.run_name]


def test_a_rank_alone_and_connected_is_in_one_run(tmp_path):
    """A single process, of which nothing is kept on the node, has one token."""
    plan, session = plan_of({}, mode="offline"), Session()
    found = {alone(plan, session, guesses=True).run_name for _ in range(2)}
    assert len(found) == 1
