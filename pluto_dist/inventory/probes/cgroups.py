"""CPU and memory limits of this process's cgroup and of those above it, cgroup v1 and v2.

A container that sees 224 cores may be limited to 8. Both versions can be mounted at once, each with some of the
controllers (systemd's hybrid mode), so both are read and the smallest limit applies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath

from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.serialization.codec import LARGEST_INTEGER

MEMORY_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""Files with the limit and the usage of a cgroup, v2 and v1."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``None`` means no limit.

    Attributes:
        cpus: CPU time in cores.
        memory: bytes.
        memory_used: bytes in use of ``memory``, page cache included.
    """

    cpus: float | None = None
    memory: int | None = None
    memory_used: int | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo (proc_pid_mountinfo(5))."""

    root: str
    """The folder of the filesystem that is mounted."""
    point: str
    type: str
    options: tuple[str, ...]
    """Options of the superblock; for cgroup v1 they contain the controllers."""


def limits(root: Path = Path("/")) -> Limits:
    """The limits of this process; those of a recorded machine if its files are below ``root``."""
    cpus = [
        value_or_none(partial(read, folder))
        for folder in chain.from_iterable(controller_folders("cpu", root))
        for read in (_cpus_v2, _cpus_v1)
    ]
    memory = [
        (limit, folder / usage_file)
        for folder in chain.from_iterable(controller_folders("memory", root))
        for limit_file, usage_file in MEMORY_FILES
        if (limit := value_or_none(partial(_bytes, folder / limit_file))) is not None
    ]
    smallest, usage = min(memory, key=lambda found: found[0], default=(None, None))
    return Limits(
        min((each for each in cpus if each is not None), default=None),
        smallest,
        None if usage is None else value_or_none(partial(_bytes, usage)),
    )


def controller_folders(controller: str, root: Path = Path("/")) -> Iterator[tuple[Path, ...]]:
    """For each mounted hierarchy that may have ``controller``, the folders from this process's own cgroup upward.

    In hybrid mode both hierarchies are listed. A listed folder need not exist: without a cgroup namespace a container
    has the host's path, of which it sees only a part.

    Args:
        controller: "cpu" or "memory".
        root: the folder that contains /proc and /sys; another one for recorded machines.
    """
    mounts = value_or_none(lambda: parse_mountinfo((root / "proc/self/mountinfo").read_text("utf-8", "replace")))
    paths = value_or_none(lambda: parse_cgroup((root / "proc/self/cgroup").read_text("utf-8", "replace"))) or {}
    for mount in _standard_mounts(controller) if mounts is None else mounts:
        is_v1 = mount.type == "cgroup" and controller in mount.options
        cgroup = paths.get(controller if is_v1 else "") if is_v1 or mount.type == "cgroup2" else None
        if cgroup is None:
            continue
        # In a container the mount's root is its own cgroup; without a cgroup namespace the path is still the host's.
        path = PurePosixPath(cgroup)
        inner = path.relative_to(mount.root) if path.is_relative_to(mount.root) else PurePosixPath()
        top = root / mount.point.lstrip("/")
        yield tuple(top / part for part in (inner, *inner.parents) if ".." not in part.parts)


def _standard_mounts(controller: str) -> tuple[Mount, ...]:
    """Where systemd mounts cgroups: v2, v2 in hybrid mode, v1."""
    folder = "/sys/fs/cgroup"
    unified = (Mount("/", point, "cgroup2", ()) for point in (folder, f"{folder}/unified"))
    return (*unified, Mount("/", f"{folder}/{controller}", "cgroup", (controller,)))


def parse_mountinfo(mountinfo: str) -> tuple[Mount, ...]:
    r"""The mounts in the kernel's order; a later one hides an earlier one at the same mount point.

    >>> parse_mountinfo("35 31 0:32 / /sys/fs/cgroup/memory\\040x rw,relatime - cgroup cgroup rw,memory")
    (Mount(root='/', point='/sys/fs/cgroup/memory x', type='cgroup', options=('rw', 'memory')),)
    """
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, more = before.split(" "), after.split(" ")
        if len(fields) >= 5 and len(more) >= 3:
            found.append(Mount(_unescaped(fields[3]), _unescaped(fields[4]), more[0], tuple(more[2].split(","))))
    return tuple(found)


def parse_cgroup(cgroup: str) -> dict[str, str]:
    """The path of this process's cgroup for each v1 controller, and under "" that of cgroup v2.

    >>> parse_cgroup("4:cpu,cpuacct:/docker/7f\\n0::/init.scope\\n")
    {'cpu': '/docker/7f', 'cpuacct': '/docker/7f', '': '/init.scope'}
    """
    fields = (line.split(":", 2) for line in cgroup.splitlines())
    return {name: each[2] for each in fields if len(each) == 3 for name in each[1].split(",")}


def _unescaped(text: str) -> str:
    """``text`` of mountinfo, which escapes blanks and backslashes in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _cpus_v2(folder: Path) -> float | None:
    quota, period = (folder / "cpu.max").read_text().split()  # "max 100000", "200000 100000"
    return None if quota == "max" else int(quota) / int(period)


def _cpus_v1(folder: Path) -> float | None:
    quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    return quota / period if quota > 0 else None  # -1: no limit


def _bytes(file: Path) -> int | None:
    text = file.read_text().strip()  # without a limit, v1 has its largest number of pages
    return None if text == "max" or int(text) > LARGEST_INTEGER else int(text)
