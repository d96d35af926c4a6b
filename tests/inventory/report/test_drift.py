"""What differs between nodes: found in the document, named with its majority, the worst first."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inventory.inventories import h100_node
from pluto_dist.inventory.ranks import RankGpu
from pluto_dist.inventory.records import NodeInventory
from pluto_dist.inventory.report.document import compose
from pluto_dist.inventory.report.drift import MISSING, SUBJECTS, differences

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def document(**nodes: NodeInventory | None) -> dict[str, Any]:
    """The document of nodes by their hosts' names."""
    numbered = {
        n: None if node is None else dataclasses.replace(node, hostname=host)
        for n, (host, node) in enumerate(nodes.items())
    }
    return compose(numbered, leader_node=0, world_size=8 * len(nodes), first_ranks={n: 8 * n for n in numbered})


def gpu(node: NodeInventory, index: int, **changes: Any) -> NodeInventory:
    """``node`` with one GPU changed."""
    devices = [dataclasses.replace(g, **changes) if g.index == index else g for g in node.gpus.devices]
    return dataclasses.replace(node, gpus=dataclasses.replace(node.gpus, devices=tuple(devices)))


def driver(node: NodeInventory, version: str) -> NodeInventory:
    return dataclasses.replace(node, gpus=dataclasses.replace(node.gpus, driver=version))


def software(node: NodeInventory, **changes: Any) -> NodeInventory:
    return dataclasses.replace(node, software=dataclasses.replace(node.software, **changes))


def port(number: int) -> dict[str, Any]:
    """An adapter of the usual node."""
    return {"name": f"mlx5_{number}", "layer": "InfiniBand", "rate_gbps": 400.0, "rdma": True}


def nics(node: NodeInventory, number: int, *, drop: bool = False, **changes: Any) -> NodeInventory:
    """``node`` with one port changed, or without it."""
    ports = [dataclasses.replace(nic, **changes) if n == number else nic for n, nic in enumerate(node.host.nics)]
    kept = ports[:number] + ports[number + drop :]
    return dataclasses.replace(node, host=dataclasses.replace(node.host, nics=tuple(kept)))


USUAL = h100_node("x")


def test_nodes_that_are_alike_have_no_drift():
    """Nothing is found, and nothing stands in the document."""
    made = document(a=USUAL, b=USUAL, c=USUAL)
    assert differences(made) == ()
    assert "drift" not in made
    assert "drift" not in made["cluster"]


@pytest.mark.parametrize(
    ("odd", "field", "usual", "deviating"),
    [
        (driver(USUAL, "535.1"), "gpu.driver", "550.54.15", (("odd", "535.1"),)),
        (software(USUAL, nccl="2.19.3"), "nccl", None, None),
        (software(USUAL, torch="2.1.0"), "torch", None, None),
        (software(USUAL, packages="f" * 16), "packages", None, None),
        (software(USUAL, commit="b" * 40), "commit", None, None),
        (gpu(USUAL, 2, pcie_width=4, pcie_width_max=16), "gpu.pcie.width", None, (("odd GPU 2", "4 of 16"),)),
        (gpu(USUAL, 3, nvlinks=18, nvlinks_up=16), "gpu.nvlink.up", None, (("odd GPU 3", "16 of 18"),)),
        (gpu(USUAL, 3, pcie_gen=3, pcie_gen_max=5, busy=97), "gpu.pcie.gen", None, (("odd GPU 3", "3 of 5"),)),
        (gpu(USUAL, 3, remap_failed=True), "gpu.remap_failed", None, (("odd GPU 3", True),)),
        (gpu(USUAL, 4, ecc_errors=2), "gpu.ecc_errors", None, (("odd GPU 4", 2),)),
        (gpu(USUAL, 5, power_limit_w=400), "gpu.power_limit_w", None, (("odd GPU 5", 400),)),
        (gpu(USUAL, 6, throttle=("temperature",)), "gpu.throttle", None, (("odd GPU 6", "temperature"),)),
        (h100_node("x", lost=[3]), "gpu.lost", None, (("odd GPU 3", "GpuIsLost"),)),
        (nics(USUAL, 2, state="DOWN"), "nic", None, (("odd", [port(2) | {"state": "DOWN"}]),)),
        (nics(USUAL, 7, name="eth1"), "nic", None, (("odd", [port(7) | {"name": "eth1"}]),)),
        (nics(USUAL, 7, drop=True), "nic", None, (("odd", ["no mlx5_7 InfiniBand 400.0 rdma"]),)),
        (gpu(USUAL, 4, numa=0), "gpu.numa", [0] * 4 + [1] * 4, (("odd", [0] * 5 + [1] * 3),)),
        (gpu(USUAL, 4, cpus="0-3"), "gpu.cpus", None, (("odd", ["0-3"]),)),
        (None, MISSING, None, (("node 1", "missing"),)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_node_that_is_not_as_the_others(odd, field, usual, deviating):
    """The field, what the others have, who deviates; with why it matters and what to do; and in the document."""
    made = document(a=USUAL, odd=odd, c=USUAL)
    found = {each.field: each for each in differences(made)}
    assert field in found, found
    difference = found[field]
    if deviating is not None:
        assert difference.deviating == deviating
    if usual is not None:
        assert difference.usual == usual
    assert difference.why
    assert difference.fix
    assert field in str(difference)
    assert made["cluster"]["drift"] == len(found)
    assert field in [each["field"] for each in made["drift"]]


def test_an_idle_gpu_lowers_its_link():
    """Which is no fault of it; a busy one has the link that it is going to have."""
    idle, busy = (gpu(USUAL, 3, pcie_gen=1, pcie_gen_max=5, busy=percent) for percent in (0, 97))
    assert differences(document(a=USUAL, odd=idle, c=USUAL)) == ()
    assert differences(document(a=USUAL, odd=busy, c=USUAL)) != ()


def test_two_nodes_have_no_majority():
    """Both are named with what they have."""
    (found,) = differences(document(a=USUAL, b=driver(USUAL, "535.1")))
    assert (found.usual, dict(found.deviating)) == (None, {"a": "550.54.15", "b": "535.1"})


def test_of_two_nodes_with_other_ports():
    """Neither is the usual one: each is named with what the other has not."""
    (found,) = differences(document(a=USUAL, b=nics(USUAL, 2, state="DOWN")))
    assert dict(found.deviating) == {"a": [port(2)], "b": [port(2) | {"state": "DOWN"}]}
    assert str(found) == (
        "nic: a mlx5_2 InfiniBand 400.0 rdma, b mlx5_2 InfiniBand 400.0 DOWN rdma: "
        "the slowest port sets the pace of every collective"
    )


def test_a_long_value_is_cut_in_the_warning():
    (found,) = differences(document(a=USUAL, odd=nics(USUAL, 2, state="DOWN"), c=USUAL))
    others = str(found).partition(", the others ")[2]
    assert others.startswith("mlx5_0 InfiniBand 400.0 rdma; ")
    assert "..." in others[:81]


def test_what_is_unknown_differs_from_nothing():
    """A node whose driver cannot be read is not odd for that."""
    nameless = dataclasses.replace(USUAL, gpus=dataclasses.replace(USUAL.gpus, driver=None))
    assert differences(document(a=USUAL, b=nameless, c=USUAL)) == ()


def test_the_worst_comes_first():
    """In the order of the table."""
    odd = driver(gpu(h100_node("x", lost=[1]), 2, ecc_errors=1), "535.1")
    fields = [each.field for each in differences(document(a=USUAL, odd=odd, gone=None, c=USUAL))]
    places = [list(SUBJECTS).index(field) for field in fields]
    assert places == sorted(places)
    assert fields[0] == MISSING


def test_many_differences_are_cut():
    """The document keeps twenty of them and ten nodes of each; the number is the true one."""
    odd = {f"n{n}": driver(USUAL, f"5{n}") for n in range(30)}
    made = document(**odd)
    assert len(made["drift"]) <= 20
    assert (len(made["drift"][0]["nodes"]), made["drift"][0]["more"]) == (10, 20)


@given(JSON)
def test_whatever_a_tracker_gives_back(value):
    """A document of another shape is passed over, never an error."""
    for name in ("nodes", "node_classes"):
        differences({name: value})
        differences({name: [value], "nodes": [{"class": 0, "bad": value, "health": value, "diff": value}]})


def nodes_command(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from pluto_dist.cli import main; main()", "nodes", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_reads_a_file(tmp_path: Path):
    """Of system metadata, of a run's details, or from standard input; as tables and as JSON."""
    made = document(a=USUAL, odd=driver(gpu(USUAL, 2, pcie_width=4, pcie_width_max=16), "535.1"), c=USUAL)
    file = tmp_path / "metadata.json"
    file.write_text(json.dumps(made))
    shown = nodes_command(str(file))
    assert shown.returncode == 0, shown.stderr
    for word in ("odd", "535.1", "550.54.15", "4 of 16", "gpu.pcie.width", "8 x NVIDIA H100"):
        assert word in shown.stdout, shown.stdout
    print(shown.stdout)
    told = json.loads(nodes_command("-", "--json", text=json.dumps({"systemMetadata": made})).stdout)
    assert [each["field"] for each in told["drift"]] == ["gpu.driver", "gpu.pcie.width"]
    assert told["drift"][0]["fix"]


def test_the_command_shows_which_rank_is_where():
    """Ranks that alternate between nodes stand beside their own GPUs; a GPU that only torch saw has its UUID."""
    dealt = [
        dataclasses.replace(USUAL, ranks=(RankGpu(first, gpu=7), RankGpu(first + 2, uuid=f"seen-by-{first + 2}")))
        for first in (0, 1)
    ]
    made = document(a=dealt[0], b=dealt[1])
    shown = nodes_command("-", text=json.dumps(made)).stdout
    rows = {tuple(line.split()) for line in shown.splitlines()}
    uuid = USUAL.gpus.devices[7].uuid
    assert {("a", "7", uuid, "0"), ("b", "7", uuid, "1"), ("a", "seen-by-2", "2"), ("b", "seen-by-3", "3")} <= rows


def test_a_lost_gpu_has_no_place_of_its_own():
    """A node that differs in something else too is a class of its own, which knows of seven GPUs where they sit."""
    made = document(a=USUAL, b=driver(h100_node("x", lost=(3,)), "535.1"))
    assert [each["gpu"]["numa"][3] for each in made["node_classes"]] == [0, None]
    assert [each.field for each in differences(made)] == ["gpu.lost", "gpu.driver"]


def test_a_gpu_that_the_job_may_not_use():
    """A cgroup keeps it for another job: that is no lost GPU, and nothing to drain a node for."""
    hidden = dataclasses.replace(h100_node("x", lost=(3,)).gpus, bad=((3, "NoPermission"),))
    made = document(a=USUAL, b=dataclasses.replace(USUAL, gpus=hidden))
    assert [each.field for each in differences(made)] == ["gpu.hidden"]
    assert made["cluster"]["gpus_bad"] == 0


@pytest.mark.parametrize(
    ("arguments", "text", "told"),
    [
        (("nowhere.json",), None, "neither a number, a display id"),
        (("-",), "{", "not JSON"),
        (("-",), "{}", "no `cluster`"),
        (("-",), "[1]", "no `cluster`"),
    ],
)
def test_clear_errors(arguments, text, told):
    done = nodes_command(*arguments, text=text)
    assert done.returncode == 1
    assert told in done.stderr
