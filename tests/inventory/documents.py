"""Documents of jobs with 8 ranks per node."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from inventory.cluster_schema import violations
from inventory.ui_rules import faults
from pluto_dist.inventory.records import NodeInventory
from pluto_dist.inventory.report.document import compose


def compose_job(nodes: Mapping[int, NodeInventory | None], **options: Any) -> dict[str, Any]:
    """The document of ``nodes`` by number; the first one is the creator's by default."""
    leader = options.pop("owner_node", min(nodes))
    ranks = {node: 8 * node for node in nodes}
    return compose(nodes, owner_node=leader, world_size=8 * len(nodes), first_ranks=ranks, **options)


def compose_valid(nodes: Mapping[int, NodeInventory | None], **options: Any) -> dict[str, Any]:
    """The document, which must conform to its published schema and to the UI's rules."""
    document = compose_job(nodes, **options)
    assert violations(document) == [] and faults(document) == []
    return document


def compose_hosts(**nodes: NodeInventory | None) -> dict[str, Any]:
    """The document of nodes by host name."""
    return compose_job(
        {
            n: None if node is None else dataclasses.replace(node, hostname=host)
            for n, (host, node) in enumerate(nodes.items())
        }
    )


def with_gpu(node: NodeInventory, index: int, **changes: Any) -> NodeInventory:
    """``node`` with one GPU changed."""
    devices = [dataclasses.replace(gpu, **changes) if gpu.index == index else gpu for gpu in node.gpus.devices]
    return dataclasses.replace(node, gpus=dataclasses.replace(node.gpus, devices=tuple(devices)))


def with_driver(node: NodeInventory, version: str) -> NodeInventory:
    """``node`` with another version of the driver."""
    return dataclasses.replace(node, gpus=dataclasses.replace(node.gpus, driver=version))
