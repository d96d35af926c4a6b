"""The NVIDIA GPUs that the kernel lists, and those that this process may open; without calls to the driver.

A scheduler may give each rank its own cgroup (``srun --gpus-per-task`` with ConstrainDevices): NVML then shows each
rank one GPU, its own, as number 0 (deepops#1102). One process of a node queries NVML, so the GPUs of the other ranks
are known only from the files here: the driver's list in /proc, which every process may read, and the permissions of
/dev/nvidia<minor>, which the kernel checks without opening the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pluto_dist.inventory.gpu.vendor import KernelGpu
from pluto_dist.inventory.records import DEVICE_LIMIT
from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.serialization.text import record_text


def list_gpus(root: Path = Path("/")) -> tuple[KernelGpu, ...]:
    """The GPUs of the machine in bus order; in a container those that were assigned to it."""
    files = value_or_none(lambda: sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))) or []
    found = (value_or_none(partial(_parse, file)) for file in files[:DEVICE_LIMIT])
    return tuple(sorted((gpu for gpu in found if gpu is not None), key=lambda gpu: gpu.bus))


def openable_minors(root: Path = Path("/")) -> tuple[int, ...] | None:
    """Minor numbers of the device files that this process may open; ``None`` if there are no such files."""
    minors = sorted(_minors(root / "dev"))
    allowed = (minor for minor in minors if os.access(root / f"dev/nvidia{minor}", os.R_OK | os.W_OK))
    return tuple(allowed) if minors else None


def bus_id(kernels: str) -> str:
    """NVML's format of a bus id of the kernel's.

    >>> bus_id("0000:2a:00.0")
    '00000000:2A:00.0'
    """
    domain, _, rest = kernels.partition(":")
    return f"{domain:0>8}:{rest}".upper()


def _minors(folder: Path) -> Iterator[int]:
    for file in value_or_none(lambda: list(folder.iterdir())) or ():
        if (found := re.fullmatch(r"nvidia(\d{1,5})", file.name)) is not None:
            yield int(found[1])


def _parse(file: Path) -> KernelGpu:
    lines = (line.partition(":") for line in file.read_text("utf-8", "replace").splitlines())
    fields = {name.strip(): value.strip() for name, _, value in lines}
    uuid = fields.get("GPU UUID", "")
    has_uuid = re.fullmatch(r"GPU-[0-9a-f-]{36}", uuid)  # "GPU-????????-…" before first use
    return KernelGpu(
        minor=int(fields["Device Minor"]),
        bus=fields["Bus Location"].lower(),
        name=record_text(fields.get("Model")) or None,
        uuid=record_text(uuid) if has_uuid else None,
    )
