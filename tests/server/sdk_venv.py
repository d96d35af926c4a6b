"""The official SDK in a virtual environment of its own, created once per machine and Python version.

It is not installed beside this package, because its import hook slows down every start of Python.
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

VERSION = "0.0.29"  # the newest version that these tests were run with
_INSTALL_TIMEOUT_S = 150


def python_with_sdk() -> Path:
    """The interpreter that can import the SDK. If it cannot be installed, the test is skipped, or fails in CI."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pluto-dist"
    folder = cache / f"sdk-{VERSION}-py{sys.version_info.major}.{sys.version_info.minor}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "sdk.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one of several test processes creates it
            _create(folder)
    except (OSError, subprocess.SubprocessError) as error:
        stderr = getattr(error, "stderr", None) or b""
        reason = f"no virtual environment with pluto-ml=={VERSION} at {folder}: {error} {stderr.decode()[-500:]}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(
            f"{reason}\nTo enable: {sys.executable} -m venv {folder} && {folder}/bin/pip install pluto-ml=={VERSION}"
        )
    return folder / "bin" / "python"


def _create(folder: Path) -> None:
    python = folder / "bin" / "python"
    check = [python, "-c", f"import importlib.metadata as m; assert m.version('pluto-ml') == '{VERSION}'"]
    if python.exists() and subprocess.run(check, capture_output=True, timeout=60, check=False).returncode == 0:
        return
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"pluto-ml=={VERSION}"]
    subprocess.run(install, capture_output=True, timeout=_INSTALL_TIMEOUT_S, check=True)
    subprocess.run(check, capture_output=True, timeout=60, check=True)
