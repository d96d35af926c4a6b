"""Runs code in a fresh interpreter with warnings as errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pluto_dist


def python(code: str, *flags: str) -> str:
    """The standard output of ``code``."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *flags, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(pluto_dist.__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
