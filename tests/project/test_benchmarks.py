"""The benchmarks follow the package: they use its inner parts, which change, and run seldom."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "scripts" / "benchmarks"
# Its `import pluto` needs the environment that scripts/bench makes for the SDK.
NAMES = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem not in ("__main__", "sdk_rank"))
SMALL = {
    "document": (),
    "imports": (),
    "inventory": (),
    "scale": ("--ranks", "256", "--rounds", "1"),
}


def test_each_imports_what_it_needs():
    """A name that has moved is told here, not when somebody wants a figure."""
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    command = [sys.executable, "-c", code, *NAMES]
    environ = os.environ | {"RANK": "0"}  # one of them is a rank's own program
    done = subprocess.run(command, cwd=FOLDER, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SMALL)
def test_a_small_run(name):
    """It runs to its end; whether it meets its targets is not for a busy machine to say."""
    command = [sys.executable, str(FOLDER), name, *SMALL[name]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
