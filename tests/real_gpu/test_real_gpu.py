"""The GPUs of this machine and their real driver: ``./scripts/test -m gpu`` on a machine with GPUs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fakenvml.node import FakeNode
from pluto_dist.inventory.gpu import nvidia, torch_device
from pluto_dist.inventory.gpu.assignment import gpus_of_ranks
from pluto_dist.inventory.records import GpuReport, RankView

pytestmark = pytest.mark.gpu
CHANGES = {"temperature", "busy", "pids", "throttle", "pcie_gen", "uuid", "mig_instances", "memory"}


@pytest.fixture(scope="module")
def gpus() -> GpuReport:
    """NVML's report of this machine."""
    found = nvidia.probe()
    if found == GpuReport(count=0):
        pytest.skip("no NVIDIA GPU here: run ./scripts/test -m gpu on a machine with one")
    return found


def test_every_gpu_responds(gpus):
    """The driver has a version, every GPU has an identity, and none is lost."""
    assert gpus.error is None and gpus.bad == ()
    assert gpus.driver and gpus.cuda_driver
    assert len(gpus.devices) == gpus.count
    assert len({gpu.uuid for gpu in gpus.devices}) == gpus.count
    assert all(gpu.name and gpu.memory and gpu.compute_capability and gpu.pci_bus_id for gpu in gpus.devices)


def test_torch_and_nvml_agree_on_uuids(gpus):
    """The UUID of a device in torch, current or only in use, is that of a GPU in NVML."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU: install one that is built for CUDA")
    for device in range(torch.cuda.device_count()):
        torch.zeros(1, device=f"cuda:{device}")
        for current in {0, device}:
            with torch.cuda.device(current):
                assert torch_device.current_device(torch) == current
                uuid = torch_device.uuid_in_use(torch, current, device)
            (found,) = gpus_of_ranks(gpus, [RankView(0, "", uuid)], local_world_size=1)
            assert found.gpu is not None, uuid
            (used,) = (gpu for gpu in gpus.devices if gpu.index == found.gpu)
            assert used.name == torch.cuda.get_device_name(device)


def test_its_profile_reproduces_this_machine(gpus, fake_library, tmp_path):
    """With the profile of ``doctor --nvml-profile`` the fake driver returns what the real one does."""
    code = "import sys; from pluto_dist.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "doctor", "--nvml-profile", "real.profile"]
    subprocess.run(command, cwd=tmp_path, check=False, timeout=60)
    replayed = FakeNode(fake_library, Path(tmp_path)).collect(None, f"include={tmp_path / 'real.profile'}").gpus
    for real_gpu, fake_gpu in zip(gpus.devices, replayed.devices, strict=True):
        real, fake = real_gpu.to_json(), fake_gpu.to_json()
        assert {name for name in real.keys() | fake.keys() if real.get(name) != fake.get(name)} <= CHANGES
