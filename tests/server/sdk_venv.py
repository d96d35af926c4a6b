"""The official SDK in a virtual environment of its own, made once per machine and Python version.

It never stands beside this package: its import hook costs every start of Python in its environment.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

VERSION = "0.0.29"  # the newest one that these tests were run with
_MAKING_S = 150


def python_with_sdk() -> Path:
    """The interpreter that can import the SDK; without one the test is skipped, and fails in CI."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pluto-dist"
    folder = cache / f"sdk-{VERSION}-py{sys.version_info.major}.{sys.version_info.minor}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "sdk.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of several test processes one makes it
            _make(folder)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or b""
        why = f"no virtual environment with pluto-ml=={VERSION} at {folder}: {error} {said.decode()[-500:]}"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(
            f"{why}\nTo enable: {sys.executable} -m venv {folder} && {folder}/bin/pip install pluto-ml=={VERSION}"
        )
    return folder / "bin" / "python"


def _make(folder: Path) -> None:
    python = folder / "bin" / "python"
    check = [python, "-c", f"import importlib.metadata as m; assert m.version('pluto-ml') == '{VERSION}'"]
    if python.exists() and subprocess.run(check, capture_output=True, timeout=60, check=False).returncode == 0:
        return
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"pluto-ml=={VERSION}"]
    subprocess.run(install, capture_output=True, timeout=_MAKING_S, check=True)
    subprocess.run(check, capture_output=True, timeout=60, check=True)
