"""All that is kept of one run, by whatever process: added, listed, locked, sent, set aside."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pluto_dist.spool import disk
from pluto_dist.spool.entry import Entry, RunName, in_order

SPOOL_LIMIT = 256 << 20  # bytes; beyond it only creates and ends are kept, up to twice as much


class RunSpool:
    """What is kept of one run.

    Args:
        root: the spool's folder, or ``None``: what is kept is then kept in memory, for as long as this process lives.
        name: the run.
    """

    def __init__(self, root: Path | None, name: RunName) -> None:
        self.name = name
        self.folder = None if root is None else root / name.folder
        self.warnings: list[str] = []
        self._memory: list[Entry] = []
        self._root = root

    def keep(self, entry: Entry) -> bool:
        """Keep ``entry``: on disk, or in memory where the disk does not take it; whether it is on disk."""
        try:
            if self.folder is None or self._root is None:
                raise OSError("there is no folder for it: set PLUTO_DIR, or HOME")
            if disk.size(self._root) > SPOOL_LIMIT * (1 if entry.kind == "config" else 2):
                raise OSError(f"{self._root} has reached its limit of {SPOOL_LIMIT >> 20} MiB: run pluto-dist sync")
            disk.write(self.folder, entry)
        except OSError as error:
            self.warnings.append(error.strerror or str(error))
            self._memory.append(entry)
            return False
        return True

    @property
    def is_empty(self) -> bool:
        return not self._memory and not (self.folder is not None and any(disk.files(self.folder)))

    def entries(self) -> list[tuple[Entry, Path | None]]:
        """What is kept, in order, with the file that it is in; a file that is no entry is set aside."""
        found: dict[int, tuple[Entry, Path | None]] = {id(entry): (entry, None) for entry in self._memory}
        for file in () if self.folder is None else sorted(disk.files(self.folder)):
            try:
                entry = disk.read(file)
                if entry.run != self.name:
                    raise ValueError("it is of another run")
            except FileNotFoundError:
                continue  # sent by another process meanwhile
            except (ValueError, OSError) as error:
                self.set_aside(file, error)
            else:
                found[id(entry)] = (entry, file)
        return [found[id(entry)] for entry in in_order([entry for entry, _ in found.values()])]

    def drop(self, entry: Entry, file: Path | None) -> None:
        """Forget an entry that a tracker has taken."""
        if file is None:
            self._memory.remove(entry)
        else:
            file.unlink(missing_ok=True)

    def set_aside(self, file: Path, why: object) -> None:
        """Move what cannot be sent out of the way, where a person can look at it."""
        aside = file.parent / disk.SET_ASIDE
        with suppress(OSError):  # a foreign file in a folder of ours that cannot be moved stays
            disk.make(aside)
            file.rename(aside / file.name)
        self.warnings.append(f"{file} cannot be sent: {why}; it is set aside in {aside}")

    @contextmanager
    def locked(self, seconds: float) -> Iterator[bool]:
        """Be the only process that sends what is kept of this run; whether that was to be had in ``seconds``.

        The lock is the kernel's, and ends with the process. Over NFS it holds between hosts (Linux 2.6.12 on); a
        filesystem without locks (Lustre mounted without -o flock) lets everybody in.
        """
        if self.folder is None or not self.folder.is_dir():
            yield True
            return
        descriptor = disk.lock(self.folder / disk.LOCK, time.monotonic() + seconds)
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                self._tidy(self.folder)
                os.close(descriptor)

    def _tidy(self, folder: Path) -> None:
        """Remove what killed writers left, and the folder itself once nothing is in it."""
        with suppress(OSError):  # another process is at it, or something of somebody's is in it
            for file in folder.glob(f"{disk.DRAFT}*"):
                if file.lstat().st_mtime < time.time() - disk.STALE_SECONDS:
                    file.unlink()
            if {file.name for file in folder.iterdir()} <= {disk.LOCK}:
                (folder / disk.LOCK).unlink()
                folder.rmdir()


def runs(root: Path) -> list[RunSpool]:
    """The runs of which something is kept in ``root``, the longest waiting first.

    Raises:
        OSError: ``root`` is no folder of this user's.
    """
    found = []
    for folder in disk.folders(root):
        for file in sorted(disk.files(folder)):
            with suppress(ValueError, OSError):  # the next file names the run; `entries` sets this one aside
                name = disk.read(file).run
                if name.folder == folder.name:
                    found.append((file.name, RunSpool(root, name)))
                    break
    return [spooled for _, spooled in sorted(found, key=lambda each: each[0])]


def foreign(root: Path) -> list[Path]:
    """What stands in ``root`` and is no folder of this user's; links are named, and never followed."""
    ours = set(disk.folders(root))
    return sorted(path for path in root.iterdir() if path not in ours)
