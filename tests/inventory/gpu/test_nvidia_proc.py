"""The NVIDIA GPUs that the kernel lists, and the device files that this process may open."""

from __future__ import annotations

from inventory.machine import write
from pluto_dist.inventory.gpu import nvidia_proc

UUID = "GPU-5fd4f087-86f3-7a43-b711-4771313afc5{}"

INFORMATION = "proc/driver/nvidia/gpus/{}/information"


def information(bus: str, minor: int, uuid: str) -> str:
    """The format of drivers 390 to 590."""
    return (
        f"Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 185\nGPU UUID: \t {uuid}\nBus Type: \t PCIe\n"
        f"Bus Location: \t {bus}\nDevice Minor: \t {minor}\nGPU Excluded:\t No\n"
    )


def test_listed_gpus(tmp_path):
    """In bus order; a GPU that was never used has no UUID yet, and a malformed entry affects no other."""
    files = {
        INFORMATION.format("0000:3b:00.0"): information("0000:3b:00.0", 0, UUID.format(1)),
        INFORMATION.format("0000:1b:00.0"): information("0000:1b:00.0", 1, "GPU-????????-????-????-????-????????????"),
        INFORMATION.format("0000:5b:00.0"): "Model: \t\t NVIDIA H100 80GB HBM3\n",
        INFORMATION.format("0000:6b:00.0"): information("0000:6b:00.0", 2, UUID.format(2)).replace(
            "Minor: \t 2", "Minor: \t x"
        ),
    }
    found = nvidia_proc.list_gpus(write(tmp_path, files))
    assert [(gpu.bus, gpu.minor, gpu.uuid) for gpu in found] == [
        ("0000:1b:00.0", 1, None),
        ("0000:3b:00.0", 0, UUID.format(1)),
    ]
    assert {gpu.name for gpu in found} == {"NVIDIA H100 80GB HBM3"}


def test_openable_minors(tmp_path):
    """Only /dev/nvidia<number> is the file of a GPU; without such files the result is None, not empty."""
    assert nvidia_proc.openable_minors(tmp_path) is None
    names = ("nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm", "nvidia-caps", "nvidia7x")
    assert nvidia_proc.openable_minors(write(tmp_path, {f"dev/{name}": "" for name in names})) == (2, 10)
