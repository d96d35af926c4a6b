"""How much fits where the run writes? The filesystem of its folder, and shared memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePath

from pluto_dist.inventory.probes.cgroups import Mount, mounts
from pluto_dist.serialization.codec import LARGEST_INTEGER
from pluto_dist.serialization.text import clean_text


def size(folder: Path) -> int | None:
    """Bytes of the filesystem of ``folder``, free or not; ``None`` where they are without number (EFS: 8 EiB)."""
    found = os.statvfs(folder)
    total = found.f_frsize * found.f_blocks
    return total if 0 < total <= LARGEST_INTEGER else None


def type_of(folder: Path, root: Path = Path("/")) -> str | None:
    """The type of the filesystem of ``folder``, as the kernel names it: "ext4", "nfs4", "lustre"."""
    mountinfo = (root / "proc/self/mountinfo").read_text("utf-8", "replace")
    mount = holding(PurePath(os.path.realpath(folder)), mounts(mountinfo))
    return clean_text(mount.type) if mount else None


def holding(folder: PurePath, mounted: Iterable[Mount]) -> Mount | None:
    """The mount that ``folder``, an absolute path, is in: the innermost, and of several there the last.

    >>> here, there = Mount("/", "/", "ext4", ()), Mount("/", "/home", "nfs4", ())
    >>> holding(PurePath("/home/me"), [here, there]).type, holding(PurePath("/homework"), [here, there]).type
    ('nfs4', 'ext4')
    """
    inside = [mount for mount in mounted if folder.is_relative_to(mount.point)]
    return max(reversed(inside), key=lambda mount: len(PurePath(mount.point).parts), default=None)
