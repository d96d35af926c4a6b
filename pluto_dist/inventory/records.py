"""What a node is made of, as records: the shape that probes fill, nodes exchange and the document reads.

This module measures nothing and composes nothing. A record of another node arrives as JSON over the
network, so ``from_json`` believes none of it: types, lengths, ranges and counts are checked, fields that
another version of this package may have added are dropped. ``None`` means unknown, and is left out of JSON.

>>> gpu = Gpu.from_json({"index": 0, "name": "NVIDIA H100 80GB HBM3", "memory": 85520809984})
>>> gpu.temperature is None, gpu.to_json()
(True, {'index': 0, 'name': 'NVIDIA H100 80GB HBM3', 'memory': 85520809984})
>>> Gpu.from_json({"index": 0, "name": 7})
Traceback (most recent call last):
ValueError: Gpu.name: a string was expected, not int
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from pluto_dist.inventory.limits import (
    DEVICE_LIMIT,
    MIG_LIMIT,
    NIC_LIMIT,
    PACKAGE_LIMIT,
    PID_LIMIT,
    RANK_LIMIT,
    VARIABLE_LIMIT,
)
from pluto_dist.inventory.ranks import RankGpu
from pluto_dist.serialization.codec import (
    Record,
    decode_bad,
    decode_bool,
    decode_float,
    decode_hash,
    decode_int,
    decode_text,
    one_of,
    optional,
    pairs,
    record,
    required,
    several,
)


@dataclass(frozen=True, slots=True)
class MigInstance(Record):
    """One slice of a GPU in MIG mode, as its own device. ``name`` ends in the profile: "… MIG 3g.40gb"."""

    uuid: str | None = optional(decode_text)
    name: str | None = optional(decode_text)


@dataclass(frozen=True, slots=True)
class Gpu(Record):
    """One GPU that answers. ``index`` is NVML's order, which is not CUDA's."""

    index: int = required(decode_int)
    name: str | None = optional(decode_text)
    uuid: str | None = optional(decode_text)
    """"GPU-…": the key that joins NVML's view with CUDA's."""
    memory: int | None = optional(decode_int)
    """Bytes."""
    memory_kind: str | None = optional(one_of("unified"))
    """"unified": the GPU has no memory of its own, ``memory`` is the host's."""
    compute_capability: str | None = optional(decode_text)
    """"9.0"."""
    cores: int | None = optional(decode_int)
    """CUDA's."""
    pci_bus_id: str | None = optional(decode_text)
    """"00000000:18:00.0": domain, bus, device, function."""
    temperature: int | None = optional(decode_int)
    """°C when it was collected."""
    power_limit_w: int | None = optional(decode_int)
    """Watts, the limit in force."""
    arch: str | None = optional(decode_text)
    """"Hopper"."""
    vbios: str | None = optional(decode_text)
    clock_sm_mhz: int | None = optional(decode_int)
    """The highest that its multiprocessors can run at, as ``clock_mem_mhz`` is its memory's."""
    clock_mem_mhz: int | None = optional(decode_int)
    throttle: tuple[str, ...] | None = optional(several(decode_text, 16))
    """Why its clocks are held down, but for being idle or at its power limit: "temperature", …"""
    busy: int | None = optional(decode_int)
    """Percent of the last moment in which a kernel ran on it."""
    ecc: bool | None = optional(decode_bool)
    """Whether its memory's errors are corrected."""
    ecc_errors: int | None = optional(decode_int)
    """Uncorrected ones since the driver was loaded."""
    retired_pages: int | None = optional(decode_int)
    """Pages of its memory that were taken out of use (before Ampere)."""
    remapped_rows: int | None = optional(decode_int)
    """Rows of its memory that were replaced (since Ampere)."""
    remap_pending: bool | None = optional(decode_bool)
    """Whether a row waits for a reset to be replaced."""
    remap_failed: bool | None = optional(decode_bool)
    """Whether a row could not be replaced, for no spare one was left."""
    persistence: bool | None = optional(decode_bool)
    """Whether the driver keeps it open between jobs."""
    pcie_gen: int | None = optional(decode_int)
    """Of its link now, which an idle GPU lowers to save power: it tells something of a ``busy`` one only."""
    pcie_width: int | None = optional(decode_int)
    """Lanes of its link now."""
    pcie_gen_max: int | None = optional(decode_int)
    """The best that both ends of the link can, as is ``pcie_width_max``."""
    pcie_width_max: int | None = optional(decode_int)
    nvlinks: int | None = optional(decode_int)
    """Links that it has, and of them ``nvlinks_up`` that work."""
    nvlinks_up: int | None = optional(decode_int)
    nvlink_version: int | None = optional(decode_int)
    numa: int | None = optional(decode_int)
    """The NUMA node that it belongs to."""
    cpus: str | None = optional(decode_text)
    """The CPUs next to it: "0-47,96-143"."""
    fabric_cluster: str | None = optional(decode_text)
    """The NVLink fabric that it has joined, 32 hexadecimal digits; its clique there is ``fabric_clique``."""
    fabric_clique: int | None = optional(decode_int)
    minor: int | None = optional(decode_int)
    """Of its device file, where ranks of its node may open different ones."""
    hidden: bool | None = optional(decode_bool)
    """Whether a cgroup keeps it from the process that asked NVML: what is known of it is the kernel's word."""
    pids: tuple[int, ...] = optional(several(decode_int, PID_LIMIT), ())
    """Processes on the GPU; of the host's or the container's numbering, depending on the driver."""
    mig: bool | None = optional(decode_bool)
    mig_instances: tuple[MigInstance, ...] = optional(several(record(MigInstance), MIG_LIMIT), ())


@dataclass(frozen=True, slots=True)
class GpuReport(Record):
    """All GPUs of a node through one vendor's library. ``error`` is the library's own failure.

    No GPU and no library is an answer, not an error: ``GpuReport(count=0)``. ``count`` is what the driver
    counts, those in ``bad`` (index, name of the error; in JSON an object) included.
    """

    vendor: str = optional(decode_text, "nvidia")
    driver: str | None = optional(decode_text)
    cuda_driver: str | None = optional(decode_text)
    """The newest CUDA that the driver can run: "12.4"."""
    devices: tuple[Gpu, ...] = optional(several(record(Gpu), DEVICE_LIMIT), ())
    bad: tuple[tuple[int, str], ...] = optional(decode_bad, ())
    error: str | None = optional(decode_text)
    """"LibRmVersionMismatch", "DriverNotLoaded", "timeout", …"""
    confidential: bool | None = optional(decode_bool)
    """Whether confidential computing is on, which slows down what comes and goes over PCIe."""
    p2p: str | None = optional(one_of("all", "none", "partial"))
    """Whether every two of them read each other's memory directly."""
    count: int | None = optional(decode_int)
    init_ms: int | None = optional(decode_int)
    """Milliseconds that opening the library took: seconds per GPU where persistence mode is off."""

    def contradiction(self) -> str | None:
        indexes = [gpu.index for gpu in self.devices] + [index for index, _ in self.bad]
        if len(indexes) != len(set(indexes)):
            return "a GPU is reported twice"
        if indexes and (self.count is None or max(indexes) >= self.count):
            return f"GPU {max(indexes)} is beyond the count of {self.count}"
        if (self.count or 0) > DEVICE_LIMIT:
            return f"count is {self.count}, at most {DEVICE_LIMIT} are allowed"
        return None


@dataclass(frozen=True, slots=True)
class Nic(Record):
    """One network port of the hardware."""

    name: str | None = optional(decode_text)
    """"mlx5_0", "mlx5_0:2" (its second port), "eth0"."""
    layer: str | None = optional(decode_text)
    """"InfiniBand", or "Ethernet", which is RoCE on an ``rdma`` adapter."""
    rate_gbps: float | None = optional(decode_float)
    """Gbit/s in one direction."""
    state: str | None = optional(decode_text)
    """Where it is not the usual "ACTIVE": "DOWN", "INIT"."""
    rdma: bool | None = optional(decode_bool)
    """Whether it is an adapter that reads and writes another node's memory by itself (InfiniBand, RoCE, EFA)."""


@dataclass(frozen=True, slots=True)
class HostReport(Record):
    """The machine (or the container's view of it) and its operating system."""

    system: str | None = optional(decode_text)
    """"Linux"."""
    os: str | None = optional(decode_text)
    """"Ubuntu 22.04.4 LTS"."""
    os_name: str | None = optional(decode_text)
    os_version: str | None = optional(decode_text)
    os_id: str | None = optional(decode_text)
    kernel: str | None = optional(decode_text)
    """The release: "5.15.0-105-generic"."""
    kernel_version: str | None = optional(decode_text)
    """The build: "#115-Ubuntu SMP …"."""
    arch: str | None = optional(decode_text)
    """"x86_64", "aarch64"."""
    cpu_model: str | None = optional(decode_text)
    cores_physical: int | None = optional(decode_int)
    cores_logical: int | None = optional(decode_int)
    freq_min_mhz: float | None = optional(decode_float)
    freq_max_mhz: float | None = optional(decode_float)
    cpus_allowed: int | None = optional(decode_int)
    """Logical cores that this process may run on."""
    cpu_quota: float | None = optional(decode_float)
    """Cores' worth of time that the cgroup allows."""
    memory: int | None = optional(decode_int)
    """Bytes."""
    memory_limit: int | None = optional(decode_int)
    """Bytes that the cgroup allows."""
    swap: int | None = optional(decode_int)
    """Bytes."""
    shm: int | None = optional(decode_int)
    """Bytes that fit in /dev/shm, which dataloader workers fill."""
    disk: int | None = optional(decode_int)
    """Bytes of the filesystem of the working directory."""
    disk_type: str | None = optional(decode_text)
    """Its type: "ext4"; "nfs4" or "lustre" is shared."""
    nics: tuple[Nic, ...] = optional(several(record(Nic), NIC_LIMIT), ())
    virt: str | None = optional(decode_text)
    """The hypervisor: "kvm", "vmware"; "vm" where it does not tell."""
    container: str | None = optional(decode_text)
    """"docker", "podman", "kubernetes", "apptainer", …"""
    image: str | None = optional(decode_text)
    """The container's image."""
    k8s_pod: str | None = optional(decode_text)
    k8s_node: str | None = optional(decode_text)
    boot_time: float | None = optional(decode_float)
    """Seconds since 1970."""
    timezone: tuple[str, ...] = optional(several(decode_text, 8), ())
    """Standard and summer name."""


@dataclass(frozen=True, slots=True)
class SoftwareReport(Record):
    """The interpreter and the libraries that a training's speed and numbers depend on; versions."""

    python: str | None = optional(decode_text)
    python_implementation: str | None = optional(decode_text)
    python_compiler: str | None = optional(decode_text)
    python_executable: str | None = optional(decode_text)
    glibc: str | None = optional(decode_text)
    torch: str | None = optional(decode_text)
    """"2.4.0+cu121"."""
    cuda: str | None = optional(decode_text)
    """The CUDA that torch was built with: "12.1"."""
    cudnn: str | None = optional(decode_text)
    """Three numbers: "9.1.0"."""
    nccl: str | None = optional(decode_text)
    """Three numbers: "2.20.5"."""
    packages: str | None = optional(decode_hash)
    """A hash of the installed packages and their versions."""
    env: str | None = optional(decode_hash)
    """A hash of the environment variables that nodes should have in common."""
    commit: str | None = optional(decode_text)
    """The commit that the working directory's repository is at."""


@dataclass(frozen=True, slots=True)
class NodeInventory(Record):
    """One node: hardware and software, collected once in ``collect_ms`` milliseconds."""

    hostname: str | None = optional(decode_text)
    host: HostReport = dataclasses.field(default=HostReport(), metadata={"decode": record(HostReport)})
    software: SoftwareReport = dataclasses.field(default=SoftwareReport(), metadata={"decode": record(SoftwareReport)})
    gpus: GpuReport = dataclasses.field(default=GpuReport(), metadata={"decode": record(GpuReport)})
    visible: str | None = optional(decode_text)
    """CUDA_VISIBLE_DEVICES of the process that collected, as it is."""
    ranks: tuple[RankGpu, ...] = optional(several(record(RankGpu), RANK_LIMIT), ())
    """The ranks of the node, in order, with the GPU of each."""
    collect_ms: int | None = optional(decode_int)


@dataclass(frozen=True, slots=True)
class Git(Record):
    """The state of the repository that the code is from."""

    root: str | None = optional(decode_text)
    branch: str | None = optional(decode_text)
    """"" where the head is detached."""
    commit: str | None = optional(decode_text)
    dirty: bool | None = optional(decode_bool)
    """Whether a tracked file was changed."""
    url: str | None = optional(decode_text)
    """Of the remote; without user and password."""


@dataclass(frozen=True, slots=True)
class Process(Record):
    """The process that creates the run, and its code. Whoever fills it in has taken the secrets out."""

    pid: int | None = optional(decode_int)
    exe: str | None = optional(decode_text)
    cmdline: tuple[str, ...] = optional(several(decode_text, 1024), ())
    requirements: tuple[str, ...] = optional(several(decode_text, PACKAGE_LIMIT), ())
    """"name==version" of every package."""
    environ: tuple[tuple[str, str], ...] = optional(pairs(decode_text, VARIABLE_LIMIT), ())
    """The variables that shape CUDA, NCCL and torch."""
    konduktor: tuple[tuple[str, str], ...] = optional(pairs(decode_text, VARIABLE_LIMIT), ())
    """What names the job where that scheduler started it."""
    git: Git | None = dataclasses.field(default=None, metadata={"decode": record(Git)})


NOT_OURS = "NoPermission"  # a GPU that is well, and that a cgroup or a container keeps for others
