"""The composed document: all nodes, one summary, and a published schema."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inventory.cluster_schema import violations
from inventory.documents import compose_job, compose_valid
from inventory.inventories import INVENTORIES, PROCESSES, creator, h100_node
from pluto_dist.inventory.records import (
    Gpu,
    GpuReport,
    HostReport,
    MigInstance,
    NodeInventory,
    Process,
    SoftwareReport,
)
from pluto_dist.inventory.report.document import to_text

JOBS = st.dictionaries(st.integers(0, 30), st.none() | INVENTORIES, min_size=1, max_size=5)


@given(JOBS)
def test_every_node_is_listed_or_missing(nodes):
    """Nodes are in ascending order; those that did not report are missing, and cluster counts both."""
    document = compose_job(nodes)

    assert [node["node"] for node in document["nodes"]] == sorted(nodes)
    missing = [node for node in sorted(nodes) if nodes[node] is None]
    assert [node["node"] for node in document["nodes"] if node == {"node": node["node"], "missing": True}] == missing
    assert document["cluster"]["nodes"] == len(nodes) == len(document["hosts"])
    assert document["cluster"]["nodes_reported"] == len(nodes) - len(missing)


@given(JOBS, PROCESSES)
def test_composing_is_pure(nodes, process):
    """The same inventories give the same document and are not modified."""
    before = copy.deepcopy((nodes, process))
    first = compose_job(nodes, process=process)

    assert compose_job(dict(reversed(nodes.items())), process=process) == first
    assert (nodes, process) == before


@given(JOBS, PROCESSES)
def test_the_ui_shows_every_card(nodes, process):
    """Whatever is unknown, the UI shows every card, and the document conforms to its published schema."""
    compose_valid(nodes, process=process)


@given(JOBS, PROCESSES)
def test_the_document_can_be_stored(nodes, process):
    """It has no NUL, no lone surrogate, no NaN, and no number that JavaScript would change."""
    document = compose_job(nodes, process=process)
    text = to_text(document)

    assert json.loads(text) == document
    assert "\\u0000" not in text.replace("\\\\", "")
    json.dumps(document, ensure_ascii=False).encode()
    json.loads(text, parse_int=lambda digits: pytest.fail(digits) if abs(int(digits)) >= 2**60 else int(digits))


@pytest.mark.parametrize("leader", [0, 1])
def test_a_lost_gpu(leader):
    """It is not among the devices, but counted; its node is in the same class as complete nodes."""
    document = compose_valid({0: h100_node("a", lost=(0,)), 1: h100_node("b")}, owner_node=leader)

    card = document["gpu"]["nvidia"]
    assert (card["count"], len(card["devices"])) == (8, 7 + leader)
    assert document["nodes"][0]["bad"] == {"0": "GpuIsLost"} and len(document["nodes"][0]["gpus"]) == 7
    (only,) = document["node_classes"]
    assert only["gpu"]["bus"] == [f"{n}b:00" for n in range(8)]
    assert only["gpu"]["numa"] == [0] * 4 + [1] * 4
    assert only["gpu"]["cpus"] == ["0-55,112-167"] * 4 + ["56-111,168-223"] * 4
    assert (document["cluster"]["gpus"], document["cluster"]["gpus_bad"]) == (16, 1)


def test_the_cluster_is_flat_and_filterable():
    """cluster has scalars only, by which users filter."""
    document = compose_valid({0: h100_node("a"), 1: None, 2: h100_node("c")})

    assert document["cluster"] == {
        "schema": 1,
        "drift": 1,
        "nodes": 3,
        "nodes_reported": 2,
        "world_size": 24,
        "gpus": 16,
        "gpus_bad": 0,
        "gpu_name": "NVIDIA H100 80GB HBM3",
        "gpu_memory": 85520809984,
        "driver": "550.54.15",
        "classes": 1,
        "interconnect": "nvlink+ib",
        "collect_ms": 25,
    }
    assert document["hosts"] == ["a", "(missing)", "c"]
    assert document["nodes"][2]["rank"] == 16


def test_different_drivers_are_mixed():
    """A value that differs between nodes is "mixed" in cluster, and each has its class."""
    other = h100_node("b")
    other = dataclasses.replace(other, gpus=dataclasses.replace(other.gpus, driver="535.1"))
    document = compose_valid({0: h100_node("a"), 1: other})

    assert (document["cluster"]["driver"], document["cluster"]["classes"]) == ("mixed", 2)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda document: document["cluster"].update(nodes="3"), "$.cluster.nodes"),
        (lambda document: document["cluster"].update(hosts=[]), "$.cluster.hosts"),
        (lambda document: document["nodes"][0].pop("class"), "$.nodes[0]"),
        (lambda document: document["node_classes"][0].update(hostname="a"), "$.node_classes[0]"),
        (lambda document: document["git"].update(diff={"head": "+secret"}), "$.git.diff"),
        (lambda document: document["process"].update(environ={}), "$.process"),
        (lambda document: document.pop("hosts"), "$"),
    ],
)
def test_the_schema_rejects_invalid_documents(change, path):
    """A modified document violates the published schema at the path of the change."""
    document = compose_valid({0: h100_node("a")}, process=creator())
    change(document)

    assert [line.split(": ")[0] for line in violations(document)] == [path]


def test_a_failed_driver():
    """gpu_error is the reason why a node has no GPUs, and a slow init is recorded."""
    failed = NodeInventory(hostname="a", gpus=GpuReport(error="LibRmVersionMismatch", init_ms=24_000))
    document = compose_valid({0: failed})

    (only,) = document["nodes"]
    assert (only["gpu_error"], only["init_ms"]) == ("LibRmVersionMismatch", 24_000)
    assert "gpu" not in document


def test_mig_instances_are_listed_at_their_node():
    """Each instance has its GPU, its UUID and its profile."""
    instance = MigInstance(uuid="MIG-1", name="NVIDIA H100 MIG 3g.40gb")
    gpu = Gpu(index=0, uuid="GPU-1", mig=True, mig_instances=(instance,))
    document = compose_valid({0: NodeInventory(gpus=GpuReport(devices=(gpu,), count=1))})

    assert document["nodes"][0]["mig"] == [{"gpu": 0, "uuid": "MIG-1", "profile": "3g.40gb"}]
    assert document["node_classes"][0]["gpu"]["mig"] is True


def test_nul_is_removed_everywhere():
    """A NUL in any string or key would cause a 500 of the tracker."""
    node = NodeInventory(hostname="a\x00b", host=HostReport(os="\x00"), software=SoftwareReport(python="3\x00\ud800"))
    document = compose_valid({0: node}, process=Process(exe="\x00x", cmdline=("\x00",)))

    assert document["hosts"] == ["ab"] and document["process"] == {"exe": "x", "cmdline": [""]}
    assert document["node_classes"][0]["python"] == "3?"
