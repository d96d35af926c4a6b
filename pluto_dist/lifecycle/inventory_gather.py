"""The inventories of all nodes, as the owner gathers them into the run's metadata.

A node whose inventory does not come in time, or cannot be read, is named as missing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from pluto_dist.contract import attempts, hardware
from pluto_dist.contract.run_requests import CreateRunResponse, RunState
from pluto_dist.environments.topology import Topology
from pluto_dist.inventory.records import NodeInventory, Process
from pluto_dist.inventory.report import attempt as report
from pluto_dist.inventory.report.document import compose
from pluto_dist.inventory.report.drift import differences
from pluto_dist.lifecycle.context import RankContext
from pluto_dist.log import logger
from pluto_dist.serialization.text import parse_digits

MOST_LINES = 5  # of a warning of what differs
GATHER_SECONDS = 2.0  # how long the owner waits for the nodes before it creates the run


def gather(context: RankContext, until: float) -> dict[str, dict[str, Any]]:
    """The inventories of all nodes, or of those that came before ``until`` (monotonic clock), by node."""
    topology, membership, channel = context.plan.topology, context.membership, context.channel
    while True:
        found = membership.inventories()
        wanted = topology.node_count
        if wanted is None and channel.count("joined", 0) >= topology.world_size:
            wanted = len(membership.nodes())
        left = until - time.monotonic()
        if (wanted is not None and len(found) >= wanted) or left <= 0 or channel.outcome() is not None:
            return found
        membership.await_inventory(len(found) + 1, min(left, 0.1))


def in_order(nodes: Mapping[str, str]) -> tuple[str, ...]:
    """The hosts of ``nodes`` (host by node), in the order of the nodes' numbers if they have some.

    >>> in_order({"10": "c", "2": "b"}), in_order({"b": "b", "a": "a"})
    (('b', 'c'), ('b', 'a'))
    """
    if all(parse_digits(node) is not None for node in nodes):
        return tuple(nodes[node] for node in sorted(nodes, key=int))
    return tuple(nodes.values())


def cluster_document(
    topology: Topology, gathered: Mapping[str, dict[str, Any]], process: Process | None = None
) -> dict[str, Any]:
    """The run's systemMetadata: every node that published its inventory, and the names of those that did not.

    The document numbers the nodes as the launcher does; without such numbers, in the order of their first ranks.
    ``process`` is this one, which creates the run.
    """
    count = topology.node_count
    numbers = [str(n) for n in range(count)] if count else sorted(gathered, key=lambda name: gathered[name]["rank"])
    nodes: dict[int, NodeInventory | None] = {}
    first_ranks: dict[int, int] = {}
    for index, name in enumerate(numbers):
        entry = gathered.get(name)
        nodes[index] = None if entry is None else _inventory(name, entry)
        if entry is not None:
            first_ranks[index] = entry["rank"]
    return compose(
        nodes,
        owner_node=topology.node_rank or 0,
        world_size=topology.world_size,
        first_ranks=first_ranks,
        process=process,
    )


def warn_of_drift(document: Mapping[str, Any], answer: CreateRunResponse | None) -> None:
    """One warning of what differs between the nodes or is wrong with a GPU, the worst first."""
    found = differences(document)
    if not found:
        return
    lines = [str(each) for each in found[:MOST_LINES]]
    if len(found) > MOST_LINES:
        named = "RUN" if answer is None else answer.run_id
        lines.append(f"and {len(found) - MOST_LINES} more: pluto-dist nodes {named}")
    several = document["cluster"]["nodes"] > 1
    what = "the nodes of this job are not alike" if several else "this node is not as it should be"
    logger.warning("%s:\n  %s", what, "\n  ".join(lines))


def _inventory(node: str, entry: dict[str, Any]) -> NodeInventory | None:
    try:
        return NodeInventory.from_json(entry["inventory"])
    except ValueError as error:
        logger.debug("the inventory of node %s cannot be read: %s", node, error)
        return None


class LateNodes:
    """The nodes that were missing when the run was created.

    Args:
        context: this rank.
        gathered: the nodes whose inventory is in the run's metadata, as far as this rank knows.
    """

    def __init__(self, context: RankContext, gathered: Iterable[str]) -> None:
        self._membership = context.membership
        self._wanted = context.plan.topology.node_count or 0
        self._known = set(gathered)
        self._acknowledged = 0

    @property
    def expected(self) -> bool:
        """Whether a node is still missing."""
        return min(len(self._known), self._acknowledged) < self._wanted

    def look(self) -> bool:
        """Acknowledge the nodes that came since the last call; whether an inventory came."""
        self._acknowledged = len(self._membership.acknowledge_nodes())
        fresh = self._membership.inventories().keys() - self._known
        self._known |= fresh
        return bool(fresh)


def lacking(context: RankContext, key: str | None, state: RunState | None) -> dict[str, Any]:
    """What the record of this attempt lacks of the nodes that are there now.

    Args:
        context: this rank, which need not be the one that made the record.
        key: of the record.
        state: the run as the tracker has it; ``None`` if that is not known, and the record gets everything.
    """
    topology, hosts = context.plan.topology, list(in_order(context.membership.nodes()))
    records = {} if state is None else attempts.recorded(state.config)
    mine = records[key] if key in records and isinstance(records[key], dict) else {}
    found: dict[str, Any] = {}
    if mine.get("hosts") != hosts:
        found = {"hosts": hosts, "nodes_missing": max(0, (topology.node_count or 0) - len(hosts))}
    if not context.plan.settings.metadata:
        return found
    first = None if state is None else state.system_metadata
    document = cluster_document(topology, context.membership.inventories())
    if _reported(document) > _reported(hardware.own_document(first, mine) or {}):
        others = {name: record for name, record in records.items() if name != key}
        found[hardware.FIELD] = report.hardware(document, first, others)
    return found


def _reported(document: Mapping[str, Any]) -> int:
    cluster = document.get("cluster")
    count = cluster.get("nodes_reported") if isinstance(cluster, dict) else None
    return count if isinstance(count, int) else 0
