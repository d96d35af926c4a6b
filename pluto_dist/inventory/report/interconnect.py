"""What connects the GPUs of a job? One word for inside a node, one for between nodes: "nvlink+ib".

Pure. It is what the hardware offers, not what NCCL came to use: NCCL_DEBUG=INFO tells that.

>>> from pluto_dist.inventory.records import HostReport
>>> one = NodeInventory(host=HostReport(nics=(Nic("mlx5_0", "InfiniBand", 400.0, rdma=True),)))
>>> of_nodes([one]), of_nodes([one, one])
(None, 'ib')
"""

from __future__ import annotations

from collections.abc import Sequence

from pluto_dist.inventory.records import GpuReport, Nic, NodeInventory
from pluto_dist.inventory.report.alike import same

BETWEEN = ("ib", "roce", "rdma", "ethernet")
"""The ways between nodes, the best first."""
UNKNOWN = "unknown"


def of_nodes(nodes: Sequence[NodeInventory]) -> str | None:
    """The words for a job; ``None`` where there is nothing to connect, or nothing is known.

    "mixed" is for nodes that differ. "unknown" is for several nodes that show no network, as in many containers:
    "nvlink" alone means that NVLink reaches from node to node.

    Args:
        nodes: all that reported.
    """
    inside = same(_inside(node.gpus) for node in nodes)
    if len(nodes) < 2:
        return inside
    between = "nvlink" if _is_one_fabric(nodes) else same(_between(node) for node in nodes)
    if inside is None and between == UNKNOWN:
        return None
    return "+".join(dict.fromkeys(word for word in (inside, between) if word))


def _inside(gpus: GpuReport) -> str | None:
    """How the GPUs of a node reach each other: NVLink where all of them have it."""
    if len(gpus.devices) < 2:
        return None
    return "nvlink" if all(gpu.nvlinks_up for gpu in gpus.devices if not gpu.hidden) else "pcie"


def _between(node: NodeInventory) -> str:
    """The best network that is up."""
    found = {_kind(nic) for nic in node.host.nics if nic.state is None}
    return next((word for word in BETWEEN if word in found), UNKNOWN)


def _kind(nic: Nic) -> str:
    if nic.layer == "InfiniBand":
        return "ib"
    if not nic.rdma:
        return "ethernet"
    return "roce" if nic.layer == "Ethernet" else "rdma"  # AWS's EFA has a link layer of its own


def _is_one_fabric(nodes: Sequence[NodeInventory]) -> bool:
    """Whether NVLink reaches from node to node (GB200 NVL72)."""
    asked = [gpu for node in nodes for gpu in node.gpus.devices if not gpu.hidden]
    places = {(gpu.fabric_cluster, gpu.fabric_clique) for gpu in asked}
    return len(places) == 1 and all(cluster for cluster, _ in places) and all(node.gpus.devices for node in nodes)
