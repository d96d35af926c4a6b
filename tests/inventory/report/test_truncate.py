"""Documents that are too large are reduced step by step."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inventory.documents import compose_job, compose_valid
from inventory.inventories import INVENTORIES, creator, h100_node
from pluto_dist.inventory.probes.packages import fingerprint
from pluto_dist.inventory.report.document import to_text

BUDGET = 256 * 1024


@given(st.lists(INVENTORIES, min_size=1, max_size=3), st.integers(0, 20_000))
def test_any_budget(inventories, max_bytes):
    """A document fits its budget, or nothing is left to remove; every reduction is recorded."""
    nodes = {n: inventories[n % len(inventories)] for n in range(12)}
    document = compose_job(nodes, max_bytes=max_bytes)

    level = document["cluster"].get("truncated", 0)
    assert len(to_text(document)) <= max_bytes or (document["hosts"], document["node_classes"]) == ([], [])
    assert level or document == compose_job(nodes)


@pytest.mark.parametrize("count", [1, 8, 64, 256, 1000])
def test_a_large_job_fits_the_budget(count):
    """1000 nodes of 8 GPUs fit in 256 KiB, and every node is listed."""
    document = compose_valid({n: h100_node(f"gpu-node-{n:04}") for n in range(count)}, process=creator())

    assert len(to_text(document)) <= BUDGET
    assert len(document["nodes"]) == len(document["hosts"]) == count
    assert [each["n"] for each in document["node_classes"]] == [count]


def test_every_step_is_reached():
    """A document that is one byte too large takes the next step only, up to the last."""
    nodes = {n: h100_node(f"gpu-node-{n:04}", lost=(3,) if n == 7 else ()) for n in range(64)}
    process = creator()
    documents = [compose_valid(nodes, process=process)]
    for _ in range(5):
        limit = len(to_text(documents[-1])) - 1
        documents.append(compose_valid(nodes, process=process, max_bytes=limit))
        assert len(to_text(documents[-1])) <= limit

    assert [document["cluster"].get("truncated") for document in documents] == [None, 1, 2, 3, 4, 5]
    assert [len(document["requirements"]) for document in documents if "requirements" in document] == [300] * 3
    hashes = {document["cluster"].get("packages") for document in documents}
    assert hashes == {None, fingerprint(process.requirements)}
    assert ["nodes" in document for document in documents] == [True] * 4 + [False] * 2
    assert all(document["git"] == documents[0]["git"] for document in documents)


def test_deviating_nodes_keep_their_uuids():
    """Of 1000 nodes, the one that lost a GPU and the throttled one keep their UUIDs longest."""
    nodes = {n: h100_node(f"gpu-node-{n:04}") for n in range(1000)}
    nodes[7] = h100_node("gpu-node-0007", lost=(3,))
    nodes[9] = h100_node("gpu-node-0009", power_w={5: 450})
    document = compose_valid(nodes)

    assert document["cluster"]["truncated"] == 2
    assert len(document["nodes"][7]["gpus"]) == 7 and len(document["nodes"][9]["gpus"]) == 8
    assert all(len(uuid) == 22 for uuid in document["nodes"][7]["gpus"])
    assert "gpus" not in document["nodes"][8] and len(document["nodes"][8]["gpus_hash"]) == 16


def test_the_first_step_shortens_uuids():
    """A document that is slightly too large keeps every UUID, in 22 characters."""
    nodes = {n: h100_node(f"gpu-node-{n:04}") for n in range(64)}
    full = len(to_text(compose_valid(nodes)))
    document = compose_valid(nodes, max_bytes=full - 1)

    assert document["cluster"]["truncated"] == 1
    assert {len(uuid) for node in document["nodes"] for uuid in node["gpus"]} == {22}
    assert len({uuid for node in document["nodes"] for uuid in node["gpus"]}) == 512


def test_a_job_of_different_nodes_fits():
    """1000 different nodes lose nodes and rare classes, but fit in the budget and keep the counts."""
    usual = h100_node("gpu-node")
    nodes = {}
    for n in range(1000):
        software = dataclasses.replace(usual.software, torch=f"2.4.{n}" + "x" * 500)
        nodes[n] = dataclasses.replace(usual, hostname=f"gpu-node-{n:04}", software=software)
    document = compose_valid(nodes)

    assert len(to_text(document)) <= BUDGET
    assert document["cluster"]["truncated"] == 5 and document["cluster"]["classes"] == 1000
    assert 0 < len(document["node_classes"]) < 1000 and document["hosts"][0] == "gpu-node-0000"
    assert "nodes" not in document and document["gpu"]["nvidia"]["count"] == 8
