"""The interconnect of a job's GPUs, intra-node and inter-node: "nvlink+ib". Pure.

It is what the hardware provides, not what NCCL selected; NCCL_DEBUG=INFO logs that.

>>> from pluto_dist.inventory.records import HostReport
>>> one = NodeInventory(host=HostReport(nics=(Nic("mlx5_0", "InfiniBand", 400.0, rdma=True),)))
>>> summarize([one]), summarize([one, one])
(None, 'ib')
"""

from __future__ import annotations

from collections.abc import Sequence

from pluto_dist.inventory.gpu import vendor_named
from pluto_dist.inventory.records import GpuReport, Nic, NodeInventory
from pluto_dist.inventory.report.classes import value_or_mixed

INTER_NODE = ("ib", "roce", "rdma", "ethernet")
"""Networks between nodes, the fastest first."""
UNKNOWN = "unknown"


def summarize(nodes: Sequence[NodeInventory]) -> str | None:
    """The interconnect of a job; ``None`` if there is nothing to connect or nothing is known.

    "mixed" means that nodes differ. "unknown" means that several nodes list no network port, as in many containers.
    The vendor's link ("nvlink") alone for several nodes means that it connects the nodes.

    Args:
        nodes: all that reported.
    """
    intra_node = value_or_mixed(_intra_node(node.gpus) for node in nodes)
    if len(nodes) < 2:
        return intra_node
    inter_node = _link(nodes[0].gpus) if _is_one_fabric(nodes) else value_or_mixed(_inter_node(node) for node in nodes)
    if intra_node is None and inter_node == UNKNOWN:
        return None
    return "+".join(dict.fromkeys(word for word in (intra_node, inter_node) if word))


def _intra_node(gpus: GpuReport) -> str | None:
    """The vendor's link ("nvlink") if all GPUs of a node have active ones, else "pcie"."""
    if len(gpus.devices) < 2:
        return None
    return _link(gpus) if all(gpu.nvlinks_up for gpu in gpus.devices if not gpu.hidden) else "pcie"


def _link(gpus: GpuReport) -> str:
    return vendor_named(gpus.vendor).link


def _inter_node(node: NodeInventory) -> str:
    """The fastest network that is up."""
    found = {_kind(nic) for nic in node.host.nics if nic.state is None}
    return next((word for word in INTER_NODE if word in found), UNKNOWN)


def _kind(nic: Nic) -> str:
    if nic.layer == "InfiniBand":
        return "ib"
    if not nic.rdma:
        return "ethernet"
    return "roce" if nic.layer == "Ethernet" else "rdma"  # AWS's EFA has another link layer


def _is_one_fabric(nodes: Sequence[NodeInventory]) -> bool:
    """Whether one fabric of the vendor's links connects the nodes (GB200 NVL72)."""
    reported = [gpu for node in nodes for gpu in node.gpus.devices if not gpu.hidden]
    fabrics = {(gpu.fabric_cluster, gpu.fabric_clique) for gpu in reported}
    return len(fabrics) == 1 and all(cluster for cluster, _ in fabrics) and all(node.gpus.devices for node in nodes)
