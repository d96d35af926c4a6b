"""The fake driver has the signatures of NVIDIA's header, if that is installed (nvidia-nvml-dev)."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest

from fakenvml.build import HERE

HEADERS = sorted(Path(sysconfig.get_path("purelib"), "nvidia").rglob("nvml.h"))


def compiled(source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "fake.c"
    file.write_text(source)
    options = ["-fsyntax-only", "-DUSE_NVML_H", "-DNVML_NO_UNVERSIONED_FUNC_DEFS", f"-I{HEADERS[0].parent}"]
    return subprocess.run(["gcc", *options, str(file)], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(not HEADERS, reason="NVIDIA's nvml.h is not installed: pip install nvidia-nvml-dev")
def test_the_signatures_are_nvidias(tmp_path: Path):
    """It compiles with the header; with one type changed it does not."""
    source = (HERE / "fakenvml.c").read_text()
    good = compiled(source, tmp_path)
    assert good.returncode == 0, good.stderr
    wrong = source.replace("Code nvmlDeviceGetCount_v2(unsigned *out)", "Code nvmlDeviceGetCount_v2(long *out)")
    assert wrong != source
    bad = compiled(wrong, tmp_path)
    assert bad.returncode != 0
    assert "conflicting types" in bad.stderr
