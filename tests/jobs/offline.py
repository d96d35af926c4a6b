"""Jobs without their tracker: what they leave in the spool, and the commands that send it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SYNC = [sys.executable, "-c", "from pluto_dist.cli import main; main()", "sync"]


def spool_of(folder: Path) -> Path:
    """The spool of a job whose PLUTO_DIR is ``folder``."""
    return folder / "pluto-dist" / "spool"


def kept(folder: Path) -> list[Path]:
    """The requests that are kept; fails where a file or folder may be read by others, or holds a key."""
    files = [file for file in spool_of(folder).rglob("*") if not file.name.startswith(".")]
    for file in (spool_of(folder), *files) if files else ():
        assert file.stat().st_mode & 0o077 == 0, file
        assert file.is_dir() or "mlps_" not in file.read_text()
    return [file for file in files if file.suffix == ".json"]


def sync(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """``pluto-dist sync ARGUMENTS``, to its end."""
    merged = {**os.environ, **environ}
    return subprocess.run([*SYNC, *arguments], env=merged, capture_output=True, text=True, timeout=300, check=False)


def start_sync(environ: dict[str, str], log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """The same in the background."""
    with log.open("wb") as out:
        return subprocess.Popen([*SYNC, *arguments], env={**os.environ, **environ}, stdout=out, stderr=out)


def ended(run: dict[str, Any]) -> list[str]:
    """The run's status history."""
    return [change["to"] for change in run["statusHistory"]]
