"""The top level of the document: one node in the field names of the SDK."""

from __future__ import annotations

import dataclasses

from inventory.documents import compose_valid
from inventory.inventories import creator, h100_node
from pluto_dist.inventory.records import (
    Git,
    Gpu,
    GpuReport,
    NodeInventory,
    Process,
)


def test_the_top_level_describes_the_leaders_node():
    """It has the names and types of the official SDK, and the values of the leader's node."""
    process = Process(pid=7, exe="/usr/bin/python3", cmdline=("train.py",))
    nodes = {0: h100_node("a"), 1: h100_node("leader", power_w={0: 1})}
    document = compose_valid(nodes, owner_node=1, process=process)

    assert document["process"] == {"pid": 7, "exe": "/usr/bin/python3", "cmdline": ["train.py"]}
    assert document["platform"]["node"] == document["os_info"]["hostname"] == "leader"
    assert document["platform"] == {
        "system": "Linux",
        "node": "leader",
        "release": "5.15.0-105-generic",
        "machine": "x86_64",
        "processor": "",
    }
    assert document["cpu"]["freq"] == {"min": 800.0, "max": 3800.0}
    assert (document["cpu"]["physical"], document["cpu"]["virtual"]) == (112, 224)
    assert document["memory"] == {"virt": nodes[1].host.memory, "swap": 0}
    assert document["os_info"]["os"]["pretty_name"] == "Ubuntu 22.04.4 LTS"
    assert document["os_info"]["python"] == {"version": "3.11.7"}
    assert document["cuda"] == {"cuda_driver": "12.4", "cuda_pytorch": "12.1", "cudnn_pytorch": "90100"}
    assert document["nccl"] == {"nccl_pytorch": "2.20.5"}
    assert document["timezone"] == ["UTC", "UTC"] and document["boot_time"] == 1.7e9
    assert document["gpu"]["nvidia"]["devices"][1] == {
        "pid": [4243],
        "name": "NVIDIA H100 80GB HBM3",
        "temp": 32,
        "memory": {"total": 85520809984},
        "uuid": nodes[1].gpus.devices[1].uuid,
    }


def test_a_leaders_node_that_did_not_report():
    """No other node is described in its place; only the creating process is described."""
    nodes = {0: None, 1: h100_node("b")}
    of_job = {"cluster", "hosts", "node_classes", "nodes", "drift"}

    assert set(compose_valid(nodes, owner_node=0)) == of_job
    known = compose_valid(nodes, owner_node=0, process=creator())
    assert set(known) == of_job | {"process", "requirements", "git", "cuda", "nccl", "env"}


def test_the_creators_code():
    """Repository, packages, command line and variables are in the fields of the SDK."""
    names = (("job_name", "j"), ("num_nodes", "2"), ("num_gpus_per_node", "8"))
    document = compose_valid({0: h100_node("a")}, process=dataclasses.replace(creator(2), konduktor=names))

    assert document["git"] == {
        **{"root": "/code", "branch": "main", "commit": "a" * 40, "dirty": False},
        **{"url": "git@github.com:o/r.git", "diff": {}},
    }
    assert document["requirements"] == ["nvidia-package-number-0==12.0.105", "nvidia-package-number-1==12.1.105"]
    assert document["cuda"]["cuda_env"] == {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    assert document["nccl"]["nccl_env"] == {"NCCL_IB_HCA": "mlx5"}
    assert document["env"] == {"OMP_NUM_THREADS": "8"}
    assert document["konduktor"] == {**dict(names), "total_gpus": 16}


def test_a_repository_without_a_commit():
    """It is left out."""
    assert "git" not in compose_valid({0: h100_node("a")}, process=Process(git=Git(root="/code", branch="main")))


def test_unknown_values_of_a_gpu():
    """An unknown temperature is 0, an unknown name is "unknown", a GPU with unknown memory is left out."""
    devices = (Gpu(index=0, memory=5), Gpu(index=1, name="Orin"))
    report = GpuReport(devices=devices, count=2)
    document = compose_valid({0: NodeInventory(gpus=report)})

    assert document["gpu"]["nvidia"] == {
        "count": 2,
        "driver": "unknown",
        "devices": [{"pid": [], "name": "unknown", "temp": 0, "memory": {"total": 5}}],
    }
