"""Node classes: equal nodes share one, different nodes do not."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inventory.documents import compose_job, compose_valid
from inventory.inventories import INVENTORIES, h100_node
from inventory.ui_rules import nulls_in
from pluto_dist.inventory.records import (
    Nic,
)

JOBS = st.dictionaries(st.integers(0, 30), st.none() | INVENTORIES, min_size=1, max_size=5)


@given(JOBS)
def test_class_counts_sum_up(nodes):
    """Every node that reported is in one class; the most common class comes first."""
    document = compose_job(nodes)

    counts = [found["n"] for found in document["node_classes"]]
    members = [node["class"] for node in document["nodes"] if "class" in node]
    assert counts == [members.count(place) for place in range(len(counts))]
    assert counts == sorted(counts, reverse=True)
    assert document["cluster"]["classes"] == len(counts)


@given(JOBS)
def test_classes_are_distinct(nodes):
    """No two classes have the same values."""
    found = [json.dumps({**each, "n": 0}, sort_keys=True) for each in compose_job(nodes)["node_classes"]]

    assert len(found) == len(set(found))


@given(INVENTORIES, st.integers(1, 6))
def test_equal_nodes_share_a_class(inventory, nodes):
    """Their hardware is in the document once; host names and boot times are not part of it."""
    equal = {
        n: dataclasses.replace(
            inventory, hostname=f"host{n}", host=dataclasses.replace(inventory.host, boot_time=float(n))
        )
        for n in range(nodes)
    }

    assert [each["n"] for each in compose_job(equal)["node_classes"]] == [nodes]


def test_a_deviating_gpu_creates_no_class():
    """The class has the most common value of the node's GPUs, and the node's diff has the deviating one."""
    document = compose_valid({0: h100_node("a"), 1: h100_node("b", power_w={3: 600})})

    assert [each["n"] for each in document["node_classes"]] == [2]
    assert document["nodes"][1]["diff"] == {"gpu.power_limit_w": {"3": 600}}
    assert "diff" not in document["nodes"][0]


def test_small_differences_of_sizes_create_no_class():
    """MemTotal differs slightly between equal nodes; half the memory is another class."""
    nodes = {n: h100_node("a" * (n + 1)) for n in range(5)}
    half = dataclasses.replace(nodes[4].host, memory=1082000000000)
    nodes[4] = dataclasses.replace(nodes[4], host=half)

    assert [each["n"] for each in compose_valid(nodes)["node_classes"]] == [4, 1]


def test_fields_of_a_class():
    """A class has limits, ports, container and hashes; the pod belongs to the node."""
    (only,) = compose_valid({0: h100_node("a")})["node_classes"]

    assert only["cpu"]["allowed"] == 224 and only["disk"] == {"total": 7_500_000_000_000_000, "type": "lustre"}
    assert only["nic"][7:] == [
        {"name": "mlx5_7", "layer": "InfiniBand", "rate_gbps": 400.0, "rdma": True},
        {"name": "eth0", "layer": "Ethernet", "rate_gbps": 100.0},
    ]
    assert (only["packages"], only["env"], only["commit"]) == ("0123456789abcdef", "fedcba9876543210", "a" * 40)
    assert only["container"] == "kubernetes"
    assert compose_valid({0: h100_node("a")})["nodes"][0]["k8s"] == {"pod": "a-pod"}


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("software", {"packages": "0" * 16}),
        ("software", {"env": "0" * 16}),
        ("software", {"commit": "b" * 40}),
        ("host", {"nics": (Nic("mlx5_0", "InfiniBand", 200.0),)}),
        ("host", {"memory_limit": 2**36}),
        ("host", {"cpu_quota": 8.0}),
        ("host", {"image": "pytorch:2.4"}),
    ],
)
def test_different_values_create_a_class(part, change):
    """A node with different packages, variables, commit, ports or limits is in another class."""
    other = h100_node("b")
    other = dataclasses.replace(other, **{part: dataclasses.replace(getattr(other, part), **change)})

    assert [each["n"] for each in compose_valid({0: h100_node("a"), 1: other, 2: h100_node("c")})["node_classes"]] == [
        2,
        1,
    ]


def test_a_value_unknown_for_one_gpu_is_a_difference():
    """The diff of a GPU whose power limit cannot be read has null."""
    node = h100_node("a")
    devices = (dataclasses.replace(node.gpus.devices[0], power_limit_w=None), *node.gpus.devices[1:])
    document = compose_valid({0: dataclasses.replace(node, gpus=dataclasses.replace(node.gpus, devices=devices))})

    assert document["nodes"][0]["diff"] == {"gpu.power_limit_w": {"0": None}}
    assert nulls_in(document["cluster"], "cluster") == []
