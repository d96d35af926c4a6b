"""The GPUs of a node that its ranks use, and that a cgroup hides from the one process that asks NVML.

Pure. Of such a GPU the kernel's word is known, its model, UUID and place on the bus; and the size of its memory, which
is that of any other of its model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pluto_dist.inventory.gpu.nvidia_proc import KernelGpu
from pluto_dist.inventory.ranks import RankView
from pluto_dist.inventory.records import NOT_OURS, Gpu, GpuReport


def differs(gpus: GpuReport, views: Sequence[RankView]) -> bool:
    """Whether the ranks of a node may open different GPUs, of a driver that answers."""
    sets = {view.devices for view in views}
    return len(sets) > 1 and None not in sets and gpus.error is None


def revealed(gpus: GpuReport, own: RankView, views: Sequence[RankView], present: Sequence[KernelGpu]) -> GpuReport:
    """``gpus`` with those that only other ranks may open, all in the order of the bus and with their minors.

    NVML shows each rank its own GPUs as the first ones, so its numbers name none of the node.

    >>> h100 = GpuReport(count=1, devices=(Gpu(0, "H100", "GPU-b", 80, pci_bus_id="00000000:2A:00.0"),))
    >>> there = [KernelGpu(0, "0000:2a:00.0", "H100", "GPU-b"), KernelGpu(1, "0000:18:00.0", "H100", "GPU-a")]
    >>> found = revealed(h100, RankView(0, devices=(0,)), [RankView(1, devices=(1,))], there)
    >>> found.count, [(gpu.index, gpu.uuid, gpu.memory, gpu.hidden) for gpu in found.devices]
    (2, [(0, 'GPU-a', 80, True), (1, 'GPU-b', 80, None)])

    Args:
        gpus: what NVML told the process that asked.
        own: what that process may open.
        views: what the ranks of its node may, it included or not.
        present: the machine's GPUs.
    """
    opened = {minor for view in views for minor in view.devices or ()} - set(own.devices or ())
    minors = {_place(gpu.bus): gpu.minor for gpu in present}
    memory = {gpu.name: gpu.memory for gpu in gpus.devices}
    seen = [dataclasses.replace(gpu, minor=minors.get(_place(gpu.pci_bus_id))) for gpu in gpus.devices]
    unseen = [_gpu(gpu, memory.get(gpu.name)) for gpu in present if gpu.minor in opened]
    ordered = sorted([*seen, *unseen], key=lambda gpu: (_place(gpu.pci_bus_id), gpu.index))
    bad = [error for _, error in gpus.bad if error != NOT_OURS]
    return dataclasses.replace(
        gpus,
        devices=tuple(dataclasses.replace(gpu, index=index) for index, gpu in enumerate(ordered)),
        bad=tuple(enumerate(bad, start=len(ordered))),
        count=len(ordered) + len(bad),
    )


def _gpu(found: KernelGpu, memory: int | None) -> Gpu:
    domain, _, rest = found.bus.partition(":")
    bus = f"{domain:0>8}:{rest}".upper()  # as NVML has it
    return Gpu(0, found.name, found.uuid, memory, pci_bus_id=bus, minor=found.minor, hidden=True)


def _place(bus: str | None) -> tuple[int, str]:
    """A place on the bus, whose domain NVML writes with eight digits and the kernel with four.

    >>> _place("00000000:2A:00.0") == _place("0000:2a:00.0") < _place("0001:18:00.0")
    True
    """
    domain, _, rest = (bus or "").lower().partition(":")
    return (int(domain, 16) if domain and set(domain) <= set("0123456789abcdef") else 0), rest
