"""What NVML reports of this machine: complete, the same as nvidia-smi's, and reproduced by the fake driver."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fakenvml.node import FakeNode
from pluto_dist.inventory.records import Gpu

pytestmark = pytest.mark.gpu
CHANGES = {"temperature", "busy", "pids", "throttle", "pcie_gen", "uuid", "mig_instances", "memory"}
MIB = 2**20


def test_every_gpu_responds(gpus):
    """The driver has a version, every GPU has an identity, and none is lost."""
    assert gpus.error is None and gpus.bad == ()
    assert gpus.driver and gpus.cuda_driver
    assert len(gpus.devices) == gpus.count
    assert len({gpu.uuid for gpu in gpus.devices}) == gpus.count
    assert all(gpu.name and gpu.memory and gpu.compute_capability and gpu.pci_bus_id for gpu in gpus.devices)


# nvidia-smi's names of what the inventory records, and how it prints our value. It prints whole MiB and watts.
SAME = {
    "index": lambda gpu: gpu.index,
    "uuid": lambda gpu: gpu.uuid,
    "name": lambda gpu: gpu.name,
    "memory.total": lambda gpu: None if gpu.memory is None else gpu.memory // MIB,
    "pci.bus_id": lambda gpu: gpu.pci_bus_id,
    "compute_cap": lambda gpu: gpu.compute_capability,
    "vbios_version": lambda gpu: gpu.vbios,
    "clocks.max.sm": lambda gpu: gpu.clock_sm_mhz,
    "clocks.max.memory": lambda gpu: gpu.clock_mem_mhz,
    "enforced.power.limit": lambda gpu: gpu.power_limit_w,
    "ecc.mode.current": lambda gpu: {True: "Enabled", False: "Disabled"}.get(gpu.ecc),
    "persistence_mode": lambda gpu: {True: "Enabled", False: "Disabled"}.get(gpu.persistence),
    "pcie.link.width.current": lambda gpu: gpu.pcie_width,
}
ABSENT = ("[n/a]", "[not supported]", "n/a", "[unknown error]")


def nvidia_smi(*arguments: str) -> str:
    if shutil.which("nvidia-smi") is None:
        pytest.skip("no nvidia-smi here")
    done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def query(*fields: str) -> list[dict[str, str]]:
    rows = csv.reader(nvidia_smi(f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits").splitlines())
    return [dict(zip(fields, map(str.strip, row), strict=True)) for row in rows]


def different(gpu: Gpu, theirs: dict[str, str]) -> dict[str, tuple[str, str]]:
    """The fields in which a GPU of ours differs from the same of nvidia-smi's: ours, theirs."""
    found = {}
    for name, value in theirs.items():
        ours = SAME[name](gpu)
        shown = "[N/A]" if ours is None else str(ours)
        is_same = shown.lower() == value.lower() or (ours is None and value.lower() in ABSENT)
        if isinstance(ours, int) and not isinstance(ours, bool) and value.replace(".", "", 1).isdigit():
            is_same = abs(float(value) - ours) <= 1
        if not is_same:
            found[name] = (shown, value)
    return found


def test_nvidia_smi_shows_the_same(gpus):
    """What the inventory has of every GPU is what nvidia-smi prints, and the driver's version too."""
    shown = query(*SAME)
    assert [different(gpu, theirs) for gpu, theirs in zip(gpus.devices, shown, strict=True)] == [{}] * len(shown)
    assert {row["driver_version"] for row in query("driver_version")} == {gpus.driver}


def test_mig_instances_are_listed(gpus):
    """Where MIG is on, every instance has a UUID; where it is off, nvidia-smi says so too."""
    theirs = [part.rstrip(")") for part in nvidia_smi("-L").split() if part.startswith("MIG-")]
    ours = [instance.uuid for gpu in gpus.devices for instance in gpu.mig_instances]
    assert sorted(ours) == sorted(theirs)
    if not ours:
        pytest.skip("MIG is off on every GPU, as nvidia-smi says too")


def test_its_profile_reproduces_this_machine(gpus, request, tmp_path):
    """With the profile of ``doctor --nvml-profile`` the fake driver returns what the real one does.

    The profile is kept in the folder ``PLUTO_DIST_GPU_OUT``, if that is set, for ``tests/fakenvml``.
    """
    profile = Path(os.environ.get("PLUTO_DIST_GPU_OUT") or tmp_path) / "real.profile"
    code = "import sys; from pluto_dist.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "doctor", "--nvml-profile", str(profile)]
    subprocess.run(command, cwd=tmp_path, check=False, timeout=60)
    assert profile.stat().st_size > 0
    if shutil.which("gcc") is None:
        pytest.skip("the profile is written, but there is no gcc to compile the fake driver")
    library = request.getfixturevalue("fake_library")
    replayed = FakeNode(library, tmp_path).collect(None, f"include={profile}").gpus
    for real_gpu, fake_gpu in zip(gpus.devices, replayed.devices, strict=True):
        real, fake = real_gpu.to_json(), fake_gpu.to_json()
        assert {name for name in real.keys() | fake.keys() if real.get(name) != fake.get(name)} <= CHANGES
