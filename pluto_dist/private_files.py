"""Files and folders that only this user can write: written whole, read without following links, locked.

Used wherever this package keeps something between processes. A file appears under its name with all of its content,
or not at all. What another user could have written is not read.
"""

from __future__ import annotations

import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DRAFT_PREFIX = ".draft-"
STALE_DRAFT_SECONDS = 3600.0


class NotPrivateError(OSError):
    """A file or folder that another user owns or can write, or that is a link or a device."""


def is_private(folder: Path) -> bool:
    """Whether ``folder`` is a folder of this user's that nobody else can enter."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077


def make_folder(folder: Path) -> None:
    """Make ``folder`` and its parents with mode 0700.

    Raises:
        NotPrivateError: it exists, and is not a folder that only this user can write.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise NotPrivateError(f"{folder} is not a folder that only this user writes")


def own_folders(root: Path) -> list[Path]:
    """The folders of this user directly in ``root``; links are left out.

    Raises:
        NotPrivateError: ``root`` is not a folder of this user's.
    """
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise NotPrivateError(f"{root} is not a folder of this user's")
    with os.scandir(root) as inside:
        return [
            Path(each.path)
            for each in inside
            if each.is_dir(follow_symlinks=False) and each.stat(follow_symlinks=False).st_uid == os.getuid()
        ]


def read(file: Path, limit: int) -> bytes:
    """The content of ``file``, at most ``limit`` bytes.

    Raises:
        NotPrivateError: it is not a regular file that only this user can write.
        ValueError: it is longer than ``limit``.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as opened:
        found = os.fstat(descriptor)
        if not _is_own(found):
            raise NotPrivateError("it is not a file that only this user writes")
        if found.st_size > limit:
            raise ValueError(f"it has {found.st_size} bytes; at most {limit} are read")
        return opened.read(limit)


def may_be_own(file: Path) -> bool:
    """Whether ``file`` is a regular file that only this user can write, as far as the disk tells."""
    try:
        return _is_own(file.lstat())
    except OSError:
        return True


def _is_own(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


def write(file: Path, content: bytes, *, durable: bool = False) -> None:
    """Write ``file`` with mode 0600, in place of what was there.

    Args:
        file: its folder exists.
        content: all of it.
        durable: whether to wait until the disk has it (fsync).
    """
    with _draft(file.parent, content, durable=durable) as draft:
        draft.replace(file)


def create(file: Path, content: bytes) -> bool:
    """Write ``file`` unless it exists; whether it was written. Of processes that race, one succeeds."""
    with _draft(file.parent, content, durable=False) as draft:
        try:
            os.link(draft, file)
        except FileExistsError:
            return False
        return True


@contextmanager
def _draft(folder: Path, content: bytes, *, durable: bool) -> Iterator[Path]:
    draft = folder / f"{DRAFT_PREFIX}{secrets.token_hex(8)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
            if durable:
                out.flush()
                os.fsync(descriptor)
        yield draft
    finally:
        with suppress(OSError):  # removed later, see `remove_stale_drafts`
            draft.unlink(missing_ok=True)


def remove_stale_drafts(folder: Path) -> None:
    """Remove drafts that a killed writer left in ``folder`` more than an hour ago."""
    for file in folder.glob(f"{DRAFT_PREFIX}*"):
        if file.lstat().st_mtime < time.time() - STALE_DRAFT_SECONDS:
            file.unlink()


def lock(file: Path, until: float) -> int | None:
    """Take the exclusive lock on ``file``; a descriptor for :func:`unlock`.

    The lock is the kernel's (flock), and ends with the process; a forked child closes its copy. Over NFS it holds
    between hosts (Linux 2.6.12 and later); a filesystem without locks (Lustre mounted without -o flock) gives it to
    every caller.

    Args:
        file: made if it does not exist; its folder is not.
        until: when to give up, on the monotonic clock.

    Returns:
        ``None`` if another process held the lock until then, or the folder does not exist.
    """
    import fcntl

    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            return None
        _held.add(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            unlock(descriptor)
            if time.monotonic() > until:
                return None
            time.sleep(0.05)
            continue
        except OSError:
            return descriptor  # this filesystem has no locks
        if _is_same(file, descriptor):
            return descriptor
        unlock(descriptor)  # a lock on a file that another process has removed since
        if time.monotonic() > until:
            return None


def _is_same(file: Path, descriptor: int) -> bool:
    """Whether the open ``descriptor`` is that of ``file``; True on a disk that has failed meanwhile."""
    try:
        return file.lstat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False
    except OSError:
        return True


def unlock(descriptor: int) -> None:
    """Release the lock, for every copy of ``descriptor`` in other processes; does nothing in a forked child."""
    import fcntl

    if descriptor in _held:
        _held.discard(descriptor)
        with suppress(OSError):  # this filesystem has no locks
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        with suppress(OSError):  # it is closed, whatever a disk that has failed answers
            os.close(descriptor)


def _close_in_child() -> None:
    """Close a forked child's copies: a copy would hold its parent's lock after the parent has ended."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


_held: set[int] = set()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
