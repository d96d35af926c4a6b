"""GPUs that a cgroup hides from the process that asks NVML: by the kernel's word, among those that NVML shows.

What a real cgroup answers is in ``jobs/test_slurm``.
"""

from __future__ import annotations

import dataclasses

from inventory.cluster_schema import violations
from inventory.inventories import h100_node
from inventory.machine import write
from inventory.ui_rules import faults
from pluto_dist.inventory.gpu import hidden, nvidia_proc
from pluto_dist.inventory.gpu.nvidia_proc import KernelGpu
from pluto_dist.inventory.ranks import RankView
from pluto_dist.inventory.records import Gpu, GpuReport
from pluto_dist.inventory.report.document import compose

UUID = "GPU-5fd4f087-86f3-7a43-b711-4771313afc5{}"
INFORMATION = "proc/driver/nvidia/gpus/{}/information"


def told(bus: str, minor: int, uuid: str) -> str:
    """As drivers 390 to 590 write it."""
    return (
        f"Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 185\nGPU UUID: \t {uuid}\nBus Type: \t PCIe\n"
        f"Bus Location: \t {bus}\nDevice Minor: \t {minor}\nGPU Excluded:\t No\n"
    )


def test_the_kernels_list(tmp_path):
    """In the order of the bus; a GPU that was never used has no UUID yet, and a garbled entry costs only itself."""
    files = {
        INFORMATION.format("0000:3b:00.0"): told("0000:3b:00.0", 0, UUID.format(1)),
        INFORMATION.format("0000:1b:00.0"): told("0000:1b:00.0", 1, "GPU-????????-????-????-????-????????????"),
        INFORMATION.format("0000:5b:00.0"): "Model: \t\t NVIDIA H100 80GB HBM3\n",
        INFORMATION.format("0000:6b:00.0"): told("0000:6b:00.0", 2, UUID.format(2)).replace(
            "Minor: \t 2", "Minor: \t x"
        ),
    }
    found = nvidia_proc.present(write(tmp_path, files))
    assert [(gpu.bus, gpu.minor, gpu.uuid) for gpu in found] == [
        ("0000:1b:00.0", 1, None),
        ("0000:3b:00.0", 0, UUID.format(1)),
    ]
    assert {gpu.name for gpu in found} == {"NVIDIA H100 80GB HBM3"}


def test_files_that_are_no_gpus(tmp_path):
    """Only /dev/nvidia<number> is a GPU's; a machine without any tells nothing, which is not the same as none."""
    assert nvidia_proc.openable(tmp_path) is None
    names = ("nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm", "nvidia-caps", "nvidia7x")
    assert nvidia_proc.openable(write(tmp_path, {f"dev/{name}": "" for name in names})) == (2, 10)


def whole_node(n: int = 4) -> tuple[GpuReport, list[KernelGpu]]:
    """What NVML and the kernel tell of one node, where nothing is hidden; minors are not in the order of the bus."""
    gpus = h100_node("a").gpus
    kept = tuple(dataclasses.replace(gpu, mig_instances=()) for gpu in gpus.devices[:n])
    present = [
        KernelGpu(n - 1 - gpu.index, f"0000{(gpu.pci_bus_id or '')[8:].lower()}", gpu.name, gpu.uuid) for gpu in kept
    ]
    return dataclasses.replace(gpus, devices=kept, bad=(), count=n), present


def seen_by(gpus: GpuReport, index: int) -> GpuReport:
    """What NVML tells a process that may open that GPU only."""
    return dataclasses.replace(gpus, devices=(dataclasses.replace(gpus.devices[index], index=0),), count=1, p2p=None)


def test_the_node_is_as_if_nothing_were_hidden():
    """Whoever of the ranks asks: the same GPUs under the same numbers, of one class with a node that hides nothing."""
    whole, present = whole_node()
    views = [RankView(rank, "0", devices=(rank,)) for rank in range(4)]
    node = h100_node("a")
    for asks in range(4):
        seen = seen_by(whole, 3 - asks)
        assert hidden.differs(seen, views)
        found = hidden.revealed(seen, views[asks], views, present)
        assert [(gpu.index, gpu.uuid) for gpu in found.devices] == [(gpu.index, gpu.uuid) for gpu in whole.devices]
        assert [gpu.index for gpu in found.devices if not gpu.hidden] == [3 - asks]
        nodes = {n: dataclasses.replace(node, hostname=f"{n}", gpus=gpus) for n, gpus in enumerate((whole, found))}
        document = compose(nodes, leader_node=1, world_size=8, first_ranks={0: 0, 1: 4})
        assert violations(document) == [] and faults(document) == []
        assert document["cluster"]["gpus"] == 8
        assert document["nodes"][1]["hidden"] == [n for n in range(4) if n != 3 - asks]
        assert "diff" not in document["nodes"][1]
        assert [each["field"] for each in document.get("drift", [])] in ([], ["gpu.p2p"])


def test_a_gpu_of_ours_that_is_lost_and_those_of_others():
    """A lost GPU stays lost, though the kernel still lists it; what no rank may open is no GPU of this job."""
    whole, present = whole_node()
    one, two = RankView(0, devices=(3, 2)), RankView(1, devices=(1,))
    seen = dataclasses.replace(seen_by(whole, 0), bad=((1, "GpuIsLost"), (2, "NoPermission")), count=3)
    found = hidden.revealed(seen, one, [one, two], present)
    assert [(gpu.index, gpu.uuid, gpu.hidden) for gpu in found.devices] == [
        (0, whole.devices[0].uuid, None),
        (1, whole.devices[2].uuid, True),
    ]
    assert (found.bad, found.count) == (((2, "GpuIsLost"),), 3)


def test_where_nothing_is_looked_up():
    """Ranks that may open the same, machines without device files, and a driver that does not answer."""
    one, other = RankView(0, devices=(0, 1)), RankView(1, devices=(1,))
    well = GpuReport(count=1, devices=(Gpu(0, "H100"),))
    assert hidden.differs(well, [one, other])
    assert not hidden.differs(well, [one, dataclasses.replace(one, rank=1)])
    assert not hidden.differs(well, [one, RankView(1)])
    assert not hidden.differs(well, [])
    assert not hidden.differs(GpuReport(error="timeout"), [one, other])
