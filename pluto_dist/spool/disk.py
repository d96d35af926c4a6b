"""Files and folders that only this user writes: made whole, read with suspicion, locked.

A link is never followed, and what another user could have written is never believed.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from pluto_dist.spool.entry import Entry

FILE_LIMIT = 64 << 20  # bytes
SET_ASIDE = "set-aside"
LOCK, DRAFT = ".lock", ".draft-"
STALE_SECONDS = 3600.0


def read(file: Path) -> Entry:
    """The entry in ``file``.

    Raises:
        ValueError: there is none in it, or it is another user's.
        OSError: it cannot be read, or is a link.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as opened:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise ValueError("it is not a file that only this user writes")
        if found.st_size > FILE_LIMIT:
            raise ValueError(f"it has {found.st_size} bytes; at most {FILE_LIMIT} are read")
        content = opened.read(FILE_LIMIT)
    try:
        return Entry.from_json(json.loads(content))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def write(folder: Path, entry: Entry) -> None:
    content = json.dumps(entry.to_json()).encode()
    if len(content) > FILE_LIMIT:
        raise OSError(f"a request of {len(content)} bytes is too large to be kept")
    name = f"{entry.at:016d}-{quote(socket.gethostname(), safe='')[:64]}-{os.getpid()}-{secrets.token_hex(8)}.json"
    for _ in range(10):
        with suppress(FileNotFoundError):  # a sync that found the folder empty has just removed it
            make(folder.parent)
            make(folder)
            _put(folder, name, content)
            return
    raise OSError(f"{folder} is removed again and again")


def _put(folder: Path, name: str, content: bytes) -> None:
    draft = folder / f"{DRAFT}{secrets.token_hex(8)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(descriptor)
        draft.rename(folder / name)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def make(folder: Path) -> None:
    """Make ``folder`` and what is above it, of mode 0700; refuse one that is not this user's alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise OSError(f"{folder} is not a folder that only this user writes")


def folders(root: Path) -> list[Path]:
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise OSError(f"{root} is not a folder of this user's")
    with os.scandir(root) as inside:
        return [
            Path(each.path)
            for each in inside
            if each.is_dir(follow_symlinks=False) and each.stat(follow_symlinks=False).st_uid == os.getuid()
        ]


def files(folder: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError):  # sent, and the folder removed
        yield from (file for file in folder.iterdir() if not file.name.startswith(".") and file.name != SET_ASIDE)


def size(root: Path) -> int:
    total = 0
    with suppress(OSError):  # nothing there yet, or a file went meanwhile
        for folder in folders(root):
            with os.scandir(folder) as files:
                total += sum(each.stat(follow_symlinks=False).st_size for each in files)
    return total


def lock(file: Path, until: float) -> int | None:
    """A descriptor that holds the lock on ``file``; ``None`` where another process held it until ``until``."""
    import fcntl

    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            return None  # the folder is gone: everything in it has been sent
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() > until:
                return None
            time.sleep(0.05)
            continue
        except OSError:
            return descriptor  # this filesystem knows no locks
        with suppress(OSError):
            if file.lstat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # a lock on a file that another process has removed since
