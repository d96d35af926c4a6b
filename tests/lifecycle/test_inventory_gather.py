"""An inventory that cannot be read, or does not come, costs the other nodes nothing."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import pytest

from lifecycle.ranks import context_of, plan_of
from pluto_dist.contract.hardware import of_attempt
from pluto_dist.contract.run_requests import RunState
from pluto_dist.environments.topology import Topology
from pluto_dist.inventory.probes.collect import collect
from pluto_dist.lifecycle.context import RankContext
from pluto_dist.lifecycle.inventory_gather import LateNodes, cluster_document, gather, lacking
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import MESSAGE_LIMIT, Member
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.store import LocalStore

TWO_NODES = Topology(rank=0, world_size=2, local_rank=0, local_world_size=1, node_rank=0, node_count=2)
WORKER = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
PLAN = plan_of(WORKER | {"TORCHELASTIC_RUN_ID": "x", "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "2"}, mode="offline")


def place(store: LocalStore, node: str) -> Membership:
    return Membership(
        store, Member(rank=0 if node == "0" else 1, node=node, nonce="monday", host=f"node-{node}"), NodeState(None)
    )


@pytest.fixture(scope="module")
def inventory() -> dict[str, Any]:
    """What this machine's node leader would hand over."""
    return collect(5.0).to_json()


def gathered(message: str | dict[str, Any], inventory: dict[str, Any]) -> dict[str, Any]:
    """The document of two nodes of which the second handed over ``message``."""
    store = LocalStore()
    leader, other = place(store, "0"), place(store, "1")
    leader.publish_inventory(inventory)
    if isinstance(message, dict):
        message = json.dumps(message)
    store.set(f"0/inventories/{store.add('0/inventories', 1)}", message)
    assert sorted(other.nodes()) == ["0", "1"]
    found = gather(context_of(PLAN, leader), time.monotonic() + 0.3)
    document = cluster_document(TWO_NODES, found)
    json.dumps(document, allow_nan=False)
    return document


GARBLED = {
    "inventory of another shape": {"node": "1", "rank": 1, "inventory": {"host": 5}},
    "inventory a list": {"node": "1", "rank": 1, "inventory": []},
    "node no number": {"node": "one", "rank": 1, "inventory": {}},
    "node beyond the world": {"node": "99", "rank": 1, "inventory": {}},
    "node negative": {"node": "-1", "rank": 1, "inventory": {}},
    "no JSON": "hello",
    "too long": json.dumps({"node": "1", "rank": 1, "inventory": {"x": "y" * MESSAGE_LIMIT}}),
    "nested": "[" * 200_000,
}


@pytest.mark.parametrize("message", GARBLED.values(), ids=GARBLED)
def test_a_garbled_inventory_is_a_missing_node(message, inventory):
    """The good node is in the document, the garbled one is named as missing, and nothing is raised."""
    document = gathered(message, inventory)
    assert document["cluster"]["nodes_reported"] == 1


def test_both_nodes(inventory):
    """Two good inventories make a document of two nodes."""
    document = gathered({"node": "1", "rank": 1, "inventory": inventory}, inventory)
    assert document["cluster"]["nodes_reported"] == 2


def test_a_silent_node_is_not_waited_for(inventory):
    """The leader waits until its time and goes on with those that came."""
    leader = place(LocalStore(), "0")
    leader.publish_inventory(inventory)
    context, began = context_of(PLAN, leader), time.monotonic()
    found = gather(context, began + 0.3)
    assert 0.2 < time.monotonic() - began < 5
    assert set(found) == {"0"}


def test_a_late_node_is_welcomed_and_read_once(inventory):
    """A node that comes after the run was created is told that the owner lives, and its inventory comes once."""
    store = LocalStore()
    owner = place(store, "0")
    late = LateNodes(context_of(PLAN, owner), gathered=())
    owner.publish_inventory(inventory)
    assert late.expected
    assert late.look()
    assert late.expected

    other = place(store, "1")
    assert not other.await_acknowledgement(0)
    other.publish_inventory(inventory)
    assert late.look()
    assert other.await_acknowledgement(0)
    assert not late.expected
    assert not late.look()


@pytest.fixture
def two_nodes(inventory) -> RankContext:
    """The owner, when both nodes have published their inventories."""
    store = LocalStore()
    owner, other = place(store, "0"), place(store, "1")
    for each in (owner, other):
        each.publish_inventory(inventory)
    return context_of(PLAN, owner)


def recorded(document: dict[str, Any], **record: Any) -> RunState:
    """A run as the tracker has it, with the metadata of its creator and the record of this attempt."""
    return RunState("RUNNING", {"pluto_dist": {"attempts": {"key": record}}}, system_metadata=document)


def test_the_record_gets_what_it_lacks(two_nodes):
    """The late node's hardware restores a document of both nodes; a record that has both gets nothing more."""
    inventories = two_nodes.membership.inventories()
    one = json.loads(json.dumps(cluster_document(TWO_NODES, {"0": inventories["0"]})))
    both = json.loads(json.dumps(cluster_document(TWO_NODES, inventories)))
    hosts = ["node-0", "node-1"]

    found = lacking(two_nodes, "key", recorded(one, number=1, hosts=["node-0"], nodes_missing=1))
    assert (found["hosts"], found["nodes_missing"]) == (hosts, 0)
    assert [node["node"] for node in found["hardware"][0]["nodes"]] == [1]
    state = recorded(one, number=1, **found)
    shown = of_attempt(one, state.config)
    assert shown is not None
    assert shown.document["nodes"] == both["nodes"]
    assert lacking(two_nodes, "key", state) == {}
    assert lacking(two_nodes, "key", recorded(both, number=1, hosts=hosts)) == {}


def test_a_tracker_that_does_not_answer_gets_everything(two_nodes):
    """What is recorded is not known then; the request is kept, and is right whatever is recorded."""
    (hardware,) = lacking(two_nodes, "key", None)["hardware"]
    assert [node["node"] for node in hardware["nodes"]] == [0, 1]
    assert hardware["node_classes"]


def test_without_metadata_no_hardware_is_recorded(inventory):
    plan = dataclasses.replace(PLAN, settings=dataclasses.replace(PLAN.settings, metadata=frozenset()))
    owner = place(LocalStore(), "0")
    owner.publish_inventory(inventory)
    assert "hardware" not in lacking(context_of(plan, owner), "key", None)
