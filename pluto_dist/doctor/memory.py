"""Is there memory for dataloader workers, and may this process open and lock enough?"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from pluto_dist.doctor.family import Family, Machine
from pluto_dist.doctor.finding import Finding, not_applicable, ok, size, warning
from pluto_dist.inventory.probes import cgroups
from pluto_dist.inventory.safe_read import value_or_none

SHM_ENOUGH = 1 << 30  # bytes; docker's default is 64 MiB, which one batch of images of a worker fills
MEMORY_LOW = 1 << 30
FILES_ENOUGH = 1024
FILES_OF_A_RANK = 2
"""Connections that rank 0 holds for each rank: to its store and to its process group."""


@dataclass(frozen=True, slots=True)
class MemorySeen:
    """Sizes in bytes; ``None``: unknown, and for limits: none.

    Attributes:
        shm, shm_free: the shared memory's filesystem.
        total: the machine's memory.
        limit, used: the control group's.
        open_files: how many this process may open.
        memlock: how much it may lock.
        infiniband: the host channel adapters.
        world_size: ranks of the job.
    """

    shm: int | None = None
    shm_free: int | None = None
    total: int | None = None
    limit: int | None = None
    used: int | None = None
    open_files: int | None = None
    memlock: int | None = None
    infiniband: tuple[str, ...] = ()
    world_size: int = 1


def look(machine: Machine) -> MemorySeen:
    status = value_or_none(lambda: os.statvfs(machine.root / "dev/shm"))
    group = cgroups.limits(machine.root)
    adapters = (
        value_or_none(lambda: sorted(path.name for path in (machine.root / "sys/class/infiniband").iterdir())) or []
    )
    world_size = machine.environ.get("WORLD_SIZE", "")
    return MemorySeen(
        shm=None if status is None else status.f_blocks * status.f_frsize,
        shm_free=None if status is None else status.f_bavail * status.f_frsize,
        total=value_or_none(lambda: _total(machine.root)),
        limit=group.memory,
        used=group.memory_used,
        open_files=_soft_limit(resource.RLIMIT_NOFILE),
        memlock=_soft_limit(resource.RLIMIT_MEMLOCK),
        infiniband=tuple(adapters),
        world_size=int(world_size) if world_size.isdecimal() else 1,
    )


def _total(root: Path) -> int:
    line = next(line for line in (root / "proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    return int(line.split()[1]) * 1024


def _soft_limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft


def shared_memory(seen: MemorySeen) -> Finding:
    """Dataloader workers hand batches over in /dev/shm; where it is full they die of a bus error."""
    fix = "docker run --shm-size=8g or --ipc=host; Kubernetes: an emptyDir with medium: Memory at /dev/shm"
    if seen.shm is None:
        return warning("/dev/shm cannot be read: dataloader workers cannot hand their batches over", fix)
    saw = f"/dev/shm has {size(seen.shm)}, {size(seen.shm_free or 0)} free"
    if seen.shm < SHM_ENOUGH:
        return warning(f"{saw}: dataloader workers may die of a bus error", fix)
    if seen.shm_free is not None and seen.shm_free < SHM_ENOUGH // 4:
        return warning(saw, "Remove what dead processes left in /dev/shm.")
    return ok(saw)


def memory(seen: MemorySeen) -> Finding:
    machine = "unknown" if seen.total is None else size(seen.total)
    if seen.limit is None or (seen.total is not None and seen.limit >= seen.total):
        return ok(f"{machine}, no limit of a control group")
    saw = f"limited to {size(seen.limit)} of {machine} by the control group"
    if seen.used is None:
        return ok(saw)
    saw += f", {size(seen.used)} used"
    if seen.limit - seen.used < MEMORY_LOW:
        return warning(saw, "Raise the limit (docker --memory, Kubernetes resources.limits.memory, Slurm --mem).")
    return ok(saw)


def open_files(seen: MemorySeen) -> Finding:
    needed = max(FILES_ENOUGH, FILES_OF_A_RANK * seen.world_size + 256)
    if seen.open_files is None or seen.open_files >= needed:
        return ok("unlimited" if seen.open_files is None else f"{seen.open_files}")
    why = f"rank 0 of {seen.world_size} needs about {needed}" if needed > FILES_ENOUGH else f"{needed} are usual"
    return warning(f"{seen.open_files} ({why})", "ulimit -n 65536")


def locked_memory(seen: MemorySeen) -> Finding:
    """RDMA registers its buffers as locked memory."""
    if not seen.infiniband:
        return not_applicable("no InfiniBand or RoCE adapter")
    if seen.memlock is None:
        return ok(f"unlimited, for {', '.join(seen.infiniband)}")
    return warning(
        f"{size(seen.memlock)}, with {', '.join(seen.infiniband)}: NCCL cannot register its buffers",
        "ulimit -l unlimited; docker run --ulimit memlock=-1; Slurm: PropagateResourceLimitsExcept=MEMLOCK",
    )


FAMILY = Family(
    look,
    (
        ("shared memory", shared_memory),
        ("memory", memory),
        ("open files", open_files),
        ("locked memory", locked_memory),
    ),
)
