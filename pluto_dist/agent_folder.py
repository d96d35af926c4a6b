"""What the workers of one torchrun agent share on disk.

The agent makes a folder for every attempt, inside one of mode 0700 of its own. A nonce kept there is the same
for all workers of the node in one attempt and another in the next: the only such thing torchrun gives (torch
2.13: the restart count does not rise when another node failed). Nothing else is read or written here.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from pluto_dist.launchers.context import LaunchContext

_NAME = ".pluto_dist_attempt"


def attempt_nonce(context: LaunchContext) -> str:
    """A nonce of this node's attempt, without blanks.

    Where there is no private folder to keep one in (``--log-dir=/dev/null``, another owner), the restart count
    stands in for it. That does not rise when another node failed or joined, so a new attempt is then seen only
    by the nodes whose count rose.
    """
    if context.attempt_folder is not None and (kept := _kept(Path(context.attempt_folder))):
        return kept
    return f"restart-{context.restart_count or 0}"


def _kept(folder: Path) -> str | None:
    if not hasattr(os, "getuid"):
        return None  # Windows: no owner to check
    try:
        agents = folder.parent.lstat()
        if agents.st_uid != os.getuid() or stat.S_IMODE(agents.st_mode) & 0o077:
            return None
        return _first_written(folder / _NAME)
    except OSError:
        return None


def _first_written(path: Path) -> str | None:
    """The content of ``path``, which the first process to come writes; a link makes it appear whole."""
    draft = path.with_name(f"{_NAME}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(8))
    try:
        os.link(draft, path)
    except FileExistsError:
        pass  # another worker of this node was first
    finally:
        draft.unlink()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        nonce = file.read(64).decode("ascii", errors="replace")
    return nonce if nonce.isalnum() else None
