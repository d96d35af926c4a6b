"""The requests of one run that wait on disk: added, listed in order, locked, removed, set aside."""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from pluto_dist import private_files
from pluto_dist.client.offline.entry import Entry, in_order
from pluto_dist.contract.run_ref import RunName

SPOOL_LIMIT = 256 << 20  # bytes; beyond it only creates and ends are kept, up to twice as much
FILE_LIMIT = 64 << 20  # bytes
SET_ASIDE = "set-aside"
LOCK = ".lock"
_NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class RunQueue:
    """The requests of one run that no tracker has taken.

    Args:
        root: the spool's folder; ``None`` keeps requests in memory, for as long as this process lives.
        name: the run.

    Attributes:
        aside: how many files this object has set aside.
        warnings: what to say of the disk, or of a file.
    """

    def __init__(self, root: Path | None, name: RunName) -> None:
        self.name = name
        self.folder = None if root is None else root / name.folder
        self.warnings: list[str] = []
        self._memory: list[Entry] = []
        self._sent: set[Path] = set()  # by this process, which cannot remove them
        self._root = root
        self.aside = 0

    def enqueue(self, entry: Entry) -> bool:
        """Keep ``entry`` on disk, or in memory if the disk does not take it; whether it is on disk."""
        try:
            if self.folder is None or self._root is None:
                raise OSError("there is no folder for it: set PLUTO_DIR, or HOME")
            if _size(self._root) > SPOOL_LIMIT * (1 if entry.kind == "config" else 2):
                raise OSError(f"{self._root} has reached its limit of {SPOOL_LIMIT >> 20} MiB: run pluto-dist sync")
            _write(self.folder, entry)
        except OSError as error:
            self.warnings.append(error.strerror or str(error))
            self._memory.append(entry)
            return False
        return True

    @property
    def is_empty(self) -> bool:
        return not self._memory and not (self.folder is not None and any(_files(self.folder)))

    def holds(self, launch: str) -> bool:
        """Whether requests of a launch, named by its token, wait."""
        return any(entry.launch == launch for entry, _ in self.entries())

    def has_set_aside(self, launch: str) -> bool:
        """Whether requests of a launch were set aside."""
        for file in () if self.folder is None else _files(self.folder / SET_ASIDE):
            with suppress(ValueError, OSError):  # what cannot be read was set aside for that
                if _read(file).launch == launch:
                    return True
        return False

    def entries(self) -> list[tuple[Entry, Path | None]]:
        """The entries in the order in which they are to be sent, each with its file; other files are set aside."""
        found: dict[int, tuple[Entry, Path | None]] = {id(entry): (entry, None) for entry in self._memory}
        for file in () if self.folder is None else sorted(set(_files(self.folder)) - self._sent):
            try:
                entry = _read(file)
                if entry.run != self.name:
                    raise ValueError("it is of another run")
            except FileNotFoundError:
                continue  # sent by another process meanwhile
            except (ValueError, OSError) as error:
                if isinstance(error, ValueError) or not private_files.may_be_own(file):
                    self.set_aside(file, error)
                elif error.errno not in _NO_RESOURCES:  # the request may be as it should be, and is for a later time
                    self.warnings.append(f"{file} cannot be read ({error.strerror}), and stays for `pluto-dist sync`")
            else:
                found[id(entry)] = (entry, file)
        return [found[id(entry)] for entry in in_order([entry for entry, _ in found.values()])]

    def remove(self, entry: Entry, file: Path | None) -> None:
        """Remove an entry that a tracker has taken."""
        if file is None:
            self._memory.remove(entry)
            return
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            self._sent.add(file)
            self.warnings.append(f"{file} was sent, and cannot be removed ({error.strerror}); it will be sent again")

    def set_aside(self, file: Path, why: object) -> None:
        """Move a file that cannot be sent to a folder where a person can look at it."""
        aside = file.parent / SET_ASIDE
        self.aside += 1
        with suppress(OSError):  # a file of another user's that cannot be moved stays
            private_files.make_folder(aside)
            file.rename(aside / file.name)
        self.warnings.append(f"{file} cannot be sent: {why}; it is set aside in {aside}")

    @contextmanager
    def locked(self, seconds: float) -> Iterator[bool]:
        """Hold the lock of the run, which one sender at a time has; whether it was free within ``seconds``."""
        descriptor, is_mine = None, True
        try:
            if self.folder is not None and self.folder.is_dir():
                descriptor = private_files.lock(self.folder / LOCK, time.monotonic() + seconds)
                is_mine = descriptor is not None
        except OSError as error:  # no lock can be made here: every sender has it, as on a filesystem without locks
            is_mine = error.errno not in _NO_RESOURCES  # else what is kept stays
        try:
            yield is_mine
        finally:
            if descriptor is not None and self.folder is not None:
                self._tidy(self.folder)
                private_files.unlock(descriptor)

    def _tidy(self, folder: Path) -> None:
        """Remove drafts of killed writers, and the folder itself once it is empty."""
        with suppress(OSError):  # another process does the same, or a file of somebody else's is in it
            private_files.remove_stale_drafts(folder)
            if {file.name for file in folder.iterdir()} <= {LOCK}:
                (folder / LOCK).unlink()
                folder.rmdir()


def runs(root: Path) -> list[RunQueue]:
    """The runs of which requests wait in ``root``, the longest waiting first.

    Raises:
        OSError: ``root`` is not a folder of this user's.
    """
    found = []
    for folder in private_files.own_folders(root):
        for file in sorted(_files(folder)):
            with suppress(ValueError, OSError):  # the next file names the run; `entries` sets this one aside
                name = _read(file).run
                if name.folder == folder.name:
                    found.append((file.name, RunQueue(root, name)))
                    break
    return [queue for _, queue in sorted(found, key=lambda each: each[0])]


def foreign(root: Path) -> list[Path]:
    """What is in ``root`` and is not a folder of this user's; links are listed, and never followed."""
    ours = set(private_files.own_folders(root))
    return sorted(path for path in root.iterdir() if path not in ours)


def _read(file: Path) -> Entry:
    """The entry in ``file``.

    Raises:
        ValueError: the content is not an entry.
        OSError: the file cannot be read, or is not this user's alone.
    """
    try:
        return Entry.from_json(json.loads(private_files.read(file, FILE_LIMIT)))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _write(folder: Path, entry: Entry) -> None:
    content = json.dumps(entry.to_json()).encode()
    if len(content) > FILE_LIMIT:
        raise OSError(f"a request of {len(content)} bytes is too large to be kept")
    host = quote(socket.gethostname(), safe="", errors="replace")[:64]
    name = f"{entry.at:016d}-{host}-{os.getpid()}-{secrets.token_hex(8)}.json"
    for _ in range(10):
        with suppress(FileNotFoundError):  # a sync that found the folder empty has just removed it
            private_files.make_folder(folder.parent)
            private_files.make_folder(folder)
            private_files.write(folder / name, content, durable=True)
            return
    raise OSError(f"{folder} is removed again and again")


def _files(folder: Path) -> Iterator[Path]:
    # All was sent, and the folder removed; there is none, since nothing can be kept; or the disk has failed.
    with suppress(OSError):
        yield from (file for file in folder.iterdir() if not file.name.startswith(".") and file.name != SET_ASIDE)


def _size(root: Path) -> int:
    """Bytes of all that waits in ``root``."""
    total = 0
    with suppress(OSError):  # there is nothing yet, or a file was removed meanwhile
        for folder in private_files.own_folders(root):
            with os.scandir(folder) as files:
                total += sum(each.stat(follow_symlinks=False).st_size for each in files)
    return total
