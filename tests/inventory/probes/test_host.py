"""The machine, its operating system and the limits of this process."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil
import pytest

from inventory.machine import lay_out
from pluto_dist.inventory.probes import disks, host
from pluto_dist.inventory.probes.sources import Sources

GIB = 2**30


def test_a_report_has_the_limits(tmp_path):
    """The report contains the results of cgroups, container and disks, and the CPU affinity of this process."""
    found = host.probe(Sources(environ={"POD_NAME": "mine"}), lay_out("pod_cgroup_v2", tmp_path))

    assert (found.cpu_quota, found.memory_limit, found.container) == (16.5, 128 * GIB, "kubernetes")
    assert (found.cpu_model, found.k8s_pod) == ("Intel(R) Xeon(R) Platinum 8480C", "mine")
    assert found.cpus_allowed == len(os.sched_getaffinity(0))
    assert (found.shm, host.probe().shm) == (None, disks.filesystem_size(Path("/dev/shm")))


def test_this_machine():
    """The report has the values of psutil and of the kernel."""
    found = host.probe()

    assert host.hostname() == platform.node()
    assert (found.system, found.kernel, found.arch) == (
        platform.system(),
        platform.release(),
        platform.machine(),
    )
    assert found.os and found.cpu_model
    assert found.memory == psutil.virtual_memory().total
    assert found.cores_logical == psutil.cpu_count()
    assert found.boot_time == pytest.approx(psutil.boot_time(), abs=2)


def test_a_machine_without_proc_and_sys(tmp_path):
    """Values that cannot be read are unknown, all others are reported."""
    found = host.probe(root=tmp_path)

    assert (found.cpu_model, found.freq_min_mhz, found.freq_max_mhz) == (None, None, None)
    assert found.memory and found.kernel


@pytest.mark.parametrize(
    ("files", "model"),
    [
        ({"cpuinfo": b"processor\t: 0\nmodel name\t: AMD EPYC 9654\n"}, "AMD EPYC 9654"),
        ({"cpuinfo": b"processor: 0\nModel\t\t: Raspberry Pi 5\n"}, "Raspberry Pi 5"),
        ({"cpuinfo": b"processor: 0\n", "device-tree/model": b"NVIDIA Jetson AGX Orin\x00"}, "NVIDIA Jetson AGX Orin"),
        ({"cpuinfo": b"\xff\xfe"}, None),
    ],
)
def test_cpu_models(tmp_path, files, model):
    """x86 has the model in cpuinfo, arm64 at most in the device tree."""
    for name, content in files.items():
        path = tmp_path / "proc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    assert host.probe(root=tmp_path).cpu_model == model


def test_frequencies_span_all_cores(tmp_path):
    """The lowest and the highest of efficiency and performance cores, in MHz."""
    for n, (low, high) in enumerate([(800_000, 3_800_000), (400_000, 2_400_000)]):
        policy = tmp_path / "sys" / "devices" / "system" / "cpu" / "cpufreq" / f"policy{n}"
        policy.mkdir(parents=True)
        (policy / "cpuinfo_min_freq").write_text(f"{low}\n")
        (policy / "cpuinfo_max_freq").write_text(f"{high}\n")
    found = host.probe(root=tmp_path)

    assert (found.freq_min_mhz, found.freq_max_mhz) == (400.0, 3800.0)
