"""Environments with the training frameworks: one per entry of PACKAGES, created once per machine and Python version.

Each sees the packages of the environment that runs the tests, torch and this package's dependencies among them, and has
its own versions of what its frameworks pin. Nothing is installed beside the tests themselves.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

# The newest versions that these tests were run with.
PACKAGES: dict[str, tuple[str, ...]] = {
    "lightning": ("lightning==2.6.6", "accelerate==1.15.0"),  # the small one, in CI
    "transformers": ("transformers==5.24.0", "accelerate==1.15.0"),
    "ray": ("ray[train]==2.60.0",),
    "ignite": ("pytorch-ignite==0.5.5",),
    "hydra": ("hydra-core==1.3.8",),
    "torchx": ("torchx==0.7.0",),
    "deepspeed": ("--no-build-isolation", "deepspeed==0.19.8"),  # its setup imports torch,
    "greenlets": ("gevent==26.9.0", "eventlet==0.41.3"),
    "urllib3": ("urllib3==1.26.20",),  # which torchx 0.7 pins
    "sweeps": (),  # joblib comes with scikit-learn
}
ROOT = Path(__file__).parents[3]
_INSTALL_TIMEOUT_S = 400


def python_with(name: str) -> Path:
    """The interpreter of an environment. If it cannot be installed, the test is skipped, or fails in CI."""
    if not PACKAGES[name]:
        return Path(sys.executable)
    wanted = "\n".join([*PACKAGES[name], _borrowed(), (ROOT / "scripts" / "constraints.txt").read_text()])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pluto-dist"
    version = f"py{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache / f"{name}-{version}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one of several test processes creates it
            if not (folder / "whole").exists():
                _create(folder, PACKAGES[name])
    except (OSError, subprocess.SubprocessError) as error:
        stderr = getattr(error, "stderr", None) or b""
        reason = f"no environment with {' '.join(PACKAGES[name])} at {folder}: {error} {stderr.decode()[-1000:]}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder / "bin" / "python"


def _borrowed() -> str:
    """The line of a .pth file that adds the packages of this interpreter's environment, its own .pth files included."""
    return f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})"


def _create(folder: Path, packages: tuple[str, ...]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder)
    python = folder / "bin" / "python"
    site_packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (site_packages / "borrowed.pth").write_text(_borrowed() + "\n")
    torchrun = folder / "bin" / "torchrun"  # that of the borrowed torch would start the borrowed interpreter
    torchrun.write_text(f'#!/bin/sh\nexec "{python}" -m torch.distributed.run "$@"\n')
    torchrun.chmod(0o755)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"]
    constraint = ["--constraint", ROOT / "scripts" / "constraints.txt"]
    subprocess.run([*pip, *constraint, *packages], capture_output=True, timeout=_INSTALL_TIMEOUT_S, check=True)
    (folder / "whole").touch()
