"""The hardware of every node, brought to the leader: one worker per node collects, one rank writes.

What a node is made of is ``inventory``; this module moves it over ``exchange``. A node whose inventory does not
come in time, or comes garbled, is named as missing rather than waited for.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from pluto_dist.console import logger
from pluto_dist.errors import ExchangeError
from pluto_dist.exchange import Exchange, RunExchange
from pluto_dist.inventory.collect import collect
from pluto_dist.inventory.document import compose
from pluto_dist.inventory.records import NodeInventory
from pluto_dist.topology import Topology

GATHER_SECONDS = 2.0  # how long the leader waits for the nodes before it creates the run
COLLECT_SECONDS = 1.5  # how long a node's driver may take; within the leader's wait, or the node is late


def collect_and_publish(exchange: Exchange) -> threading.Thread:
    """Collect this node's inventory in a thread of its own, and hand it to the leader."""

    def work() -> None:
        try:
            exchange.publish_inventory(collect(COLLECT_SECONDS).to_json())
        except ExchangeError as error:
            logger.debug("this node's inventory could not be handed to the leader: %s", error)

    thread = threading.Thread(target=work, name="pluto_dist inventory", daemon=True)
    thread.start()
    return thread


def gather(topology: Topology, exchange: Exchange, run: RunExchange, until: float) -> tuple[dict[str, Any], ...]:
    """The inventories of all nodes, or of those that came before ``until`` (monotonic clock)."""
    found: tuple[dict[str, Any], ...] = ()
    while True:
        found += exchange.inventories(known=len(found))
        wanted = topology.node_count
        if wanted is None and run.count("joined", 0) >= topology.world_size:
            wanted = len(exchange.nodes())
        if (wanted is not None and len(found) >= wanted) or time.monotonic() > until:
            return found
        time.sleep(0.01)


def cluster_document(topology: Topology, gathered: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """The run's systemMetadata: every node that was heard, and the names of those that were not.

    Where the launcher numbers its nodes, so does the document; else nodes are in the order of their first ranks.
    """
    nodes: dict[int, NodeInventory | None] = dict.fromkeys(range(topology.node_count or 0))
    first_ranks: dict[int, int] = {}
    for index, entry in enumerate(sorted(gathered, key=lambda entry: int(entry["rank"]))):
        node = int(entry["node"]) if topology.node_count else index
        first_ranks[node] = int(entry["rank"])
        try:
            nodes[node] = NodeInventory.from_json(entry["inventory"])
        except ValueError as error:
            logger.debug("the inventory of node %s is garbled: %s", node, error)
            nodes[node] = None
    return compose(nodes, leader_node=topology.node_rank or 0, world_size=topology.world_size, first_ranks=first_ranks)


class LateNodes:
    """The nodes that were missing when the run was created; the leader adds them to the config as they come."""

    def __init__(self, topology: Topology, exchange: Exchange, gathered: int) -> None:
        self._exchange = exchange
        self._wanted = topology.node_count or 0
        self._gathered = gathered
        self._welcomed = 0

    @property
    def expected(self) -> bool:
        """Whether any node is still to come."""
        return min(self._gathered, self._welcomed) < self._wanted

    def look(self) -> dict[str, Any]:
        """Welcome the nodes that came since the last look; their inventories by node, empty if none came."""
        fresh = self._exchange.nodes(known=self._welcomed)
        for node in fresh:
            self._exchange.welcome(node)
        self._welcomed += len(fresh)
        arrived = self._exchange.inventories(known=self._gathered)
        self._gathered += len(arrived)
        return {entry["node"]: {"rank": entry["rank"], **entry["inventory"]} for entry in arrived}
