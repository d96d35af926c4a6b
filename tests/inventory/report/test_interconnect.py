"""The interconnect of a job's GPUs, by which users filter runs."""

from __future__ import annotations

import pytest

from pluto_dist.inventory.records import Gpu, GpuReport, HostReport, Nic, NodeInventory
from pluto_dist.inventory.report.interconnect import summarize

IB = Nic("mlx5_0", "InfiniBand", 400.0, rdma=True)
IB_DOWN = Nic("mlx5_0", "InfiniBand", 10.0, "DOWN", rdma=True)
ROCE = Nic("mlx5_1", "Ethernet", 100.0, rdma=True)
EFA = Nic("rdmap16s27", "Unknown", 100.0, rdma=True)
ETHERNET = Nic("eth0", "Ethernet", 25.0)
RACK = "0123456789abcdef0123456789abcdef"


def node(
    *nics: Nic, gpus: int = 8, links: int | None = 18, up: int | None = None, **fabric: str | int
) -> NodeInventory:
    devices = (Gpu(index=n, nvlinks=links, nvlinks_up=links if up is None else up, **fabric) for n in range(gpus))
    return NodeInventory(host=HostReport(nics=nics), gpus=GpuReport(count=gpus, devices=tuple(devices)))


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([], None),
        ([node(IB, ETHERNET)], "nvlink"),
        ([node(IB, links=None)], "pcie"),
        ([node(IB, up=0)], "pcie"),
        ([node(IB, gpus=1, links=None)], None),
        ([node(IB, ETHERNET)] * 2, "nvlink+ib"),
        ([node(ETHERNET, ROCE, links=None)] * 2, "pcie+roce"),
        ([node(EFA, ETHERNET)] * 2, "nvlink+rdma"),
        ([node(IB_DOWN, ETHERNET)] * 2, "nvlink+ethernet"),
        ([node(gpus=1, links=None)] * 2, None),
        ([node()] * 2, "nvlink+unknown"),
        ([node(IB), node()], "nvlink+mixed"),
        ([node(ETHERNET, gpus=0)] * 2, "ethernet"),
        ([node(IB), node(ROCE)], "nvlink+mixed"),
        ([node(IB), node(IB, links=None)], "mixed+ib"),
        ([node(IB), node(IB, gpus=1)], "nvlink+ib"),
        ([node(IB, gpus=4, fabric_cluster=RACK, fabric_clique=1)] * 2, "nvlink"),
        ([node(IB, fabric_cluster=RACK, fabric_clique=n) for n in (1, 2)], "nvlink+ib"),
        ([node(IB, fabric_cluster=RACK, fabric_clique=1), node(IB, gpus=0)], "nvlink+ib"),
    ],
)
def test_interconnects(nodes, expected):
    """Intra-node and inter-node, the fastest of each."""
    assert summarize(nodes) == expected
