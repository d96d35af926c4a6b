"""Checks the folder of the offline queue, which keeps the requests of an outage."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pluto_dist.doctor.finding import CheckGroup, Finding, Machine, ok, problem, size, warning
from pluto_dist.inventory.probes import disks
from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.settings.settings import spool_folder

NETWORK_FILESYSTEMS = (
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
FREE_WARNING, FREE_PROBLEM = 1 << 30, 64 << 20  # bytes; one request may be 64 MiB
SET_FOLDER = "Set PLUTO_DIR to a writable folder on a disk of this machine."


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """The folder of the offline queue.

    Attributes:
        folder: ``None`` if it cannot be determined.
        refused: why no file can be created in it; ``None`` if one can.
        free: bytes.
        filesystem: type of the filesystem.
    """

    folder: Path | None
    refused: str | None = None
    free: int | None = None
    filesystem: str | None = None


def _queue_folder(environ: Mapping[str, str]) -> Path | None:
    chosen = environ.get("PLUTO_DIR")
    return spool_folder(environ, Path(chosen) if chosen else None)


def probe(machine: Machine) -> DiskFacts:
    folder = _queue_folder(machine.environ)
    if folder is None:
        return DiskFacts(None)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:  # has no name, so nothing is left behind
            file.write(b"\0")
        refused = None
    except OSError as error:
        refused = f"{existing}: {error.strerror}"
    status = value_or_none(lambda: os.statvfs(existing))
    free = None if status is None else status.f_bavail * status.f_frsize
    return DiskFacts(folder, refused, free, value_or_none(lambda: disks.filesystem_type(existing, machine.root)))


def queue_folder(facts: DiskFacts) -> Finding:
    if facts.folder is None or facts.refused:
        why = f"{facts.folder} cannot be written ({facts.refused})" if facts.folder else "no folder: HOME is not set"
        return problem(why, SET_FOLDER)
    kind = facts.filesystem or "an unknown filesystem"
    saw = f"{facts.folder} on {kind}" + ("" if facts.free is None else f", {size(facts.free)} free")
    if facts.free is not None and facts.free < FREE_WARNING:
        finding = problem if facts.free < FREE_PROBLEM else warning
        return finding(saw, f"Free {size(FREE_WARNING)}, or set PLUTO_DIR to a folder on another disk.")
    if kind in ("tmpfs", "ramfs"):
        return warning(f"{saw}: lost when this machine restarts", SET_FOLDER)
    is_shared = kind.startswith(NETWORK_FILESYSTEMS)
    return ok(f"{saw}: a network file system, one folder for all nodes" if is_shared else saw)


GROUP = CheckGroup(probe, (("disk for an outage", queue_folder),), f"The file system hangs. {SET_FOLDER}")
