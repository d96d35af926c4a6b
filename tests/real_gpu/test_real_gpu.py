"""What no fake driver can show: the machine's own GPUs. Run it where there are some: ``./scripts/test -m gpu``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fakenvml.node import FakeNode

from pluto_dist.inventory.gpu import nvidia, torch_device
from pluto_dist.inventory.gpu.assignment import of_ranks
from pluto_dist.inventory.ranks import RankView
from pluto_dist.inventory.records import GpuReport

pytestmark = pytest.mark.gpu
CHANGES = {"temperature", "busy", "pids", "throttle", "pcie_gen", "uuid", "mig_instances", "memory"}


@pytest.fixture(scope="module")
def gpus() -> GpuReport:
    """What NVML tells of this machine."""
    found = nvidia.probe()
    if found == GpuReport(count=0):
        pytest.skip("no NVIDIA GPU here: run ./scripts/test -m gpu on a machine with one")
    return found


def test_every_gpu_answers(gpus):
    """The driver names itself and each of its GPUs; none is lost."""
    assert gpus.error is None and gpus.bad == ()
    assert gpus.driver and gpus.cuda_driver
    assert len(gpus.devices) == gpus.count
    assert len({gpu.uuid for gpu in gpus.devices}) == gpus.count
    assert all(gpu.name and gpu.memory and gpu.compute_capability and gpu.pci_bus_id for gpu in gpus.devices)


def test_torch_and_nvml_name_a_gpu_alike(gpus):
    """The UUID that torch has of a device, set as the current one or only used, is one of NVML's."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU: install one that is built for CUDA")
    for device in range(torch.cuda.device_count()):
        torch.zeros(1, device=f"cuda:{device}")
        for current in {0, device}:
            with torch.cuda.device(current):
                assert torch_device.current_device(torch) == current
                uuid = torch_device.uuid_in_use(torch, current, device)
            (found,) = of_ranks(gpus, [RankView(0, "", uuid)], size=1)
            assert found.gpu is not None, uuid
            (used,) = (gpu for gpu in gpus.devices if gpu.index == found.gpu)
            assert used.name == torch.cuda.get_device_name(device)


def test_its_profile_is_this_machine(gpus, fake_library, tmp_path):
    """What ``doctor --nvml-profile`` writes here makes the fake driver answer as the real one does."""
    code = "import sys; from pluto_dist.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "doctor", "--nvml-profile", "real.profile"]
    subprocess.run(command, cwd=tmp_path, check=False, timeout=60)
    replayed = FakeNode(fake_library, Path(tmp_path)).collect(None, f"include={tmp_path / 'real.profile'}").gpus
    for real, fake in zip(gpus.devices, replayed.devices, strict=True):
        there, here = real.to_json(), fake.to_json()
        assert {name for name in there.keys() | here.keys() if there.get(name) != here.get(name)} <= CHANGES
