"""Which NVIDIA GPUs does the kernel know, and which of them may this process open? Without asking the driver.

A scheduler may give each rank a cgroup of its own (``srun --gpus-per-task`` with ConstrainDevices): NVML then shows
each of them one GPU, its own, as number 0 (deepops#1102). One process of a node asks NVML, so the other ranks'
GPUs are known by what is read here alone: the driver's list in /proc, which every process may read, and whether
/dev/nvidia<minor> may be opened, which the kernel tells without opening it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pluto_dist.inventory.limits import DEVICE_LIMIT
from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.serialization.text import clean_text


@dataclass(frozen=True, slots=True)
class KernelGpu:
    """One GPU of the machine, as /proc/driver/nvidia has it."""

    minor: int
    """Of its device file; minors need not be in the order of the bus."""
    bus: str
    """"0000:18:00.0"."""
    name: str | None
    uuid: str | None


def present(root: Path = Path("/")) -> tuple[KernelGpu, ...]:
    """The machine's GPUs in the order of their bus; in a container those that it was given."""
    files = value_or_none(lambda: sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))) or []
    found = (value_or_none(partial(_read, file)) for file in files[:DEVICE_LIMIT])
    return tuple(sorted((gpu for gpu in found if gpu is not None), key=lambda gpu: gpu.bus))


def openable(root: Path = Path("/")) -> tuple[int, ...] | None:
    """The minors of the device files that this process may open; ``None`` where there is none."""
    minors = sorted(_minors(root / "dev"))
    allowed = (minor for minor in minors if os.access(root / f"dev/nvidia{minor}", os.R_OK | os.W_OK))
    return tuple(allowed) if minors else None


def _minors(folder: Path) -> Iterator[int]:
    for file in value_or_none(lambda: list(folder.iterdir())) or ():
        if (found := re.fullmatch(r"nvidia(\d{1,5})", file.name)) is not None:
            yield int(found[1])


def _read(file: Path) -> KernelGpu:
    lines = (line.partition(":") for line in file.read_text("utf-8", "replace").splitlines())
    fields = {name.strip(): value.strip() for name, _, value in lines}
    uuid = fields.get("GPU UUID", "")
    return KernelGpu(
        minor=int(fields["Device Minor"]),
        bus=fields["Bus Location"].lower(),
        name=clean_text(fields.get("Model")) or None,
        uuid=clean_text(uuid)
        if re.fullmatch(r"GPU-[0-9a-f-]{36}", uuid)
        else None,  # "GPU-????????-…" before first use
    )
