"""How much of the machine may this process use? The limits of its cgroup and of those above it, v1 and v2.

A container that sees 224 cores may be allowed 8. Both versions can be mounted at once, each with some of the
controllers (systemd's hybrid mode), so both are read and the smallest limit holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.serialization.codec import LARGEST_INTEGER

MEMORY_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""What a cgroup allows and what it uses, v2 and v1."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``None`` is no limit.

    Attributes:
        cpus: cores' worth of time.
        memory: bytes.
        memory_used: bytes that are in use of those, page cache included.
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
    """The super block's: of cgroup v1, its controllers."""


def limits(root: Path = Path("/")) -> Limits:
    """The limits of this process; those of the machine whose files are under ``root``."""
    mounted = value_or_none(lambda: mounts((root / "proc/self/mountinfo").read_text("utf-8", "replace"))) or ()
    places = value_or_none(lambda: membership((root / "proc/self/cgroup").read_text("utf-8", "replace"))) or {}
    of_cpu, of_memory = (list(_folders(root, mounted, places, name)) for name in ("cpu", "memory"))
    cpus = [value_or_none(partial(read, folder)) for folder in of_cpu for read in (_cpus_v2, _cpus_v1)]
    memory = [
        (limit, folder / used)
        for folder in of_memory
        for allowed, used in MEMORY_FILES
        if (limit := value_or_none(partial(_bytes, folder / allowed))) is not None
    ]
    narrowest, used = min(memory, key=lambda found: found[0], default=(None, None))
    return Limits(
        min((each for each in cpus if each is not None), default=None),
        narrowest,
        None if used is None else value_or_none(partial(_bytes, used)),
    )


def mounts(mountinfo: str) -> tuple[Mount, ...]:
    r"""The mounts, in the kernel's order; a later one hides an earlier one at the same point.

    >>> mounts("35 31 0:32 / /sys/fs/cgroup/memory\\040x rw,relatime - cgroup cgroup rw,memory")
    (Mount(root='/', point='/sys/fs/cgroup/memory x', type='cgroup', options=('rw', 'memory')),)
    """
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, more = before.split(" "), after.split(" ")
        if len(fields) >= 5 and len(more) >= 3:
            found.append(Mount(_plain(fields[3]), _plain(fields[4]), more[0], tuple(more[2].split(","))))
    return tuple(found)


def membership(cgroup: str) -> dict[str, str]:
    """The path of this process by controller; under "" that of cgroup v2.

    >>> membership("4:cpu,cpuacct:/docker/7f\\n0::/init.scope\\n")
    {'cpu': '/docker/7f', 'cpuacct': '/docker/7f', '': '/init.scope'}
    """
    fields = (line.split(":", 2) for line in cgroup.splitlines())
    return {name: each[2] for each in fields if len(each) == 3 for name in each[1].split(",")}


def _plain(text: str) -> str:
    """mountinfo writes blanks and backslashes in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _folders(root: Path, mounted: Iterable[Mount], places: dict[str, str], controller: str) -> Iterator[Path]:
    """The folders of this process's cgroups that ``controller`` may be in, from its own one upward."""
    for mount in mounted:
        is_v1 = mount.type == "cgroup" and controller in mount.options
        place = places.get(controller if is_v1 else "") if is_v1 or mount.type == "cgroup2" else None
        if place is None:
            continue
        # In a container the mount's root is its own cgroup; without a namespace the path still is the host's.
        path = PurePosixPath(place)
        inner = path.relative_to(mount.root) if path.is_relative_to(mount.root) else PurePosixPath()
        top = root / mount.point.lstrip("/")
        for part in (inner, *inner.parents):
            if ".." not in part.parts:
                yield top / part


def _cpus_v2(folder: Path) -> float | None:
    quota, period = (folder / "cpu.max").read_text().split()  # "max 100000", "200000 100000"
    return None if quota == "max" else int(quota) / int(period)


def _cpus_v1(folder: Path) -> float | None:
    quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    return quota / period if quota > 0 else None  # -1: no limit


def _bytes(file: Path) -> int | None:
    words = file.read_text().strip()  # v1 writes its largest number of pages for no limit
    return None if words == "max" or int(words) > LARGEST_INTEGER else int(words)
