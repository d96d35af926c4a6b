"""What the tests of real GPUs share: NVML's report of this machine, and torch built for CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from jobs.running import Torchrun, Tracker
from pluto_dist.inventory.gpu import nvidia
from pluto_dist.inventory.records import GpuReport
from pluto_dist.server import LocalServer


@pytest.fixture(scope="session")
def gpus() -> GpuReport:
    """NVML's report of this machine; without a GPU the test is skipped."""
    found = nvidia.probe()
    if found == GpuReport(count=0):
        pytest.skip("no NVIDIA GPU here: run ./scripts/gpu on a machine with one")
    return found


@pytest.fixture
def cuda(gpus: GpuReport) -> GpuReport:
    """The same, where torch can use the GPUs."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU: install a build for CUDA")
    return gpus


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    with LocalServer() as server:
        yield Tracker(server)


@pytest.fixture
def torchrun(tmp_path: Path) -> Iterator[Torchrun]:
    jobs = Torchrun(tmp_path)
    yield jobs
    jobs.end_all()
