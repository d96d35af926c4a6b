"""Can an outage's requests be kept on disk?"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pluto_dist.doctor.family import Family, Machine
from pluto_dist.doctor.finding import Finding, ok, problem, size, warning
from pluto_dist.inventory.probes import disks
from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.settings.settings import spool_folder

NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "ceph",
    "gpfs",
    "beegfs",
    "glusterfs",
    "wekafs",
    "9p",
    "fuse",
    "afs",
    "orangefs",
)
LITTLE, TOO_LITTLE = 1 << 30, 64 << 20  # bytes; one request may be 64 MiB
ELSEWHERE = "Set PLUTO_DIR to a folder on a disk of this machine that you may write to."


@dataclass(frozen=True, slots=True)
class DiskSeen:
    """Attributes: ``folder`` is ``None`` where none is known; ``refused`` is why no file can be made in it."""

    folder: Path | None
    refused: str | None = None
    free: int | None = None
    filesystem: str | None = None


def _spool(environ: Mapping[str, str]) -> Path | None:
    """Where a job of this environment keeps what an outage leaves."""
    chosen = environ.get("PLUTO_DIR")
    return spool_folder(environ, Path(chosen) if chosen else None)


def look(machine: Machine) -> DiskSeen:
    folder = _spool(machine.environ)
    if folder is None:
        return DiskSeen(None)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:  # has no name, and leaves nothing behind
            file.write(b"\0")
        refused = None
    except OSError as error:
        refused = f"{there}: {error.strerror}"
    status = value_or_none(lambda: os.statvfs(there))
    free = None if status is None else status.f_bavail * status.f_frsize
    return DiskSeen(folder, refused, free, value_or_none(lambda: disks.type_of(there, machine.root)))


def spool(seen: DiskSeen) -> Finding:
    if seen.folder is None or seen.refused:
        why = f"{seen.folder} cannot be written ({seen.refused})" if seen.folder else "no folder: HOME is not set"
        return problem(why, ELSEWHERE)
    kind = seen.filesystem or "an unknown filesystem"
    saw = f"{seen.folder} on {kind}" + ("" if seen.free is None else f", {size(seen.free)} free")
    if seen.free is not None and seen.free < LITTLE:
        judged = problem if seen.free < TOO_LITTLE else warning
        return judged(saw, f"Free {size(LITTLE)}, or set PLUTO_DIR to a folder on another disk.")
    if kind in ("tmpfs", "ramfs"):
        return warning(f"{saw}: gone with this machine's memory", ELSEWHERE)
    return ok(f"{saw}: a network file system, one folder for all nodes" if kind.startswith(NETWORK) else saw)


FAMILY = Family(look, (("disk for an outage", spool),), f"The file system hangs. {ELSEWHERE}")
