"""Drift: differences between nodes and faults of GPUs, found in the document, the most severe first."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inventory.documents import compose_hosts, with_driver, with_gpu
from inventory.inventories import h100_node
from pluto_dist.inventory.records import NodeInventory
from pluto_dist.inventory.report.drift import ADVICE, MISSING, differences

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def with_software(node: NodeInventory, **changes: Any) -> NodeInventory:
    return dataclasses.replace(node, software=dataclasses.replace(node.software, **changes))


def port(number: int) -> dict[str, Any]:
    """A port of the usual node."""
    return {"name": f"mlx5_{number}", "layer": "InfiniBand", "rate_gbps": 400.0, "rdma": True}


def with_nic(node: NodeInventory, number: int, *, drop: bool = False, **changes: Any) -> NodeInventory:
    """``node`` with one port changed, or without it."""
    ports = [dataclasses.replace(nic, **changes) if n == number else nic for n, nic in enumerate(node.host.nics)]
    kept = ports[:number] + ports[number + drop :]
    return dataclasses.replace(node, host=dataclasses.replace(node.host, nics=tuple(kept)))


USUAL = h100_node("x")


def test_equal_nodes_have_no_drift():
    """There are no differences, and the document has no field for them."""
    document = compose_hosts(a=USUAL, b=USUAL, c=USUAL)
    assert differences(document) == ()
    assert "drift" not in document
    assert "drift" not in document["cluster"]


@pytest.mark.parametrize(
    ("odd", "field", "usual", "deviating"),
    [
        (with_driver(USUAL, "535.1"), "gpu.driver", "550.54.15", (("odd", "535.1"),)),
        (with_software(USUAL, nccl="2.19.3"), "nccl", None, None),
        (with_software(USUAL, torch="2.1.0"), "torch", None, None),
        (with_software(USUAL, packages="f" * 16), "packages", None, None),
        (with_software(USUAL, commit="b" * 40), "commit", None, None),
        (with_gpu(USUAL, 2, pcie_width=4, pcie_width_max=16), "gpu.pcie.width", None, (("odd GPU 2", "4 of 16"),)),
        (with_gpu(USUAL, 3, nvlinks=18, nvlinks_up=16), "gpu.nvlink.up", None, (("odd GPU 3", "16 of 18"),)),
        (with_gpu(USUAL, 3, pcie_gen=3, pcie_gen_max=5, busy=97), "gpu.pcie.gen", None, (("odd GPU 3", "3 of 5"),)),
        (with_gpu(USUAL, 3, remap_failed=True), "gpu.remap_failed", None, (("odd GPU 3", True),)),
        (with_gpu(USUAL, 4, ecc_errors=2), "gpu.ecc_errors", None, (("odd GPU 4", 2),)),
        (with_gpu(USUAL, 5, power_limit_w=400), "gpu.power_limit_w", None, (("odd GPU 5", 400),)),
        (with_gpu(USUAL, 6, throttle=("temperature",)), "gpu.throttle", None, (("odd GPU 6", "temperature"),)),
        (h100_node("x", lost=[3]), "gpu.lost", None, (("odd GPU 3", "GpuIsLost"),)),
        (with_nic(USUAL, 2, state="DOWN"), "nic", None, (("odd", [port(2) | {"state": "DOWN"}]),)),
        (with_nic(USUAL, 7, name="eth1"), "nic", None, (("odd", [port(7) | {"name": "eth1"}]),)),
        (with_nic(USUAL, 7, drop=True), "nic", None, (("odd", ["no mlx5_7 InfiniBand 400.0 rdma"]),)),
        (with_gpu(USUAL, 4, numa=0), "gpu.numa", [0] * 4 + [1] * 4, (("odd", [0] * 5 + [1] * 3),)),
        (with_gpu(USUAL, 4, cpus="0-3"), "gpu.cpus", None, (("odd", ["0-3"]),)),
        (None, MISSING, None, (("node 1", "missing"),)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_node_that_differs(odd, field, usual, deviating):
    """The difference has field, usual value, deviating nodes, reason and fix; the document has it too."""
    document = compose_hosts(a=USUAL, odd=odd, c=USUAL)
    found = {each.field: each for each in differences(document)}
    assert field in found, found
    difference = found[field]
    if deviating is not None:
        assert difference.deviating == deviating
    if usual is not None:
        assert difference.usual == usual
    assert difference.why
    assert difference.fix
    assert field in str(difference)
    assert document["cluster"]["drift"] == len(found)
    assert field in [each["field"] for each in document["drift"]]


def test_an_idle_gpu_lowers_its_pcie_generation():
    """That is not a fault; a low generation of a busy GPU is."""
    idle, busy = (with_gpu(USUAL, 3, pcie_gen=1, pcie_gen_max=5, busy=percent) for percent in (0, 97))
    assert differences(compose_hosts(a=USUAL, odd=idle, c=USUAL)) == ()
    assert differences(compose_hosts(a=USUAL, odd=busy, c=USUAL)) != ()


def test_two_nodes_have_no_majority():
    """Both are listed with their values."""
    (found,) = differences(compose_hosts(a=USUAL, b=with_driver(USUAL, "535.1")))
    assert (found.usual, dict(found.deviating)) == (None, {"a": "550.54.15", "b": "535.1"})


def test_two_nodes_with_different_ports():
    """Neither is the usual one: each is listed with the items that the other lacks."""
    (found,) = differences(compose_hosts(a=USUAL, b=with_nic(USUAL, 2, state="DOWN")))
    assert dict(found.deviating) == {"a": [port(2)], "b": [port(2) | {"state": "DOWN"}]}
    assert str(found) == (
        "nic: a mlx5_2 InfiniBand 400.0 rdma, b mlx5_2 InfiniBand 400.0 DOWN rdma: "
        "the slowest port sets the pace of every collective"
    )


def test_a_long_value_is_cut_in_the_warning():
    """The warning shows the first 80 characters of a value."""
    (found,) = differences(compose_hosts(a=USUAL, odd=with_nic(USUAL, 2, state="DOWN"), c=USUAL))
    others = str(found).partition(", the others ")[2]
    assert others.startswith("mlx5_0 InfiniBand 400.0 rdma; ")
    assert "..." in others[:81]


def test_unknown_values_are_no_differences():
    """A node whose driver version cannot be read does not deviate."""
    unknown = dataclasses.replace(USUAL, gpus=dataclasses.replace(USUAL.gpus, driver=None))
    assert differences(compose_hosts(a=USUAL, b=unknown, c=USUAL)) == ()


def test_the_most_severe_comes_first():
    """Differences are in the order of the table."""
    odd = with_driver(with_gpu(h100_node("x", lost=[1]), 2, ecc_errors=1), "535.1")
    fields = [each.field for each in differences(compose_hosts(a=USUAL, odd=odd, gone=None, c=USUAL))]
    places = [list(ADVICE).index(field) for field in fields]
    assert places == sorted(places)
    assert fields[0] == MISSING


def test_many_differences_are_cut():
    """The document has at most 20 differences and 10 nodes of each, and the number of the others."""
    odd = {f"n{n}": with_driver(USUAL, f"5{n}") for n in range(30)}
    document = compose_hosts(**odd)
    assert len(document["drift"]) <= 20
    assert (len(document["drift"][0]["nodes"]), document["drift"][0]["more"]) == (10, 20)


@given(JSON)
def test_any_document(value):
    """Parts of another structure are ignored and never raise an error."""
    for name in ("nodes", "node_classes"):
        differences({name: value})
        differences({name: [value], "nodes": [{"class": 0, "bad": value, "health": value, "diff": value}]})


def test_a_lost_gpu_is_no_other_layout():
    """A node that differs in another field has its own class; the missing GPU in its layout is not a difference."""
    document = compose_hosts(a=USUAL, b=with_driver(h100_node("x", lost=(3,)), "535.1"))
    assert [each["gpu"]["numa"][3] for each in document["node_classes"]] == [0, None]
    assert [each.field for each in differences(document)] == ["gpu.lost", "gpu.driver"]


def test_a_gpu_of_another_job():
    """A cgroup reserves it for another job: it is not lost."""
    gpus = dataclasses.replace(h100_node("x", lost=(3,)).gpus, bad=((3, "NoPermission"),))
    document = compose_hosts(a=USUAL, b=dataclasses.replace(USUAL, gpus=gpus))
    assert [each.field for each in differences(document)] == ["gpu.hidden"]
    assert document["cluster"]["gpus_bad"] == 0
