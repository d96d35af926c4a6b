"""Which GPU of its node does each rank use? As far as variables and torch tell.

Pure. Where torch has CUDA up it knows its GPU's UUID, and that settles it. Else CUDA_VISIBLE_DEVICES tells: a list of
numbers, of UUIDs (or beginnings of them), or of MIG instances; CUDA stops at the first entry that names nothing, and
"" or "-1" hides all. Ranks that share a list use one entry each, as torchrun and torch's examples have it
(``cuda:LOCAL_RANK``); a rank with a list of its own (``srun --gpus-per-task``) starts with its first. CUDA counts what
the rank's cgroup lets it open.

CUDA's numbers are NVML's only for GPUs in the order of their PCI bus: of unlike GPUs CUDA counts the fastest first
(tensorflow#32881), so a number says nothing there unless CUDA_DEVICE_ORDER is PCI_BUS_ID.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pluto_dist.inventory.ranks import RankGpu, RankView
from pluto_dist.inventory.records import Gpu, GpuReport

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"


def entries(environ: Mapping[str, str]) -> int | None:
    """How many GPUs CUDA_VISIBLE_DEVICES names; ``None`` where it is not set.

    >>> entries({"CUDA_VISIBLE_DEVICES": "0,3"}), entries({"CUDA_VISIBLE_DEVICES": ""}), entries({})
    (2, 0, None)
    """
    listed = environ.get(VISIBLE)
    return None if listed is None else len([entry for entry in listed.split(",") if entry.strip()])


def of_ranks(
    gpus: GpuReport, views: Sequence[RankView], *, size: int, in_bus_order: bool = False
) -> tuple[RankGpu, ...]:
    """The GPU of each rank of a node, in the order of ranks.

    >>> four = GpuReport(count=4, devices=tuple(Gpu(index=n, name="H100", uuid=f"GPU-{n}a") for n in range(4)))
    >>> def gpus_of(*views, size=2): return [(each.rank, each.gpu) for each in of_ranks(four, views, size=size)]
    >>> gpus_of(RankView(0), RankView(1)), gpus_of(RankView(4, "GPU-3,1"), RankView(5, "GPU-3,1"))
    ([(0, 0), (1, 1)], [(4, 3), (5, 1)])
    >>> gpus_of(RankView(0, "3"), RankView(1, "2")), gpus_of(RankView(0, uuid="2a"), RankView(1, uuid="elsewhere"))
    ([(0, 3), (1, 2)], [(0, 2), (1, None)])
    >>> four = GpuReport(count=4, devices=tuple(Gpu(index=n, name="H100", minor=3 - n) for n in range(4)))
    >>> gpus_of(RankView(0, "0", devices=(0,)), RankView(1, "0", devices=(2, 3)))
    [(0, 3), (1, 0)]

    Args:
        gpus: those of the node.
        views: what its ranks told; those that did not tell are left out.
        size: how many ranks the node has.
        in_bus_order: whether CUDA numbers GPUs in the order of their bus, as NVML does.
    """
    ordered = sorted(views, key=lambda view: view.rank)
    shared = len({(view.visible, view.devices) for view in ordered}) == 1
    found = []
    for place, view in enumerate(ordered):
        visible = _visible(_open_to(gpus, view), view.visible, in_bus_order=in_bus_order)
        if shared and (len(ordered) < size or len(visible) < size):  # whose entry is which?
            entry = None
        else:
            entry = next(iter(visible[place if shared else 0 :]), None)
        used = entry if view.uuid is None else _named(gpus.devices, view.uuid)
        unseen = view.uuid if used is None else None
        found.append(RankGpu(view.rank, used, None if shared else view.visible, unseen))
    return tuple(found)


def _open_to(gpus: GpuReport, view: RankView) -> GpuReport:
    """Those of the node's GPUs that a rank may open."""
    if view.devices is None or all(gpu.minor is None for gpu in gpus.devices):
        return gpus
    return replace(gpus, devices=tuple(gpu for gpu in gpus.devices if gpu.minor in view.devices))


def _visible(gpus: GpuReport, listed: str | None, *, in_bus_order: bool) -> list[int | None]:
    """The visible GPUs in CUDA's order; ``None`` for one that cannot be told."""
    by_number = in_bus_order or len({gpu.name for gpu in gpus.devices}) == 1
    numbers = [gpu.index for gpu in sorted(gpus.devices, key=lambda gpu: (gpu.pci_bus_id or "", gpu.index))]
    if listed is None:
        return [number if by_number else None for number in numbers]
    found: list[int | None] = []
    for entry in (part.strip() for part in listed.split(",")):
        if (position := _number(entry)) is not None and position < len(numbers):
            found.append(numbers[position] if by_number else None)
        elif entry.startswith(("GPU-", "MIG-")) and (named := _named(gpus.devices, entry)) is not None:
            found.append(named)
        else:
            break
    return found


def _named(devices: tuple[Gpu, ...], begin: str) -> int | None:
    """The one GPU whose UUID, or one of whose MIG instances' UUID, begins like this, with or without its kind."""
    matches = {
        gpu.index
        for gpu in devices
        for uuid in (gpu.uuid, *(part.uuid for part in gpu.mig_instances))
        if uuid is not None and (uuid.startswith(begin) or uuid.partition("-")[2].startswith(begin))
    }
    return matches.pop() if len(matches) == 1 else None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else None
