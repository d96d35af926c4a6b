"""Which GPU of its node does each rank use? As far as the launcher's variables tell.

Pure. CUDA_VISIBLE_DEVICES is a list of numbers, of UUIDs (or beginnings of them), or of MIG instances; CUDA stops at
the first entry that names nothing, and "" or "-1" hides all. Rank i of a node uses the i-th visible GPU, as torchrun
and torch's examples have it (``cuda:LOCAL_RANK``). Where ranks have lists of their own, only this process's is known.

CUDA's numbers are NVML's only for GPUs in the order of their PCI bus: of unlike GPUs CUDA counts the fastest first
(tensorflow#32881), so a number says nothing there unless CUDA_DEVICE_ORDER is PCI_BUS_ID.
"""

from __future__ import annotations

from collections.abc import Mapping

from .records import Gpu, GpuReport

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"


def of_ranks(gpus: GpuReport, environ: Mapping[str, str]) -> tuple[int | None, ...]:
    """The GPU of each rank of the node, by NVML's number, in order of local ranks; ``()`` where nothing is known.

    >>> four = GpuReport(count=4, devices=tuple(Gpu(index=n, name="H100", uuid=f"GPU-{n}a") for n in range(4)))
    >>> of_ranks(four, {"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0"})
    (0, 1)
    >>> of_ranks(four, {"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0", "CUDA_VISIBLE_DEVICES": "GPU-3,1"})
    (3, 1)
    >>> of_ranks(four, {"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": "2"})
    (None, 2)
    """
    size, mine = _number(environ.get("LOCAL_WORLD_SIZE")), _number(environ.get("LOCAL_RANK"))
    if not size or mine is None or mine >= size or not gpus.devices:
        return ()
    visible = _visible(gpus, environ)
    if len(visible) < size:  # each rank has a list of its own
        own = visible[0] if len(visible) == 1 else None
        return tuple(own if rank == mine else None for rank in range(size)) if own is not None else ()
    return tuple(visible[:size])


def _visible(gpus: GpuReport, environ: Mapping[str, str]) -> list[int | None]:
    """The visible GPUs in CUDA's order; ``None`` for one that cannot be told."""
    by_number = len({gpu.name for gpu in gpus.devices}) == 1 or environ.get(ORDER) == "PCI_BUS_ID"
    numbers = [gpu.index for gpu in sorted(gpus.devices, key=lambda gpu: (gpu.pci_bus_id or "", gpu.index))]
    if (listed := environ.get(VISIBLE)) is None:
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


def _named(devices: tuple[Gpu, ...], entry: str) -> int | None:
    """The one GPU whose UUID, or one of whose MIG instances' UUID, begins like this."""
    matches = {
        gpu.index
        for gpu in devices
        for uuid in (gpu.uuid, *(part.uuid for part in gpu.mig_instances))
        if uuid is not None and uuid.startswith(entry)
    }
    return matches.pop() if len(matches) == 1 else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 6 else None
