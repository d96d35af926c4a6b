"""``scripts/gpu`` on a machine without GPUs, and on one with the fake driver, where torch sees none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fakenvml import build

ROOT = Path(__file__).parents[2]


def gpu(tmp_path: Path, **environ: str) -> tuple[int, str]:
    """Exit code and output of the script."""
    variables = {**os.environ, "PYTHON": sys.executable, "OUT": str(tmp_path / "out"), **environ}
    done = subprocess.run(
        [ROOT / "scripts" / "gpu"], env=variables, capture_output=True, text=True, timeout=150, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_not_run_without_a_gpu(tmp_path):
    code, output = gpu(tmp_path)
    assert (code, output) == (77, "scripts/gpu: not run: no NVIDIA GPU here\n")


SMI = """#!/bin/sh
na="[N/A], [N/A], [N/A]" rest="$na, $na, $na"
case "$*" in
  *driver_version*) echo 550.54.15 ;;
  *--query-gpu*) for n in 0 1 2 3 4 5 6 7; do echo "$n, GPU-other, NVIDIA H100 80GB HBM3, 81559, $rest"; done ;;
esac
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize("smi", [None, SMI], ids=["no nvidia-smi", "an nvidia-smi that differs"])
def test_with_the_fake_driver(fake_library, tmp_path, smi):
    """What needs no torch for CUDA is run; the profile is kept; a difference from nvidia-smi fails."""
    profile = build.write_profile(tmp_path / "node.profile", "h100")
    driver = build.environ(fake_library, profile, tmp_path / "calls.log")
    if smi is not None:
        (tmp_path / "nvidia-smi").write_text(smi)
        (tmp_path / "nvidia-smi").chmod(0o755)
        driver["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    code, output = gpu(tmp_path, **driver)
    for name in (
        "test_every_gpu_responds",
        "test_its_profile_reproduces_this_machine",
        "test_the_doctor_finds_the_gpus",
    ):
        assert re.search(rf"{name} PASSED", output), output
    assert (tmp_path / "out" / "real.profile").stat().st_size > 0
    assert "torch sees no GPU" in output
    assert (code, "'uuid': ('GPU-5fd4f087" in output) == ((0, False) if smi is None else (1, True)), output
