"""Size and type of the filesystem of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePath

from pluto_dist.inventory.probes.cgroups import Mount, parse_mountinfo
from pluto_dist.serialization.codec import LARGEST_INTEGER
from pluto_dist.serialization.text import record_text


def filesystem_size(folder: Path) -> int | None:
    """Total bytes of the filesystem of ``folder``; ``None`` if it reports no real size (EFS: 8 EiB)."""
    status = os.statvfs(folder)
    total = status.f_frsize * status.f_blocks
    return total if 0 < total <= LARGEST_INTEGER else None


def filesystem_type(folder: Path, root: Path = Path("/")) -> str | None:
    """The kernel's name of the type of the filesystem of ``folder``: "ext4", "nfs4", "lustre"."""
    mountinfo = (root / "proc/self/mountinfo").read_text("utf-8", "replace")
    mount = mount_of(PurePath(os.path.realpath(folder)), parse_mountinfo(mountinfo))
    return record_text(mount.type) if mount else None


def mount_of(folder: PurePath, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that contains ``folder``, an absolute path: the innermost; of several at one mount point the last.

    >>> root, home = Mount("/", "/", "ext4", ()), Mount("/", "/home", "nfs4", ())
    >>> mount_of(PurePath("/home/me"), [root, home]).type, mount_of(PurePath("/homework"), [root, home]).type
    ('nfs4', 'ext4')
    """
    containing = [mount for mount in mounts if folder.is_relative_to(mount.point)]
    return max(reversed(containing), key=lambda mount: len(PurePath(mount.point).parts), default=None)
