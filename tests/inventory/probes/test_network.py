"""Network ports: of this machine, and of a recorded machine."""

from __future__ import annotations

from pathlib import Path

from inventory.machine import lay_out
from pluto_dist.inventory.probes import network
from pluto_dist.inventory.records import Nic


def test_ports_have_layer_rate_and_state(tmp_path):
    """Adapters in numerical order, each port once; virtual interfaces and IPoIB are left out."""
    assert network.probe(lay_out("dgx_h100", tmp_path)) == (
        Nic("mlx5_0", "InfiniBand", 400.0, rdma=True),
        Nic("mlx5_2", "InfiniBand", 10.0, "DOWN", rdma=True),
        Nic("mlx5_10:1", "Ethernet", 100.0, rdma=True),
        Nic("mlx5_10:2", "Ethernet", None, "INIT", rdma=True),
        Nic("eth0", "Ethernet", 25.0),
        Nic("eth2", "Ethernet", None, "DOWN"),
    )


def test_virtual_interfaces_of_this_machine_are_left_out():
    """Neither the loopback nor a bridge nor a veth is listed."""
    found = {nic.name for nic in network.probe()}

    assert found <= {path.name for path in Path("/sys/class/net").iterdir() if (path / "device").exists()} | {
        path.name for path in Path("/sys/class").glob("infiniband/*")
    }
