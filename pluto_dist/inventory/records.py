"""Records of a node's hardware and software: what probes fill in, nodes exchange, and ``report`` composes.

A record of another node arrives as JSON from the network, so ``from_json`` checks types, lengths, ranges and counts,
and drops fields that another version of this package may have added. ``None`` means unknown and is left out of JSON.

>>> gpu = Gpu.from_json({"index": 0, "name": "NVIDIA H100 80GB HBM3", "memory": 85520809984})
>>> gpu.temperature is None, gpu.to_json()
(True, {'index': 0, 'name': 'NVIDIA H100 80GB HBM3', 'memory': 85520809984})
>>> Gpu.from_json({"index": 0, "name": 7})
Traceback (most recent call last):
ValueError: Gpu.name: a string was expected, not int
"""

from __future__ import annotations

from pluto_dist.serialization.codec import (
    Json,
    Record,
    decode_bool,
    decode_float,
    decode_hash,
    decode_int,
    decode_text,
    one_of,
    optional,
    pairs,
    record,
    record_class,
    required,
    several,
)
from pluto_dist.serialization.text import parse_digits

# The largest number of items of each kind; from_json refuses more.
DEVICE_LIMIT = 1024  # GPUs of one node
RANK_LIMIT = 4096  # ranks on one node
PID_LIMIT = 1024  # processes on one GPU
MIG_LIMIT = 64  # MIG instances of one GPU; current hardware has at most 7
NIC_LIMIT = 256  # network ports of one node; a node with 128 virtual functions has as many
PACKAGE_LIMIT = 4096  # installed packages
VARIABLE_LIMIT = 128  # environment variables

NO_PERMISSION = "NoPermission"
"""The error of a healthy GPU that a cgroup or a container reserves for others."""


def decode_gpu_errors(value: Json, where: str) -> tuple[tuple[int, str], ...]:
    """``{"3": "GpuIsLost"}`` as ``((3, "GpuIsLost"),)``, by index."""
    if not isinstance(value, dict):
        raise ValueError(f"{where}: an object was expected, not {type(value).__name__}")
    if len(value) > DEVICE_LIMIT:
        raise ValueError(f"{where}: {len(value)} items, at most {DEVICE_LIMIT} are allowed")
    wrong = [key for key in value if (index := parse_digits(key, most=9)) is None or str(index) != key]
    if wrong:
        raise ValueError(f"{where}: {wrong[0][:40]!r} is not the index of a GPU")
    return tuple(sorted((int(key), decode_text(name, f"{where}.{key}")) for key, name in value.items()))


@record_class
class MigInstance(Record):
    """A MIG instance: one partition of a GPU, used as a device. ``name`` ends in its profile: "… MIG 3g.40gb"."""

    uuid: str | None = optional(decode_text)
    name: str | None = optional(decode_text)


@record_class
class Gpu(Record):
    """One GPU that responds. ``index`` is the library's (NVML's), which may differ from the runtime's (CUDA's)."""

    index: int = required(decode_int)
    name: str | None = optional(decode_text)
    uuid: str | None = optional(decode_text)
    """"GPU-…", the same in library and runtime."""
    memory: int | None = optional(decode_int)
    """Bytes."""
    memory_kind: str | None = optional(one_of("unified"))
    """"unified": the GPU has no memory of its own, and ``memory`` is the host's."""
    compute_capability: str | None = optional(decode_text)
    """"9.0"."""
    cores: int | None = optional(decode_int)
    """CUDA cores, or what the vendor calls them."""
    pci_bus_id: str | None = optional(decode_text)
    """"00000000:18:00.0": domain, bus, device, function."""
    temperature: int | None = optional(decode_int)
    """°C at collection."""
    power_limit_w: int | None = optional(decode_int)
    """Enforced power limit in watts."""
    arch: str | None = optional(decode_text)
    """"Hopper"."""
    vbios: str | None = optional(decode_text)
    clock_sm_mhz: int | None = optional(decode_int)
    """Maximum clock of the streaming multiprocessors."""
    clock_mem_mhz: int | None = optional(decode_int)
    """Maximum clock of the memory."""
    throttle: tuple[str, ...] | None = optional(several(decode_text, 16))
    """Reasons why the clocks are reduced, except idle and power limit: "temperature", …"""
    busy: int | None = optional(decode_int)
    """Utilization in percent: the share of the last sample period in which a kernel was running."""
    ecc: bool | None = optional(decode_bool)
    """Whether ECC is enabled."""
    ecc_errors: int | None = optional(decode_int)
    """Uncorrected ECC errors since the driver was loaded."""
    retired_pages: int | None = optional(decode_int)
    """Retired memory pages (before Ampere)."""
    remapped_rows: int | None = optional(decode_int)
    """Remapped memory rows (since Ampere)."""
    remap_pending: bool | None = optional(decode_bool)
    """Whether a row will be remapped at the next reset."""
    remap_failed: bool | None = optional(decode_bool)
    """Whether a row could not be remapped because no spare row was left."""
    persistence: bool | None = optional(decode_bool)
    """Whether persistence mode is on: the driver stays initialized between jobs."""
    pcie_gen: int | None = optional(decode_int)
    """Current generation of the PCIe link; an idle GPU lowers it to save power, so it is relevant only if ``busy``."""
    pcie_width: int | None = optional(decode_int)
    """Current number of PCIe lanes."""
    pcie_gen_max: int | None = optional(decode_int)
    """The best generation that both ends of the link support, as is ``pcie_width_max``."""
    pcie_width_max: int | None = optional(decode_int)
    nvlinks: int | None = optional(decode_int)
    """Number of links to other GPUs: NVLinks, or another vendor's; ``nvlinks_up`` of them are active."""
    nvlinks_up: int | None = optional(decode_int)
    nvlink_version: int | None = optional(decode_int)
    numa: int | None = optional(decode_int)
    """NUMA node of the GPU."""
    cpus: str | None = optional(decode_text)
    """CPU affinity of the GPU: "0-47,96-143"."""
    fabric_cluster: str | None = optional(decode_text)
    """UUID of the fabric of links that the GPU has joined, 32 hexadecimal digits; its clique is ``fabric_clique``."""
    fabric_clique: int | None = optional(decode_int)
    minor: int | None = optional(decode_int)
    """Minor number of its device file, if the ranks of its node may open different ones."""
    hidden: bool | None = optional(decode_bool)
    """Whether a cgroup hides it from the process that queried the library; its values are then from the kernel."""
    pids: tuple[int, ...] = optional(several(decode_int, PID_LIMIT), ())
    """Processes on the GPU, in the host's or the container's pid namespace, depending on the driver."""
    mig: bool | None = optional(decode_bool)
    """Whether MIG mode is on."""
    mig_instances: tuple[MigInstance, ...] = optional(several(record(MigInstance), MIG_LIMIT), ())
    faults: tuple[tuple[str, str], ...] = optional(pairs(decode_text, 16), ())
    """Faults that only GPUs of its vendor have, and that no other field describes, by the names in
    ``GpuVendor.faults``."""


@record_class
class GpuReport(Record):
    """All GPUs of a node, from one vendor's library. ``error`` is a failure of the library as a whole.

    A node without GPU and library is ``GpuReport(count=0)``, which is no error. ``count`` is the driver's and includes
    the GPUs in ``bad``: pairs of index and name of the error; in JSON an object.
    """

    vendor: str = optional(decode_text, "nvidia")
    driver: str | None = optional(decode_text)
    cuda_driver: str | None = optional(decode_text)
    """The newest CUDA version that the driver supports: "12.4"."""
    devices: tuple[Gpu, ...] = optional(several(record(Gpu), DEVICE_LIMIT), ())
    bad: tuple[tuple[int, str], ...] = optional(decode_gpu_errors, ())
    error: str | None = optional(decode_text)
    """"LibRmVersionMismatch", "DriverNotLoaded", "timeout", …"""
    confidential: bool | None = optional(decode_bool)
    """Whether confidential computing is on, which slows transfers over PCIe."""
    p2p: str | None = optional(one_of("all", "none", "partial"))
    """Which pairs of GPUs can read each other's memory directly."""
    count: int | None = optional(decode_int)
    init_ms: int | None = optional(decode_int)
    """Milliseconds that initializing the library took: seconds per GPU if persistence mode is off."""

    def contradiction(self) -> str | None:
        indexes = [gpu.index for gpu in self.devices] + [index for index, _ in self.bad]
        if len(indexes) != len(set(indexes)):
            return "a GPU is reported twice"
        if indexes and (self.count is None or max(indexes) >= self.count):
            return f"GPU {max(indexes)} is beyond the count of {self.count}"
        if (self.count or 0) > DEVICE_LIMIT:
            return f"count is {self.count}, at most {DEVICE_LIMIT} are allowed"
        return None


@record_class
class Nic(Record):
    """One physical network port."""

    name: str | None = optional(decode_text)
    """"mlx5_0", "mlx5_0:2" (its second port), "eth0"."""
    layer: str | None = optional(decode_text)
    """"InfiniBand" or "Ethernet"; Ethernet on an ``rdma`` adapter is RoCE."""
    rate_gbps: float | None = optional(decode_float)
    """Gbit/s in one direction."""
    state: str | None = optional(decode_text)
    """"DOWN", "INIT", …; ``None`` if it is "ACTIVE" or unknown."""
    rdma: bool | None = optional(decode_bool)
    """Whether the adapter supports RDMA (InfiniBand, RoCE, EFA)."""


@record_class
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
    """Kernel release: "5.15.0-105-generic"."""
    kernel_version: str | None = optional(decode_text)
    """Kernel build: "#115-Ubuntu SMP …"."""
    arch: str | None = optional(decode_text)
    """"x86_64", "aarch64"."""
    cpu_model: str | None = optional(decode_text)
    cores_physical: int | None = optional(decode_int)
    cores_logical: int | None = optional(decode_int)
    freq_min_mhz: float | None = optional(decode_float)
    freq_max_mhz: float | None = optional(decode_float)
    cpus_allowed: int | None = optional(decode_int)
    """Logical cores in this process's CPU affinity."""
    cpu_quota: float | None = optional(decode_float)
    """CPU limit of the cgroup, in cores."""
    memory: int | None = optional(decode_int)
    """Bytes."""
    memory_limit: int | None = optional(decode_int)
    """Memory limit of the cgroup in bytes."""
    swap: int | None = optional(decode_int)
    """Bytes."""
    shm: int | None = optional(decode_int)
    """Size of /dev/shm in bytes; dataloader workers pass batches through it."""
    disk: int | None = optional(decode_int)
    """Size in bytes of the filesystem of the working directory."""
    disk_type: str | None = optional(decode_text)
    """Its type: "ext4"; "nfs4" and "lustre" are shared."""
    nics: tuple[Nic, ...] = optional(several(record(Nic), NIC_LIMIT), ())
    virt: str | None = optional(decode_text)
    """The hypervisor: "kvm", "vmware"; "vm" if it cannot be identified."""
    container: str | None = optional(decode_text)
    """The container runtime: "docker", "podman", "kubernetes", "apptainer", …"""
    image: str | None = optional(decode_text)
    """The container image."""
    k8s_pod: str | None = optional(decode_text)
    k8s_node: str | None = optional(decode_text)
    boot_time: float | None = optional(decode_float)
    """Seconds since 1970."""
    timezone: tuple[str, ...] = optional(several(decode_text, 8), ())
    """Names of standard time and daylight saving time."""


@record_class
class SoftwareReport(Record):
    """Versions of the interpreter and of the libraries that determine a training's speed and results."""

    python: str | None = optional(decode_text)
    python_implementation: str | None = optional(decode_text)
    python_compiler: str | None = optional(decode_text)
    python_executable: str | None = optional(decode_text)
    glibc: str | None = optional(decode_text)
    torch: str | None = optional(decode_text)
    """"2.4.0+cu121"."""
    cuda: str | None = optional(decode_text)
    """The CUDA version that torch was built with: "12.1"."""
    cudnn: str | None = optional(decode_text)
    """Three numbers: "9.1.0"."""
    nccl: str | None = optional(decode_text)
    """Three numbers: "2.20.5"."""
    packages: str | None = optional(decode_hash)
    """Hash of the installed packages and their versions."""
    env: str | None = optional(decode_hash)
    """Hash of the environment variables that should be equal on all nodes."""
    commit: str | None = optional(decode_text)
    """HEAD commit of the repository that the code is in."""


@record_class
class RankView(Record):
    """What one rank reports of its GPUs to the node leader."""

    rank: int = required(decode_int)
    """Global rank."""
    visible: str | None = optional(decode_text)
    """Its list of visible devices (CUDA_VISIBLE_DEVICES), unchanged."""
    uuid: str | None = optional(decode_text)
    """UUID of the GPU that its torch uses, as torch has it; known once torch has initialized it."""
    devices: tuple[int, ...] | None = optional(several(decode_int, DEVICE_LIMIT))
    """Minor numbers of the device files that it may open; ``None`` if the node has no such files."""


@record_class
class RankGpu(Record):
    """The GPU of one rank."""

    rank: int = required(decode_int)
    gpu: int | None = optional(decode_int)
    """Index of the library; ``None`` if it cannot be determined."""
    visible: str | None = optional(decode_text)
    """Its list of visible devices, if the ranks of its node have different ones."""
    uuid: str | None = optional(decode_text)
    """UUID of the GPU that its torch uses, if the library lists no such GPU on the node (a cgroup hides it)."""


@record_class
class NodeInventory(Record):
    """Hardware and software of one node, collected once in ``collect_ms`` milliseconds."""

    hostname: str | None = optional(decode_text)
    host: HostReport = optional(record(HostReport), HostReport())
    software: SoftwareReport = optional(record(SoftwareReport), SoftwareReport())
    gpus: GpuReport = optional(record(GpuReport), GpuReport())
    visible: str | None = optional(decode_text)
    """The list of visible devices of the collecting process, unchanged."""
    ranks: tuple[RankGpu, ...] = optional(several(record(RankGpu), RANK_LIMIT), ())
    """The ranks of the node, in ascending order, with the GPU of each."""
    collect_ms: int | None = optional(decode_int)


@record_class
class Git(Record):
    """State of the repository that the code is in."""

    root: str | None = optional(decode_text)
    branch: str | None = optional(decode_text)
    """"" if HEAD is detached."""
    commit: str | None = optional(decode_text)
    dirty: bool | None = optional(decode_bool)
    """Whether a tracked file has changes."""
    url: str | None = optional(decode_text)
    """URL of the remote, without user and password."""


@record_class
class Process(Record):
    """The process that creates the run, and its code, without secrets: the producer has removed them."""

    pid: int | None = optional(decode_int)
    exe: str | None = optional(decode_text)
    cmdline: tuple[str, ...] = optional(several(decode_text, 1024), ())
    requirements: tuple[str, ...] = optional(several(decode_text, PACKAGE_LIMIT), ())
    """"name==version" of every package."""
    environ: tuple[tuple[str, str], ...] = optional(pairs(decode_text, VARIABLE_LIMIT), ())
    """Environment variables of the GPU vendors, NCCL and torch."""
    konduktor: tuple[tuple[str, str], ...] = optional(pairs(decode_text, VARIABLE_LIMIT), ())
    """Name and size of the job, if the Konduktor scheduler started it."""
    git: Git | None = optional(record(Git))
