"""Determines which GPU of its node each rank uses, from the list of visible devices, torch and cgroups. Pure.

If torch has initialized its GPUs, it reports the UUID of the rank's GPU, which is definite. Otherwise the GPU follows
from the vendor's variable (CUDA_VISIBLE_DEVICES): a list of indexes, of UUIDs (or prefixes of them), or of MIG
instances. CUDA ignores the entries from the first invalid one on; "" and "-1" hide all GPUs. Ranks with the same list
use one entry each, as torchrun and torch's examples do (``cuda:LOCAL_RANK``); a rank with a list of its own
(``srun --gpus-per-task``) uses its first entry. CUDA numbers only the GPUs that the rank's cgroup lets it open.

CUDA's indexes equal NVML's only if CUDA numbers the GPUs in PCI bus order. With different models CUDA numbers the
fastest first (tensorflow#32881), so an index is ambiguous unless CUDA_DEVICE_ORDER is PCI_BUS_ID. Other vendors'
libraries are taken to do the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pluto_dist.inventory.gpu import vendor_named
from pluto_dist.inventory.gpu.vendor import KernelGpu
from pluto_dist.inventory.records import NO_PERMISSION, Gpu, GpuReport, RankGpu, RankView
from pluto_dist.serialization.text import parse_digits


def gpus_of_ranks(
    gpus: GpuReport, views: Sequence[RankView], *, local_world_size: int, in_bus_order: bool = False
) -> tuple[RankGpu, ...]:
    """The GPU of each rank of a node, in ascending order of ranks.

    >>> four = GpuReport(count=4, devices=tuple(Gpu(index=n, name="H100", uuid=f"GPU-{n}a") for n in range(4)))
    >>> def indexes(*views): return [(each.rank, each.gpu) for each in gpus_of_ranks(four, views, local_world_size=2)]
    >>> indexes(RankView(0), RankView(1)), indexes(RankView(4, "GPU-3,1"), RankView(5, "GPU-3,1"))
    ([(0, 0), (1, 1)], [(4, 3), (5, 1)])
    >>> indexes(RankView(0, "3"), RankView(1, "2")), indexes(RankView(0, uuid="2a"), RankView(1, uuid="elsewhere"))
    ([(0, 3), (1, 2)], [(0, 2), (1, None)])
    >>> four = GpuReport(count=4, devices=tuple(Gpu(index=n, name="H100", minor=3 - n) for n in range(4)))
    >>> indexes(RankView(0, "0", devices=(0,)), RankView(1, "0", devices=(2, 3)))
    [(0, 3), (1, 0)]

    Args:
        gpus: the GPUs of the node.
        views: what its ranks reported; ranks that did not report are left out.
        local_world_size: the number of ranks on the node.
        in_bus_order: whether CUDA numbers GPUs in PCI bus order, as NVML does.
    """
    ordered = sorted(views, key=lambda view: view.rank)
    shared = len({(view.visible, view.devices) for view in ordered}) == 1
    found = []
    for place, view in enumerate(ordered):
        visible = _visible_indexes(_openable(gpus, view), view.visible, in_bus_order=in_bus_order)
        # Entries of a shared list can be assigned only if all ranks reported and there is one entry for each.
        if shared and (len(ordered) < local_world_size or len(visible) < local_world_size):
            entry = None
        else:
            entry = next(iter(visible[place if shared else 0 :]), None)
        used = entry if view.uuid is None else _index_of_uuid(gpus.devices, view.uuid)
        unlisted = view.uuid if used is None else None
        found.append(RankGpu(view.rank, used, None if shared else view.visible, unlisted))
    return tuple(found)


def _openable(gpus: GpuReport, view: RankView) -> GpuReport:
    """The GPUs of the node that a rank may open."""
    if view.devices is None or all(gpu.minor is None for gpu in gpus.devices):
        return gpus
    return replace(gpus, devices=tuple(gpu for gpu in gpus.devices if gpu.minor in view.devices))


def _visible_indexes(gpus: GpuReport, value: str | None, *, in_bus_order: bool) -> list[int | None]:
    """NVML indexes of the visible GPUs in CUDA's order; ``None`` for one that cannot be determined."""
    prefixes = vendor_named(gpus.vendor).visible.uuid_prefixes
    is_definite = in_bus_order or len({gpu.name for gpu in gpus.devices}) == 1
    indexes = [gpu.index for gpu in sorted(gpus.devices, key=lambda gpu: (gpu.pci_bus_id or "", gpu.index))]
    if value is None:
        return [index if is_definite else None for index in indexes]
    found: list[int | None] = []
    for entry in (part.strip() for part in value.split(",")):
        if (position := parse_digits(entry, most=5)) is not None and position < len(indexes):
            found.append(indexes[position] if is_definite else None)
        elif entry.startswith(prefixes) and (index := _index_of_uuid(gpus.devices, entry)) is not None:
            found.append(index)
        else:
            break
    return found


def _index_of_uuid(devices: tuple[Gpu, ...], prefix: str) -> int | None:
    """The only GPU whose UUID, or a MIG instance's UUID, has this prefix, with or without "GPU-" or "MIG-"."""
    matches = {
        gpu.index
        for gpu in devices
        for uuid in (gpu.uuid, *(instance.uuid for instance in gpu.mig_instances))
        if uuid is not None and (uuid.startswith(prefix) or uuid.partition("-")[2].startswith(prefix))
    }
    return matches.pop() if len(matches) == 1 else None


# GPUs that a cgroup hides from the process that queries NVML.


def device_cgroups_differ(gpus: GpuReport, views: Sequence[RankView]) -> bool:
    """Whether the ranks of a node may open different GPUs; ``False`` if the driver failed."""
    sets = {view.devices for view in views}
    return len(sets) > 1 and None not in sets and gpus.error is None


def with_hidden_gpus(
    gpus: GpuReport, collector: RankView, views: Sequence[RankView], kernel_gpus: Sequence[KernelGpu]
) -> GpuReport:
    """``gpus`` and the GPUs that only other ranks may open, all in bus order and with their minors.

    NVML numbers the GPUs that a rank may open from 0, so its indexes are not those of the node. Of a hidden GPU the
    kernel reports model, UUID and bus id; its memory size is that of another GPU of its model.

    >>> h100 = GpuReport(count=1, devices=(Gpu(0, "H100", "GPU-b", 80, pci_bus_id="00000000:2A:00.0"),))
    >>> listed = [KernelGpu(0, "0000:2a:00.0", "H100", "GPU-b"), KernelGpu(1, "0000:18:00.0", "H100", "GPU-a")]
    >>> found = with_hidden_gpus(h100, RankView(0, devices=(0,)), [RankView(1, devices=(1,))], listed)
    >>> found.count, [(gpu.index, gpu.uuid, gpu.memory, gpu.hidden) for gpu in found.devices]
    (2, [(0, 'GPU-a', 80, True), (1, 'GPU-b', 80, None)])

    Args:
        gpus: what NVML reported to the collecting process.
        collector: what that process may open.
        views: what the ranks of its node may open, with or without the collecting one.
        kernel_gpus: the GPUs of the machine.
    """
    hidden_minors = {minor for view in views for minor in view.devices or ()} - set(collector.devices or ())
    minors = {_bus_key(gpu.bus): gpu.minor for gpu in kernel_gpus}
    memory = {gpu.name: gpu.memory for gpu in gpus.devices}
    reported = [replace(gpu, minor=minors.get(_bus_key(gpu.pci_bus_id))) for gpu in gpus.devices]
    bus_id = vendor_named(gpus.vendor).bus_id
    hidden = [
        Gpu(0, gpu.name, gpu.uuid, memory.get(gpu.name), pci_bus_id=bus_id(gpu.bus), minor=gpu.minor, hidden=True)
        for gpu in kernel_gpus
        if gpu.minor in hidden_minors
    ]
    ordered = sorted([*reported, *hidden], key=lambda gpu: (_bus_key(gpu.pci_bus_id), gpu.index))
    errors = [error for _, error in gpus.bad if error != NO_PERMISSION]
    return replace(
        gpus,
        devices=tuple(replace(gpu, index=index) for index, gpu in enumerate(ordered)),
        bad=tuple(enumerate(errors, start=len(ordered))),
        count=len(ordered) + len(errors),
    )


def _bus_key(bus_id: str | None) -> tuple[int, str]:
    """A sort key of a bus id, whose domain NVML writes with eight digits and the kernel with four.

    >>> _bus_key("00000000:2A:00.0") == _bus_key("0000:2a:00.0") < _bus_key("0001:18:00.0")
    True
    """
    domain, _, rest = (bus_id or "").lower().partition(":")
    return (int(domain, 16) if domain and set(domain) <= set("0123456789abcdef") else 0), rest
