"""Versions of the interpreter and of torch, imported or not."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import pytest

from inventory.machine import write
from inventory.probes.interpreter import python
from pluto_dist.inventory.probes import software


def test_torch_is_the_same_imported_or_not():
    """A node that was probed before it imported torch must not seem to differ from one probed afterwards."""
    code = """
import json
from pluto_dist.inventory.probes import software
before = software.probe().to_json()
import torch
after = software.probe().to_json()
print(json.dumps([before, after, torch.__version__, torch.cuda.is_initialized()]))
"""
    before, after, version, initialized = json.loads(
        python(code, "-W", "ignore::DeprecationWarning", "-W", "ignore::UserWarning")
    )

    assert before == after and before["torch"] == version
    assert initialized is False


TORCH = {
    "torch/__init__.py": "raise AssertionError('torch was imported')\n",
    "torch/version.py": "from typing import Optional\n__version__ = '2.4.0+cu121'\ncuda: Optional[str] = '12.1'\n",
    "nvidia_nccl_cu12-2.20.5.dist-info/METADATA": "",
    "nvidia_cudnn_cu12-9.1.0.70.dist-info/METADATA": "",
}


def probed(folder: Path) -> dict[str, str]:
    code = f"""
import json, sys
sys.path.insert(0, {str(folder)!r})
from pluto_dist.inventory.probes import software
print(json.dumps(software.probe().to_json()))
"""
    return json.loads(python(code))


def test_a_cuda_torch_is_read_from_its_files(tmp_path):
    """Versions of torch, CUDA, cuDNN and NCCL come from a wheel's files, three numbers each."""
    found = probed(write(tmp_path, TORCH))

    assert (found["torch"], found["cuda"]) == ("2.4.0+cu121", "12.1")
    assert (found["cudnn"], found["nccl"]) == ("9.1.0", "2.20.5")


def test_a_cpu_torch_has_no_cudnn(tmp_path):
    """NVIDIA packages are ignored for a torch without CUDA."""
    version = "__version__ = '2.4.0+cpu'\ncuda = None\n"
    found = probed(write(tmp_path, {**TORCH, "torch/version.py": version}))

    assert found["torch"] == "2.4.0+cpu" and not {"cuda", "cudnn", "nccl"} & set(found)


def test_two_versions_of_one_library(tmp_path):
    """If two packages match, the version is unknown."""
    found = probed(write(tmp_path, {**TORCH, "nvidia_nccl_cu11-2.19.3.dist-info/METADATA": ""}))

    assert "nccl" not in found and found["cudnn"] == "9.1.0"


@pytest.mark.parametrize("content", ["syntax error (", "", "__version__ = 1\n"])
def test_a_torch_that_cannot_be_read_is_unknown(tmp_path, content):
    """A malformed version file affects no other value."""
    found = probed(write(tmp_path, {**TORCH, "torch/version.py": content}))

    assert "torch" not in found and found["python"] == platform.python_version()


def test_this_interpreter():
    """The report has the values of sys and platform."""
    found = software.probe()

    assert (found.python, found.python_executable) == (platform.python_version(), sys.executable)
    assert found.python_implementation == platform.python_implementation()
