"""The laws of the composed document, and the Pluto UI's rules for its top level."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inventory.cluster_schema import violations
from inventory.inventories import INVENTORIES, PROCESSES, creator, h100_node
from inventory.ui_rules import faults, nulls_in
from pluto_dist.inventory.probes.packages import fingerprint
from pluto_dist.inventory.records import (
    Git,
    Gpu,
    GpuReport,
    HostReport,
    MigInstance,
    Nic,
    NodeInventory,
    Process,
    SoftwareReport,
)
from pluto_dist.inventory.report.document import compose, to_text

BUDGET = 256 * 1024
JOBS = st.dictionaries(st.integers(0, 30), st.none() | INVENTORIES, min_size=1, max_size=5)


def made(nodes, **kwargs):
    leader = kwargs.pop("leader_node", min(nodes))
    ranks = {node: 8 * node for node in nodes}
    return compose(nodes, leader_node=leader, world_size=8 * len(nodes), first_ranks=ranks, **kwargs)


def composed(nodes, **kwargs):
    """The document, of which the published schema and the UI's rules hold in every scenario."""
    document = made(nodes, **kwargs)
    assert violations(document) == [] and faults(document) == []
    return document


@given(JOBS)
def test_every_node_is_named_or_missing(nodes):
    """Nodes stand in their order; the silent ones say missing, and cluster counts both."""
    document = made(nodes)

    assert [node["node"] for node in document["nodes"]] == sorted(nodes)
    silent = [node for node in sorted(nodes) if nodes[node] is None]
    assert [node["node"] for node in document["nodes"] if node == {"node": node["node"], "missing": True}] == silent
    assert document["cluster"]["nodes"] == len(nodes) == len(document["hosts"])
    assert document["cluster"]["nodes_reported"] == len(nodes) - len(silent)


@given(JOBS)
def test_class_counts_sum_up(nodes):
    """Every reported node is in one class, the classes count them, and the most common comes first."""
    document = made(nodes)

    counts = [found["n"] for found in document["node_classes"]]
    members = [node["class"] for node in document["nodes"] if "class" in node]
    assert counts == [members.count(place) for place in range(len(counts))]
    assert counts == sorted(counts, reverse=True)
    assert document["cluster"]["classes"] == len(counts)


@given(JOBS)
def test_no_class_is_there_twice(nodes):
    """Two classes differ in something that can be read."""
    found = [json.dumps({**each, "n": 0}, sort_keys=True) for each in made(nodes)["node_classes"]]

    assert len(found) == len(set(found))


@given(INVENTORIES, st.integers(1, 6))
def test_identical_hardware_is_there_once(inventory, nodes):
    """However many nodes are alike, their hardware is written once; names and boot times are not hardware."""
    alike = {
        n: dataclasses.replace(
            inventory, hostname=f"host{n}", host=dataclasses.replace(inventory.host, boot_time=float(n))
        )
        for n in range(nodes)
    }

    assert [each["n"] for each in made(alike)["node_classes"]] == [nodes]


@given(JOBS, PROCESSES)
def test_composing_is_pure(nodes, process):
    """The same inventories give the same document, and are left as they are."""
    before = copy.deepcopy((nodes, process))
    first = made(nodes, process=process)

    assert made(dict(reversed(nodes.items())), process=process) == first
    assert (nodes, process) == before


@given(JOBS, PROCESSES)
def test_the_ui_shows_every_card(nodes, process):
    """Whatever is unknown, no card of the UI vanishes, and the document is as its published schema says."""
    composed(nodes, process=process)


@given(JOBS, PROCESSES)
def test_the_document_can_be_stored(nodes, process):
    """No NUL, no lone surrogate, no NaN, no number that JavaScript would change."""
    document = made(nodes, process=process)
    text = to_text(document)

    assert json.loads(text) == document
    assert "\\u0000" not in text.replace("\\\\", "")
    json.dumps(document, ensure_ascii=False).encode()
    json.loads(text, parse_int=lambda digits: pytest.fail(digits) if abs(int(digits)) >= 2**60 else int(digits))


@given(st.lists(INVENTORIES, min_size=1, max_size=3), st.integers(0, 20_000))
def test_a_smaller_budget_is_kept_where_it_can_be(inventories, max_bytes):
    """A document fits its budget, or nothing is left to leave out; every cut is announced."""
    nodes = {n: inventories[n % len(inventories)] for n in range(12)}
    document = made(nodes, max_bytes=max_bytes)

    level = document["cluster"].get("truncated", 0)
    assert len(to_text(document)) <= max_bytes or (document["hosts"], document["node_classes"]) == ([], [])
    assert level or document == made(nodes)


@pytest.mark.parametrize("count", [1, 8, 64, 256, 1000])
def test_a_large_job_fits_the_budget(count):
    """1000 nodes of 8 GPUs fit 256 KiB, with every node still in it."""
    document = composed({n: h100_node(f"gpu-node-{n:04}") for n in range(count)}, process=creator())

    assert len(to_text(document)) <= BUDGET
    assert len(document["nodes"]) == len(document["hosts"]) == count
    assert [each["n"] for each in document["node_classes"]] == [count]


def test_every_step_of_the_ladder_is_reached():
    """A document that is one byte too large takes the next step and no other, down to the last."""
    nodes = {n: h100_node(f"gpu-node-{n:04}", lost=(3,) if n == 7 else ()) for n in range(64)}
    process = creator()
    documents = [composed(nodes, process=process)]
    for _ in range(5):
        limit = len(to_text(documents[-1])) - 1
        documents.append(composed(nodes, process=process, max_bytes=limit))
        assert len(to_text(documents[-1])) <= limit

    assert [document["cluster"].get("truncated") for document in documents] == [None, 1, 2, 3, 4, 5]
    assert [len(document["requirements"]) for document in documents if "requirements" in document] == [300] * 3
    hashes = {document["cluster"].get("packages") for document in documents}
    assert hashes == {None, fingerprint(process.requirements)}
    assert ["nodes" in document for document in documents] == [True] * 4 + [False] * 2
    assert all(document["git"] == documents[0]["git"] for document in documents)


def test_what_deviates_outlives_the_ladder():
    """Of 1000 nodes, the one that lost a GPU and the throttled one keep their UUIDs longest."""
    nodes = {n: h100_node(f"gpu-node-{n:04}") for n in range(1000)}
    nodes[7] = h100_node("gpu-node-0007", lost=(3,))
    nodes[9] = h100_node("gpu-node-0009", power_w={5: 450})
    document = composed(nodes)

    assert document["cluster"]["truncated"] == 2
    assert len(document["nodes"][7]["gpus"]) == 7 and len(document["nodes"][9]["gpus"]) == 8
    assert all(len(uuid) == 22 for uuid in document["nodes"][7]["gpus"])
    assert "gpus" not in document["nodes"][8] and len(document["nodes"][8]["gpus_hash"]) == 16


def test_the_first_step_shortens_uuids():
    """A job a little too large keeps every UUID, in 22 characters."""
    nodes = {n: h100_node(f"gpu-node-{n:04}") for n in range(64)}
    full = len(to_text(composed(nodes)))
    document = composed(nodes, max_bytes=full - 1)

    assert document["cluster"]["truncated"] == 1
    assert {len(uuid) for node in document["nodes"] for uuid in node["gpus"]} == {22}
    assert len({uuid for node in document["nodes"] for uuid in node["gpus"]}) == 512


def test_a_job_of_strangers_fits_too():
    """1000 nodes of which no two are alike lose nodes and rare classes, never the budget or the counts."""
    usual = h100_node("gpu-node")
    nodes = {}
    for n in range(1000):
        software = dataclasses.replace(usual.software, torch=f"2.4.{n}" + "x" * 500)
        nodes[n] = dataclasses.replace(usual, hostname=f"gpu-node-{n:04}", software=software)
    document = composed(nodes)

    assert len(to_text(document)) <= BUDGET
    assert document["cluster"]["truncated"] == 5 and document["cluster"]["classes"] == 1000
    assert 0 < len(document["node_classes"]) < 1000 and document["hosts"][0] == "gpu-node-0000"
    assert "nodes" not in document and document["gpu"]["nvidia"]["count"] == 8


def test_one_throttled_card_makes_no_class():
    """A value that differs on one GPU is folded to the node's mode, and named in the node's diff."""
    document = composed({0: h100_node("a"), 1: h100_node("b", power_w={3: 600})})

    assert [each["n"] for each in document["node_classes"]] == [2]
    assert document["nodes"][1]["diff"] == {"gpu.power_limit_w": {"3": 600}}
    assert "diff" not in document["nodes"][0]


@pytest.mark.parametrize("leader", [0, 1])
def test_a_lost_gpu_is_left_out_and_named(leader):
    """A lost GPU is not among the devices, but counted; its node is of the same class as the whole ones."""
    document = composed({0: h100_node("a", lost=(0,)), 1: h100_node("b")}, leader_node=leader)

    card = document["gpu"]["nvidia"]
    assert (card["count"], len(card["devices"])) == (8, 7 + leader)
    assert document["nodes"][0]["bad"] == {"0": "GpuIsLost"} and len(document["nodes"][0]["gpus"]) == 7
    (only,) = document["node_classes"]
    assert only["gpu"]["bus"] == [f"{n}b:00" for n in range(8)]
    assert only["gpu"]["numa"] == [0] * 4 + [1] * 4
    assert only["gpu"]["cpus"] == ["0-55,112-167"] * 4 + ["56-111,168-223"] * 4
    assert (document["cluster"]["gpus"], document["cluster"]["gpus_bad"]) == (16, 1)


def test_the_kernels_share_of_memory_makes_no_class():
    """MemTotal differs by a little between nodes that are alike; half the memory is another kind."""
    nodes = {n: h100_node("a" * (n + 1)) for n in range(5)}
    half = dataclasses.replace(nodes[4].host, memory=1082000000000)
    nodes[4] = dataclasses.replace(nodes[4], host=half)

    assert [each["n"] for each in composed(nodes)["node_classes"]] == [4, 1]


def test_the_cluster_is_flat_and_filterable():
    """cluster has scalars only, with what a user filters by."""
    document = composed({0: h100_node("a"), 1: None, 2: h100_node("c")})

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
    """A value that is not the same on all nodes is the word mixed, and a class each."""
    other = h100_node("b")
    other = dataclasses.replace(other, gpus=dataclasses.replace(other.gpus, driver="535.1"))
    document = composed({0: h100_node("a"), 1: other})

    assert (document["cluster"]["driver"], document["cluster"]["classes"]) == ("mixed", 2)


def test_the_top_level_is_the_sdks_for_the_leaders_node():
    """The names and types that the official SDK sends, from the leader's node and no other."""
    process = Process(pid=7, exe="/usr/bin/python3", cmdline=("train.py",))
    nodes = {0: h100_node("a"), 1: h100_node("leader", power_w={0: 1})}
    document = composed(nodes, leader_node=1, process=process)

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


def test_a_silent_leader_leaves_the_top_level_out():
    """Another node is never passed off as the leader's; what the creating process knows of itself is told."""
    nodes = {0: None, 1: h100_node("b")}
    of_job = {"cluster", "hosts", "node_classes", "nodes", "drift"}

    assert set(composed(nodes, leader_node=0)) == of_job
    known = composed(nodes, leader_node=0, process=creator())
    assert set(known) == of_job | {"process", "requirements", "git", "cuda", "nccl", "env"}


def test_the_creators_code_is_in_the_sdks_shape():
    """Repository, packages, command line and variables stand where the SDK has them."""
    names = (("job_name", "j"), ("num_nodes", "2"), ("num_gpus_per_node", "8"))
    document = composed({0: h100_node("a")}, process=dataclasses.replace(creator(2), konduktor=names))

    assert document["git"] == {
        **{"root": "/code", "branch": "main", "commit": "a" * 40, "dirty": False},
        **{"url": "git@github.com:o/r.git", "diff": {}},
    }
    assert document["requirements"] == ["nvidia-package-number-0==12.0.105", "nvidia-package-number-1==12.1.105"]
    assert document["cuda"]["cuda_env"] == {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    assert document["nccl"]["nccl_env"] == {"NCCL_IB_HCA": "mlx5"}
    assert document["env"] == {"OMP_NUM_THREADS": "8"}
    assert document["konduktor"] == {**dict(names), "total_gpus": 16}


def test_a_repository_without_a_commit_is_no_card():
    """Where no commit is known, nothing is said of the repository."""
    assert "git" not in composed({0: h100_node("a")}, process=Process(git=Git(root="/code", branch="main")))


def test_a_class_has_the_machine_and_the_code():
    """Limits, ports, container and hashes are a class's; the pod is its node's."""
    (only,) = composed({0: h100_node("a")})["node_classes"]

    assert only["cpu"]["allowed"] == 224 and only["disk"] == {"total": 7_500_000_000_000_000, "type": "lustre"}
    assert only["nic"][7:] == [
        {"name": "mlx5_7", "layer": "InfiniBand", "rate_gbps": 400.0, "rdma": True},
        {"name": "eth0", "layer": "Ethernet", "rate_gbps": 100.0},
    ]
    assert (only["packages"], only["env"], only["commit"]) == ("0123456789abcdef", "fedcba9876543210", "a" * 40)
    assert only["container"] == "kubernetes"
    assert composed({0: h100_node("a")})["nodes"][0]["k8s"] == {"pod": "a-pod"}


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
def test_another_setting_is_another_class(part, change):
    """A node with other packages, variables, commit, ports or limits is seen."""
    other = h100_node("b")
    other = dataclasses.replace(other, **{part: dataclasses.replace(getattr(other, part), **change)})

    assert [each["n"] for each in composed({0: h100_node("a"), 1: other, 2: h100_node("c")})["node_classes"]] == [2, 1]


@pytest.mark.parametrize(
    ("spoil", "told"),
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
def test_the_schema_refuses_what_is_no_such_document(spoil, told):
    """The published schema is no formality: a document that was tampered with violates it at that place."""
    document = composed({0: h100_node("a")}, process=creator())
    spoil(document)

    assert [line.split(": ")[0] for line in violations(document)] == [told]


def test_what_cannot_be_shown_is_left_out_of_the_card():
    """Unknown temperature is 0, unknown name is a word, unknown memory leaves the device out."""
    devices = (Gpu(index=0, memory=5), Gpu(index=1, name="Orin"))
    report = GpuReport(devices=devices, count=2)
    document = composed({0: NodeInventory(gpus=report)})

    assert document["gpu"]["nvidia"] == {
        "count": 2,
        "driver": "unknown",
        "devices": [{"pid": [], "name": "unknown", "temp": 0, "memory": {"total": 5}}],
    }


def test_a_failed_driver_is_named_at_its_node():
    """gpu_error says why a node has no GPUs, and a slow init is mentioned."""
    failed = NodeInventory(hostname="a", gpus=GpuReport(error="LibRmVersionMismatch", init_ms=24_000))
    document = composed({0: failed})

    (only,) = document["nodes"]
    assert (only["gpu_error"], only["init_ms"]) == ("LibRmVersionMismatch", 24_000)
    assert "gpu" not in document


def test_mig_instances_are_listed_at_their_node():
    """Each slice with its GPU, its UUID and its profile."""
    part = MigInstance(uuid="MIG-1", name="NVIDIA H100 MIG 3g.40gb")
    gpu = Gpu(index=0, uuid="GPU-1", mig=True, mig_instances=(part,))
    document = composed({0: NodeInventory(gpus=GpuReport(devices=(gpu,), count=1))})

    assert document["nodes"][0]["mig"] == [{"gpu": 0, "uuid": "MIG-1", "profile": "3g.40gb"}]
    assert document["node_classes"][0]["gpu"]["mig"] is True


def test_nul_is_stripped_everywhere():
    """A NUL in any string, a key included, would be a 500 of the tracker."""
    node = NodeInventory(hostname="a\x00b", host=HostReport(os="\x00"), software=SoftwareReport(python="3\x00\ud800"))
    document = composed({0: node}, process=Process(exe="\x00x", cmdline=("\x00",)))

    assert document["hosts"] == ["ab"] and document["process"] == {"exe": "x", "cmdline": [""]}
    assert document["node_classes"][0]["python"] == "3?"


def test_a_value_unread_on_one_gpu_is_a_difference():
    """A GPU that does not tell its power limit is said to have none known: null below the top level."""
    node = h100_node("a")
    devices = (dataclasses.replace(node.gpus.devices[0], power_limit_w=None), *node.gpus.devices[1:])
    document = composed({0: dataclasses.replace(node, gpus=dataclasses.replace(node.gpus, devices=devices))})

    assert document["nodes"][0]["diff"] == {"gpu.power_limit_w": {"0": None}}
    assert nulls_in(document["cluster"], "cluster") == []
