"""The GPU of each rank, from CUDA_VISIBLE_DEVICES in all its forms, torch and cgroups."""

from __future__ import annotations

import dataclasses

import pytest

from inventory.cluster_schema import violations
from inventory.inventories import h100_node
from inventory.ui_rules import faults
from pluto_dist.inventory.gpu.assignment import device_cgroups_differ, gpus_of_ranks, with_hidden_gpus
from pluto_dist.inventory.gpu.vendor import KernelGpu
from pluto_dist.inventory.records import Gpu, GpuReport, MigInstance, RankGpu, RankView
from pluto_dist.inventory.report.document import compose

INSTANCE = MigInstance(uuid="MIG-11aa", name="NVIDIA A100 MIG 3g.20gb")


def node(*names: str, mig: bool = False) -> GpuReport:
    """GPUs of these models, at ascending bus ids."""
    devices = [
        Gpu(
            index=n,
            name=name,
            uuid=f"GPU-{n}{n}ff",
            pci_bus_id=f"0000:{n:02}",
            mig_instances=(INSTANCE,) if mig else (),
        )
        for n, name in enumerate(names)
    ]
    return GpuReport(count=len(names), devices=tuple(devices))


FOUR, MIXED, LOST = node(*["H100"] * 4), node("H100", "T4"), GpuReport(count=2, bad=((1, "GpuIsLost"),))


@pytest.mark.parametrize(
    ("gpus", "local_world_size", "visible", "expected"),
    [
        (FOUR, 4, None, (0, 1, 2, 3)),
        (FOUR, 2, None, (0, 1)),
        (FOUR, 2, "3,1", (3, 1)),
        (FOUR, 2, " 3 , 1 ", (3, 1)),
        (FOUR, 2, "GPU-22,GPU-00ff", (2, 0)),
        (FOUR, 2, "GPU-,GPU-00ff", (None, None)),
        (FOUR, 2, "", (None, None)),
        (FOUR, 2, "-1", (None, None)),
        (FOUR, 2, "9,1", (None, None)),
        (FOUR, 2, "1,x,2", (None, None)),
        (FOUR, 1, "1,x,2", (1,)),
        (FOUR, 2, "0", (None, None)),  # shared, or a different GPU in each rank's cgroup
        (MIXED, 2, None, (None, None)),
        (MIXED, 2, "GPU-11ff,GPU-00ff", (1, 0)),
        (node("A100", mig=True), 1, "MIG-11aa", (0,)),
        (LOST, 1, None, (None,)),
        (GpuReport(count=0), 2, None, (None, None)),
    ],
)
def test_ranks_with_the_same_list(gpus, local_world_size, visible, expected):
    """Each uses one entry, in ascending order of ranks."""
    views = [RankView(8 + n, visible) for n in range(local_world_size)]
    found = gpus_of_ranks(gpus, views, local_world_size=local_world_size)
    assert found == tuple(RankGpu(8 + n, gpu) for n, gpu in enumerate(expected))


@pytest.mark.parametrize(
    ("gpus", "visible", "expected"),
    [
        (FOUR, {0: "0", 1: "1", 2: "3", 3: "2"}, {0: 0, 1: 1, 2: 3, 3: 2}),
        (FOUR, {5: "2,3", 1: "0,1"}, {1: 0, 5: 2}),
        (FOUR, {0: "0", 1: None}, {0: 0, 1: 0}),
        (FOUR, {0: "GPU-33", 1: "x"}, {0: 3, 1: None}),
        (MIXED, {0: "0", 1: "1"}, {0: None, 1: None}),
    ],
)
def test_ranks_with_different_lists(gpus, visible, expected):
    """Each uses the first entry of its list, and each list is kept."""
    views = [RankView(rank, value) for rank, value in visible.items()]
    found = gpus_of_ranks(gpus, views, local_world_size=len(visible))
    assert {each.rank: each.gpu for each in found} == expected
    assert [each.rank for each in found] == sorted(visible)
    assert {each.rank: each.visible for each in found} == visible


def test_a_rank_that_has_not_reported():
    """Without it the entries of a shared list cannot be assigned; those of different lists can."""
    shared = [RankView(0, "0,1,2"), RankView(2, "0,1,2")]
    assert [each.gpu for each in gpus_of_ranks(FOUR, shared, local_world_size=3)] == [None, None]
    own = [RankView(0, "0"), RankView(2, "2")]
    assert [each.gpu for each in gpus_of_ranks(FOUR, own, local_world_size=3)] == [0, 2]


def test_bus_order():
    """Indexes of different models are ambiguous unless CUDA numbers the GPUs in bus order."""
    views = [RankView(0), RankView(1)]
    assert [each.gpu for each in gpus_of_ranks(MIXED, views, local_world_size=2, in_bus_order=True)] == [0, 1]


def test_the_gpu_that_torch_reports():
    """It takes precedence over the list; the UUID of a GPU that NVML does not list is kept."""
    views = [RankView(0, "0,1", "11ff"), RankView(1, "0,1", "00ff"), RankView(2, "0,1", "22ff"), RankView(3, "0,1")]
    found = gpus_of_ranks(MIXED, views, local_world_size=4)
    assert found == (RankGpu(0, 1), RankGpu(1, 0), RankGpu(2, None, uuid="22ff"), RankGpu(3, None))
    (found,) = gpus_of_ranks(node("A100", mig=True), [RankView(0, "", "11aa")], local_world_size=1)
    assert found.gpu == 0


def whole_node(n: int = 4) -> tuple[GpuReport, list[KernelGpu]]:
    """The reports of NVML and of the kernel if nothing is hidden; minors are not in bus order."""
    gpus = h100_node("a").gpus
    kept = tuple(dataclasses.replace(gpu, mig_instances=()) for gpu in gpus.devices[:n])
    kernel_gpus = [
        KernelGpu(n - 1 - gpu.index, f"0000{(gpu.pci_bus_id or '')[8:].lower()}", gpu.name, gpu.uuid) for gpu in kept
    ]
    return dataclasses.replace(gpus, devices=kept, bad=(), count=n), kernel_gpus


def seen_by(gpus: GpuReport, index: int) -> GpuReport:
    """NVML's report to a process that may open only this GPU."""
    return dataclasses.replace(gpus, devices=(dataclasses.replace(gpus.devices[index], index=0),), count=1, p2p=None)


def test_hidden_gpus_complete_the_node():
    """Whichever rank collects: the same GPUs with the same indexes, in one class with a node without cgroups."""
    whole, kernel_gpus = whole_node()
    views = [RankView(rank, "0", devices=(rank,)) for rank in range(4)]
    node = h100_node("a")
    for collector in range(4):
        seen = seen_by(whole, 3 - collector)
        assert device_cgroups_differ(seen, views)
        found = with_hidden_gpus(seen, views[collector], views, kernel_gpus)
        assert [(gpu.index, gpu.uuid) for gpu in found.devices] == [(gpu.index, gpu.uuid) for gpu in whole.devices]
        assert [gpu.index for gpu in found.devices if not gpu.hidden] == [3 - collector]
        nodes = {n: dataclasses.replace(node, hostname=f"{n}", gpus=gpus) for n, gpus in enumerate((whole, found))}
        document = compose(nodes, owner_node=1, world_size=8, first_ranks={0: 0, 1: 4})
        assert violations(document) == [] and faults(document) == []
        assert document["cluster"]["gpus"] == 8
        assert document["nodes"][1]["hidden"] == [n for n in range(4) if n != 3 - collector]
        assert "diff" not in document["nodes"][1]
        assert [each["field"] for each in document.get("drift", [])] in ([], ["gpu.p2p"])


def test_lost_gpus_and_gpus_of_other_jobs():
    """A lost GPU stays lost although the kernel lists it; a GPU that no rank may open is not part of the job."""
    whole, kernel_gpus = whole_node()
    one, two = RankView(0, devices=(3, 2)), RankView(1, devices=(1,))
    seen = dataclasses.replace(seen_by(whole, 0), bad=((1, "GpuIsLost"), (2, "NoPermission")), count=3)
    found = with_hidden_gpus(seen, one, [one, two], kernel_gpus)
    assert [(gpu.index, gpu.uuid, gpu.hidden) for gpu in found.devices] == [
        (0, whole.devices[0].uuid, None),
        (1, whole.devices[2].uuid, True),
    ]
    assert (found.bad, found.count) == (((2, "GpuIsLost"),), 3)


def test_when_cgroups_differ():
    """Not if the ranks may open the same GPUs, there are no device files, or the driver failed."""
    one, other = RankView(0, devices=(0, 1)), RankView(1, devices=(1,))
    healthy = GpuReport(count=1, devices=(Gpu(0, "H100"),))
    assert device_cgroups_differ(healthy, [one, other])
    assert not device_cgroups_differ(healthy, [one, dataclasses.replace(one, rank=1)])
    assert not device_cgroups_differ(healthy, [one, RankView(1)])
    assert not device_cgroups_differ(healthy, [])
    assert not device_cgroups_differ(GpuReport(error="timeout"), [one, other])
