"""What of a machine and its software have nodes of one kind in common? By the names that a class has in the document.

What is a node's own is not here: its name, its pod, its boot time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pluto_dist.inventory.records import HostReport, SoftwareReport


def of_host(host: HostReport, sizes: Mapping[int, int]) -> dict[str, Any]:
    """The values of ``host``; ``sizes`` has what stands for a size that differs by a little between alike nodes."""
    return {
        "cpu.model": host.cpu_model,
        "cpu.arch": host.arch,
        "cpu.physical": host.cores_physical,
        "cpu.logical": host.cores_logical,
        "cpu.allowed": host.cpus_allowed,
        "cpu.quota": host.cpu_quota,
        "cpu.freq_max_mhz": host.freq_max_mhz,
        "memory.total": sizes.get(host.memory or 0, host.memory),
        "memory.limit": host.memory_limit,
        "memory.swap": sizes.get(host.swap or 0, host.swap),
        "shm": sizes.get(host.shm or 0, host.shm),
        "disk.total": sizes.get(host.disk or 0, host.disk),
        "disk.type": host.disk_type,
        "nic": host.nics or None,
        "os": host.os,
        "kernel": host.kernel,
        "virt": host.virt,
        "container": host.container,
        "image": host.image,
    }


def of_software(software: SoftwareReport) -> dict[str, Any]:
    return {
        "python": software.python,
        "torch": software.torch,
        "cuda": software.cuda,
        "cudnn": software.cudnn,
        "nccl": software.nccl,
        "packages": software.packages,
        "env": software.env,
        "commit": software.commit,
    }


def sizes(host: HostReport) -> list[int]:
    """The sizes of ``host`` in bytes that firmware, kernel or filesystem make a little different from node to node."""
    return [value for value in (host.memory, host.swap, host.shm, host.disk) if value]


def same(values: Iterable[str | None]) -> str | None:
    """The one value that is known; "mixed" for several.

    >>> same(["a", None, "a"]), same(["a", "b"]), same([None])
    ('a', 'mixed', None)
    """
    found = {value for value in values if value is not None}
    return next(iter(found), None) if len(found) < 2 else "mixed"
