"""Checks shared memory, the memory limit, and the limits on open files and locked memory."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from pluto_dist.doctor.finding import CheckGroup, Finding, Machine, not_applicable, ok, size, warning
from pluto_dist.inventory.probes import cgroups
from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.serialization.text import parse_digits

SHM_MINIMUM = 1 << 30  # bytes; docker's default is 64 MiB, which one worker fills with one batch of images
MEMORY_MINIMUM = 1 << 30
FILES_MINIMUM = 1024
FILES_PER_RANK = 2
"""Connections that rank 0 holds for each rank: to its store and to its process group."""


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """Sizes in bytes. ``None`` means unknown; for a limit it means none.

    Attributes:
        shm, shm_free: the filesystem of /dev/shm.
        total: the machine's memory.
        limit, used: those of the cgroup.
        open_files: how many files this process may open.
        memlock: how much memory it may lock.
        infiniband: the InfiniBand and RoCE adapters.
        world_size: number of ranks of the job.
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


def probe(machine: Machine) -> MemoryFacts:
    status = value_or_none(lambda: os.statvfs(machine.root / "dev/shm"))
    limits = cgroups.limits(machine.root)
    adapters = (
        value_or_none(lambda: sorted(path.name for path in (machine.root / "sys/class/infiniband").iterdir())) or []
    )
    return MemoryFacts(
        shm=None if status is None else status.f_blocks * status.f_frsize,
        shm_free=None if status is None else status.f_bavail * status.f_frsize,
        total=value_or_none(lambda: _total(machine.root)),
        limit=limits.memory,
        used=limits.memory_used,
        open_files=_soft_limit(resource.RLIMIT_NOFILE),
        memlock=_soft_limit(resource.RLIMIT_MEMLOCK),
        infiniband=tuple(adapters),
        world_size=parse_digits(machine.environ.get("WORLD_SIZE", "")) or 1,
    )


def _total(root: Path) -> int:
    line = next(line for line in (root / "proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    return int(line.split()[1]) * 1024


def _soft_limit(resource_id: int) -> int | None:
    soft, _ = resource.getrlimit(resource_id)
    return None if soft == resource.RLIM_INFINITY else soft


def shared_memory(facts: MemoryFacts) -> Finding:
    """Dataloader workers pass batches through /dev/shm; if it is full they die of a bus error."""
    fix = "docker run --shm-size=8g or --ipc=host; Kubernetes: an emptyDir with medium: Memory at /dev/shm"
    if facts.shm is None:
        return warning("/dev/shm cannot be read: dataloader workers cannot pass batches", fix)
    saw = f"/dev/shm has {size(facts.shm)}, {size(facts.shm_free or 0)} free"
    if facts.shm < SHM_MINIMUM:
        return warning(f"{saw}: dataloader workers may die of a bus error", fix)
    if facts.shm_free is not None and facts.shm_free < SHM_MINIMUM // 4:
        return warning(saw, "Remove files that dead processes left in /dev/shm.")
    return ok(saw)


def memory(facts: MemoryFacts) -> Finding:
    total = "unknown" if facts.total is None else size(facts.total)
    if facts.limit is None or (facts.total is not None and facts.limit >= facts.total):
        return ok(f"{total}, no limit of a control group")
    saw = f"limited to {size(facts.limit)} of {total} by the control group"
    if facts.used is None:
        return ok(saw)
    saw += f", {size(facts.used)} used"
    if facts.limit - facts.used < MEMORY_MINIMUM:
        return warning(saw, "Raise the limit (docker --memory, Kubernetes resources.limits.memory, Slurm --mem).")
    return ok(saw)


def open_files(facts: MemoryFacts) -> Finding:
    needed = max(FILES_MINIMUM, FILES_PER_RANK * facts.world_size + 256)
    if facts.open_files is None or facts.open_files >= needed:
        return ok("unlimited" if facts.open_files is None else f"{facts.open_files}")
    why = f"rank 0 of {facts.world_size} needs about {needed}" if needed > FILES_MINIMUM else f"{needed} are usual"
    return warning(f"{facts.open_files} ({why})", "ulimit -n 65536")


def locked_memory(facts: MemoryFacts) -> Finding:
    """RDMA registers its buffers as locked memory."""
    if not facts.infiniband:
        return not_applicable("no InfiniBand or RoCE adapter")
    if facts.memlock is None:
        return ok(f"unlimited, for {', '.join(facts.infiniband)}")
    return warning(
        f"{size(facts.memlock)}, with {', '.join(facts.infiniband)}: NCCL cannot register its buffers",
        "ulimit -l unlimited; docker run --ulimit memlock=-1; Slurm: PropagateResourceLimitsExcept=MEMLOCK",
    )


GROUP = CheckGroup(
    probe,
    (
        ("shared memory", shared_memory),
        ("memory", memory),
        ("open files", open_files),
        ("locked memory", locked_memory),
    ),
)
