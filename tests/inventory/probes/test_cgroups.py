"""Limits of cgroups v1 and v2: of this machine, and of recorded machines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inventory.machine import lay_out, write
from pluto_dist.doctor import Machine, memory
from pluto_dist.inventory.probes import cgroups
from pluto_dist.inventory.probes.cgroups import Limits

GIB = 2**30

V1 = Path("/sys/fs/cgroup/memory")


def test_the_smallest_limit_of_cgroup_v2_applies(tmp_path):
    """A pod's limit applies if its container has a higher one or none."""
    assert cgroups.limits(lay_out("pod_cgroup_v2", tmp_path)) == Limits(cpus=16.5, memory=128 * GIB)


def test_cgroup_v1_is_read_inside_docker(tmp_path):
    """The host's path in /proc is not searched below the container's mount."""
    assert cgroups.limits(lay_out("docker_cgroup_v1", tmp_path)) == Limits(cpus=3.5, memory=64 * GIB)


@pytest.mark.parametrize(
    ("recording", "cpus", "memory"),
    [("systemd_cgroup_v2", 1.5, 3 * GIB), ("container_cgroup_v2", 2.5, GIB), ("hybrid_cgroup", 1.5, 3 * GIB)],
)
def test_recorded_machines(tmp_path, recording, cpus, memory):
    """A unit in a slice with a lower limit; a container, whose cgroup is the root of its mount; hybrid mode, in which
    cgroup2 is mounted without controllers."""
    assert cgroups.limits(lay_out(recording, tmp_path)) == Limits(cpus=cpus, memory=memory)


@pytest.mark.parametrize(
    ("recording", "file"),
    [
        ("systemd_cgroup_v2", "sys/fs/cgroup/training.slice/memory.current"),
        ("hybrid_cgroup", "sys/fs/cgroup/memory/training.slice/memory.usage_in_bytes"),
    ],
)
def test_usage_is_that_of_the_cgroup_with_the_smallest_limit(tmp_path, recording, file):
    """Not that of the unit in it, which may have another limit."""
    root = write(lay_out(recording, tmp_path), {file: "4096\n"})
    assert cgroups.limits(root).memory_used == 4096
    facts = memory.probe(Machine({}, root=root))
    assert (facts.limit, facts.used) == (3 * GIB, 4096)


def test_a_limit_that_this_kernel_sets_is_read(tmp_path):
    """A process in a cgroup of this machine, v1 or v2, reads its memory limit; this process has none or another one."""
    mine = Path("/sys/fs/cgroup") / f"pluto-dist-{os.getpid()}"
    name = "memory.max"
    if V1.is_dir():
        mine, name = V1 / mine.name, "memory.limit_in_bytes"
    try:
        mine.mkdir()
        (mine / name).write_text(str(3 * GIB))
    except OSError as error:
        if mine.is_dir():
            mine.rmdir()
        pytest.skip(f"cgroups cannot be made here ({error}); the recorded ones are read above")
    code = (
        "import sys; sys.stdin.read(); from pluto_dist.inventory.probes import cgroups; print(cgroups.limits().memory)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        (mine / "cgroup.procs").write_text(str(process.pid))
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait(10)
        mine.rmdir()

    assert output == f"{3 * GIB}\n"
    assert cgroups.limits().memory != 3 * GIB


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": "garbage\n1 2 - \n"},
        {
            "proc/self/cgroup": "0::/../../etc\nnonsense\n",
            "proc/self/mountinfo": "1 1 0:1 / /cg rw - cgroup2 cgroup rw\n",
            "cg/memory.max": "a lot\n",
            "cg/cpu.max": "1 0\n",
        },
        {
            "proc/self/cgroup": "3:memory:/\n2:cpu:/\n",
            "proc/self/mountinfo": "1 1 0:1 / /m rw - cgroup c rw,memory\n1 1 0:1 / /c rw - cgroup c rw,cpu\n",
            "m/memory.limit_in_bytes": "9223372036854771712\n",
            "c/cpu.cfs_quota_us": "-1\n",
            "c/cpu.cfs_period_us": "100000\n",
        },
    ],
    ids=["no files", "no mounts", "nonsense", "v1 without limits"],
)
def test_no_limit_is_unknown(tmp_path, files):
    """A limit that is not set or cannot be read is None."""
    assert cgroups.limits(write(tmp_path, files)) == Limits()


@pytest.mark.parametrize(
    ("recording", "folders"),
    [
        ("systemd_cgroup_v2", [["training.slice/trainer.service", "training.slice", ""]]),
        ("container_cgroup_v2", [[""]]),
        (
            "docker_cgroup_v1",
            [["memory"], ["unified/system.slice/containerd.service", "unified/system.slice", "unified"]],
        ),
        (
            "hybrid_cgroup",
            [
                ["unified/training.slice/trainer.service", "unified/training.slice", "unified"],
                ["memory/training.slice/trainer.service", "memory/training.slice", "memory"],
            ],
        ),
    ],
)
def test_folders_of_the_memory_controller(tmp_path, recording, folders):
    """For each hierarchy, the folders from the process's own cgroup up to the mount point."""
    top = lay_out(recording, tmp_path) / "sys/fs/cgroup"
    found = cgroups.controller_folders("memory", tmp_path)
    assert list(found) == [tuple(top / folder for folder in hierarchy) for hierarchy in folders]


def test_standard_mount_points(tmp_path):
    """Without mountinfo the mount points of systemd are used."""
    root = write(
        tmp_path, {"proc/self/cgroup": "4:memory:/job\n", "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "7\n"}
    )
    assert cgroups.limits(root).memory == 7
