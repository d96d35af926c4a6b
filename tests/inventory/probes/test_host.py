"""Limits, network, container and disks: of this machine, and of machines whose files were recorded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inventory.machine import lay_out, write
from pluto_dist.doctor import Machine, memory
from pluto_dist.inventory.probes import cgroups, container, disks, host, network
from pluto_dist.inventory.probes.cgroups import Limits
from pluto_dist.inventory.probes.sources import Sources
from pluto_dist.inventory.records import Nic

GIB = 2**30
V1 = Path("/sys/fs/cgroup/memory")


def test_the_narrowest_limit_of_cgroup_v2_holds(tmp_path):
    """A pod's limit counts although the container in it has a wider one or none."""
    assert cgroups.limits(lay_out("pod_cgroup_v2", tmp_path)) == Limits(cpus=16.5, memory=128 * GIB)


def test_cgroup_v1_is_read_inside_docker(tmp_path):
    """The path of the host that /proc shows is not looked for below the container's own mount."""
    assert cgroups.limits(lay_out("docker_cgroup_v1", tmp_path)) == Limits(cpus=3.5, memory=64 * GIB)


@pytest.mark.parametrize(
    ("recording", "cpus", "memory"),
    [("systemd_cgroup_v2", 1.5, 3 * GIB), ("container_cgroup_v2", 2.5, GIB), ("hybrid_cgroup", 1.5, 3 * GIB)],
)
def test_recorded_machines(tmp_path, recording, cpus, memory):
    """A unit in a slice that allows less than the unit; a container, which sees its own cgroup as the top; v1 and v2 at
    once, where cgroup2 is mounted and has no controller."""
    assert cgroups.limits(lay_out(recording, tmp_path)) == Limits(cpus=cpus, memory=memory)


@pytest.mark.parametrize(
    ("recording", "file"),
    [
        ("systemd_cgroup_v2", "sys/fs/cgroup/training.slice/memory.current"),
        ("hybrid_cgroup", "sys/fs/cgroup/memory/training.slice/memory.usage_in_bytes"),
    ],
)
def test_what_is_used_is_of_the_narrowest_cgroup(tmp_path, recording, file):
    """Not of the unit in it, which may have another limit."""
    root = write(lay_out(recording, tmp_path), {file: "4096\n"})
    assert cgroups.limits(root).memory_used == 4096
    seen = memory.look(Machine({}, root=root))
    assert (seen.limit, seen.used) == (3 * GIB, 4096)


def test_a_limit_that_this_kernel_sets_is_read(tmp_path):
    """A process in a cgroup of this machine, v1 or v2, tells the memory that it may use; outside of it none or more."""
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
    """What sets no limit, or cannot be read, is None."""
    assert cgroups.limits(write(tmp_path, files)) == Limits()


def test_ports_have_layer_rate_and_state(tmp_path):
    """Adapters in the order of their numbers, each port once; virtual interfaces and IPoIB are left out."""
    assert network.probe(lay_out("dgx_h100", tmp_path)) == (
        Nic("mlx5_0", "InfiniBand", 400.0, rdma=True),
        Nic("mlx5_2", "InfiniBand", 10.0, "DOWN", rdma=True),
        Nic("mlx5_10:1", "Ethernet", 100.0, rdma=True),
        Nic("mlx5_10:2", "Ethernet", None, "INIT", rdma=True),
        Nic("eth0", "Ethernet", 25.0),
        Nic("eth2", "Ethernet", None, "DOWN"),
    )


def test_this_machines_ports_are_no_virtual_ones():
    """Neither the loopback nor a bridge nor a veth is told of."""
    told = {nic.name for nic in network.probe()}

    assert told <= {path.name for path in Path("/sys/class/net").iterdir() if (path / "device").exists()} | {
        path.name for path in Path("/sys/class").glob("infiniband/*")
    }


def test_a_pod_is_known_by_files(tmp_path):
    """Kubernetes by its service account, the pod by the downward API's volume, the cloud by the firmware."""
    found = container.probe({"NODE_NAME": "gpu-7"}, lay_out("pod_cgroup_v2", tmp_path))

    assert (found.container, found.k8s_pod, found.k8s_node, found.virt) == (
        "kubernetes",
        "trainer-worker-3",
        "gpu-7",
        "kvm",
    )


@pytest.mark.parametrize(
    ("environ", "files", "told"),
    [
        ({}, {}, {}),
        ({}, {".dockerenv": ""}, {"container": "docker"}),
        (
            {},
            {"run/.containerenv": 'engine="podman-4.9.3"\nimage="docker.io/pytorch/pytorch:2.4"\n'},
            {"container": "podman", "image": "docker.io/pytorch/pytorch:2.4"},
        ),
        ({}, {"run/systemd/container": "lxc\n"}, {"container": "lxc"}),
        (
            {"APPTAINER_CONTAINER": "/images/torch.sif"},
            {".dockerenv": ""},
            {"container": "apptainer", "image": "/images/torch.sif"},
        ),
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "job-0", "CONTAINER_IMAGE": "https://u:p@reg/i:1"},
            {},
            {"container": "kubernetes", "k8s_pod": "job-0", "image": "https://***@reg/i:1"},
        ),
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "x", "POD_NAME": "job-0", "MY_NODE_NAME": "n"},
            {},
            {"container": "kubernetes", "k8s_pod": "job-0", "k8s_node": "n"},
        ),
        ({"HOSTNAME": "laptop", "NODE_NAME": "n"}, {}, {}),
        ({}, {"proc/version": "Linux version 5.15.90.1-microsoft-standard-WSL2"}, {"virt": "wsl"}),
        ({}, {"proc/cpuinfo": "flags\t: fpu hypervisor\n"}, {"virt": "vm"}),
        (
            {},
            {"proc/cpuinfo": "flags\t: fpu\n", "sys/class/dmi/id/sys_vendor": "Microsoft Corporation\n"},
            {},
        ),
    ],
)
def test_containers_and_hypervisors_are_told_apart(tmp_path, environ, files, told):
    """Each runtime by what it leaves behind; a machine that is neither has nothing of it."""
    assert container.probe(environ, write(tmp_path, files)).to_json() == told


def test_the_filesystem_of_the_folder_is_the_innermost(tmp_path):
    """A shared filesystem is seen, also under a mount point with a blank in its name."""
    root = lay_out("pod_cgroup_v2", tmp_path)

    assert disks.type_of(Path("/work space/me/run"), root) == "nfs4"
    assert disks.type_of(Path("/scratch"), root) == "lustre"
    assert disks.type_of(Path("/scratchy"), root) == "overlay"


def test_this_machines_disks_are_the_systems(tmp_path):
    """Size and type are those that df shows."""
    command = ["df", "--output=size,fstype", "-B1", str(tmp_path)]
    size, kind = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-2:]

    assert (disks.size(tmp_path), disks.type_of(tmp_path)) == (int(size), kind)


def test_a_host_is_described_with_its_limits(tmp_path):
    """What the parts find is in the one report, beside what this process is allowed."""
    found = host.probe(Sources(environ={"POD_NAME": "mine"}), lay_out("pod_cgroup_v2", tmp_path))

    assert (found.cpu_quota, found.memory_limit, found.container) == (16.5, 128 * GIB, "kubernetes")
    assert (found.cpu_model, found.k8s_pod) == ("Intel(R) Xeon(R) Platinum 8480C", "mine")
    assert found.cpus_allowed == len(os.sched_getaffinity(0))
    assert (found.shm, host.probe().shm) == (None, disks.size(Path("/dev/shm")))
