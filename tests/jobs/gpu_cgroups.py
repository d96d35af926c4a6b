"""Tasks of which each may open one GPU, as Slurm has them with ConstrainDevices: for machines without any GPU.

The cgroups are real ones (v1), and so is the kernel's answer who may open which device file; the files themselves, and
what NVIDIA's kernel module shows in /proc, are laid over this machine's in a mount namespace of each task. NVML is the
fake, which shows each task its own GPU as number 0. Needs root.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fakenvml import build

CONTROLLER = Path("/sys/fs/cgroup/devices")
GPUS, MAJOR = 4, 195
UUID = "GPU-5fd4f087-86f3-7a43-b711-4771313afc5{}"
INFORMATION = (  # as of driver 590.48, which writes a tabulator and blanks after each name
    "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 7{n}\nGPU UUID: \t {uuid}\nVideo BIOS: \t 96.00.5e.00.01\n"
    "Bus Type: \t PCIe\nDMA Size: \t 52 bits\nDMA Mask: \t 0xfffffffffffff\nBus Location: \t {bus}\n"
    "Device Minor: \t {minor}\nGPU Firmware: \t 550.54.15\nGPU Excluded:\t No\n"
)
TASK = """#!/bin/sh -e
# Runs a command as the task of GPU $SLURM_LOCALID.
echo $$ > {cgroup}-$SLURM_LOCALID/cgroup.procs
export CUDA_VISIBLE_DEVICES=0 FAKE_NVML={folder}/$SLURM_LOCALID.profile
exec unshare --mount sh -ec 'mount --bind {folder}/driver /proc/driver; mount --rbind /dev {folder}/old
mount --bind {folder}/dev /dev; exec "$@"' sh "$@"
"""


def why_not() -> str:
    """Why this machine cannot do it; "" where it can."""
    if os.geteuid() != 0:
        return "needs root: run as root"
    if not (CONTROLLER / "devices.deny").exists() and not (CONTROLLER / "tasks").exists():
        return "needs cgroup v1's devices controller: mount -t cgroup -o devices none /sys/fs/cgroup/devices"
    if Path("/dev/nvidia0").exists():
        return "this machine has NVIDIA GPUs of its own: run it on one without"
    return ""


def minor_of(gpu: int) -> int:
    """The minor of the GPU that is number ``gpu`` on the bus: not the same number."""
    return GPUS - 1 - gpu


@contextmanager
def one_gpu_per_task(folder: Path) -> Iterator[str]:
    """The program that runs a command as a task of its own, which may open the GPU of minor $SLURM_LOCALID."""
    for name in ("old", "dev"):
        (folder / name).mkdir()
    for file in Path("/dev").iterdir():
        (folder / "dev" / file.name).symlink_to(folder / "old" / file.name)
    for gpu in range(GPUS):
        bus, uuid, minor = f"0000:{gpu + 1}b:00.0", UUID.format(gpu), minor_of(gpu)
        information = folder / "driver" / "nvidia" / "gpus" / bus / "information"
        information.parent.mkdir(parents=True)
        information.write_text(INFORMATION.format(n=gpu, uuid=uuid, bus=bus, minor=minor))
        os.mknod(folder / "dev" / f"nvidia{minor}", stat.S_IFCHR | 0o666, os.makedev(MAJOR, minor))
        lines = ("count=1", f"dev.0.uuid={uuid}", f"dev.0.pci=0000{bus.upper()}")
        build.write_profile(folder / f"{minor}.profile", "h100", *lines)
    cgroup = CONTROLLER / f"pluto-dist-{secrets.token_hex(4)}"
    task = folder / "task.sh"
    task.write_text(TASK.format(cgroup=cgroup, folder=folder))
    task.chmod(0o755)
    cgroups = [cgroup.with_name(f"{cgroup.name}-{minor}") for minor in range(GPUS)]
    try:
        for own, place in enumerate(cgroups):
            place.mkdir()
            for minor in range(GPUS):
                if minor != own:
                    (place / "devices.deny").write_text(f"c {MAJOR}:{minor} rwm")
        yield str(task)
    finally:
        for place in cgroups:
            if place.exists():
                place.rmdir()
