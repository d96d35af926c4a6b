"""The machine, its operating system and the limits of this process, from /proc, /sys and psutil.

No other program is run, so ``platform.uname()`` is not used: its ``processor`` starts ``uname -p``. ``cgroups``,
``container`` and ``disks`` read the parts of their names.
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

from pluto_dist.inventory.probes import cgroups, container, disks
from pluto_dist.inventory.probes.sources import ALL_FAMILIES, Sources
from pluto_dist.inventory.records import HostReport
from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.serialization.text import record_text


def hostname() -> str | None:
    """The kernel's name of this node."""
    return value_or_none(lambda: record_text(os.uname().nodename))


def probe(sources: Sources = ALL_FAMILIES, root: Path = Path("/")) -> HostReport:
    """This machine without its network ports. A value that cannot be read is ``None``; nothing is raised.

    Args:
        sources: environment and working directory to use.
        root: the folder that contains /proc and /sys; psutil reads this machine's regardless of it.
    """
    import platform

    release = value_or_none(platform.freedesktop_os_release) or {}
    freq_min, freq_max = value_or_none(lambda: _frequencies_mhz(root / "sys")) or (None, None)
    limits, folder = cgroups.limits(root), sources.working_directory
    return dataclasses.replace(
        container.probe(sources.environ, root),
        system=value_or_none(lambda: record_text(os.uname().sysname)),
        os=record_text(release.get("PRETTY_NAME")),
        os_name=record_text(release.get("NAME")),
        os_version=record_text(release.get("VERSION", release.get("BUILD_ID"))),
        os_id=record_text(release.get("ID")),
        kernel=value_or_none(lambda: record_text(os.uname().release)),
        kernel_version=value_or_none(lambda: record_text(os.uname().version)),
        arch=value_or_none(lambda: record_text(os.uname().machine)),
        cpu_model=value_or_none(lambda: _cpu_model(root / "proc")),
        cores_physical=value_or_none(lambda: _psutil().cpu_count(logical=False)),
        cores_logical=value_or_none(lambda: _psutil().cpu_count(logical=True)),
        freq_min_mhz=freq_min,
        freq_max_mhz=freq_max,
        cpus_allowed=value_or_none(lambda: len(os.sched_getaffinity(0))),
        cpu_quota=limits.cpus,
        memory=value_or_none(lambda: _psutil().virtual_memory().total),
        memory_limit=limits.memory,
        swap=value_or_none(lambda: _psutil().swap_memory().total),
        shm=value_or_none(lambda: disks.filesystem_size(root / "dev/shm")),
        disk=value_or_none(lambda: disks.filesystem_size(folder)) if folder else None,
        disk_type=value_or_none(lambda: disks.filesystem_type(folder, root)) if folder else None,
        boot_time=value_or_none(lambda: _psutil().boot_time()),
        timezone=tuple(name for zone in time.tzname if (name := record_text(zone))),
    )


def _psutil() -> Any:
    import psutil

    return psutil


def _cpu_model(proc: Path) -> str | None:
    """From cpuinfo ("model name" on x86); on arm64 the kernel has no model there, but the device tree may."""
    with (proc / "cpuinfo").open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "cpu model"):
                return record_text(value)
    return record_text((proc / "device-tree" / "model").read_bytes())


def _frequencies_mhz(sys: Path) -> tuple[float, float] | None:
    """Lowest and highest frequency over all cores; ``None`` in most virtual machines.

    Not psutil.cpu_freq(): it also reads every core's current frequency, which wakes idle cores
    (giampaolo/psutil#1851: 2 s on a machine with many).
    """
    policies = sorted((sys / "devices" / "system" / "cpu" / "cpufreq").glob("policy*"))
    if not policies:
        return None
    lows, highs = (
        [int((policy / name).read_text()) / 1000 for policy in policies]
        for name in ("cpuinfo_min_freq", "cpuinfo_max_freq")
    )
    return min(lows), max(highs)
