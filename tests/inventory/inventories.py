"""Hypothesis strategies for inventories, and typical nodes of a cluster."""

from __future__ import annotations

from hypothesis import strategies as st

from pluto_dist.inventory.records import (
    Git,
    Gpu,
    GpuReport,
    HostReport,
    MigInstance,
    Nic,
    NodeInventory,
    Process,
    SoftwareReport,
)

TEXTS = st.text(st.characters(exclude_categories=()), max_size=20)  # NUL and lone surrogates too
NUMBERS = st.integers(0, 2**53 - 1)
FREQUENCIES = st.floats(0, 1e6)
HASHES = st.sampled_from(["0123456789abcdef", "f" * 16])
ERRORS = st.sampled_from(["GpuIsLost", "NoPermission", "Unknown"])


def unknown_or(strategy):
    return st.none() | strategy


def records(record, **known):
    """Any ``record`` with the fields in ``known``; all other strings are unknown or any text."""
    others = {
        name: unknown_or(TEXTS)
        for name, type_ in record.__annotations__.items()
        if name not in known and type_ == "str | None"
    }
    return st.builds(record, **others, **known)


MIG_INSTANCES = records(MigInstance)


def gpus(index):
    return records(
        Gpu,
        index=st.just(index),
        memory=unknown_or(NUMBERS),
        memory_kind=st.sampled_from([None, "unified"]),
        temperature=unknown_or(NUMBERS),
        power_limit_w=unknown_or(st.sampled_from([600, 700])),
        pids=st.lists(NUMBERS, max_size=3).map(tuple),
        mig=st.sampled_from([None, False, True]),
        mig_instances=st.lists(MIG_INSTANCES, max_size=2).map(tuple),
    )


@st.composite
def gpu_reports(draw):
    count = draw(st.integers(0, 4))
    answers = draw(st.lists(st.sampled_from(["well", "bad", "unread"]), min_size=count, max_size=count))
    return draw(
        records(
            GpuReport,
            vendor=st.just("nvidia"),
            devices=st.tuples(*(gpus(i) for i, answer in enumerate(answers) if answer == "well")),
            bad=st.tuples(*(st.tuples(st.just(i), ERRORS) for i, a in enumerate(answers) if a == "bad")),
            error=unknown_or(ERRORS),
            count=st.just(count) if count else unknown_or(st.just(0)),
            p2p=st.sampled_from([None, "all", "none", "partial"]),
            init_ms=unknown_or(NUMBERS),
        )
    )


HOSTS = records(
    HostReport,
    cores_physical=unknown_or(NUMBERS),
    cores_logical=unknown_or(NUMBERS),
    freq_min_mhz=unknown_or(FREQUENCIES),
    freq_max_mhz=unknown_or(FREQUENCIES),
    memory=unknown_or(NUMBERS),
    swap=unknown_or(NUMBERS),
    cpus_allowed=unknown_or(NUMBERS),
    cpu_quota=unknown_or(FREQUENCIES),
    memory_limit=unknown_or(NUMBERS),
    shm=unknown_or(NUMBERS),
    disk=unknown_or(NUMBERS),
    nics=st.lists(records(Nic, rate_gbps=unknown_or(FREQUENCIES)), max_size=2).map(tuple),
    boot_time=unknown_or(FREQUENCIES),
    timezone=st.lists(TEXTS, max_size=2).map(tuple),
)
INVENTORIES = records(
    NodeInventory,
    host=HOSTS,
    software=records(SoftwareReport, packages=unknown_or(HASHES), env=unknown_or(HASHES)),
    gpus=gpu_reports(),
    collect_ms=unknown_or(NUMBERS),
)
VARIABLES = st.dictionaries(
    st.sampled_from(["NCCL_DEBUG", "CUDA_HOME", "TORCHELASTIC_RUN_ID", "TORCH_NCCL_BLOCKING_WAIT"]), TEXTS
)
URLS = st.sampled_from(["https://github.com/o/r.git", "ssh://host:22/r", "git@github.com:o/r.git"])
COMMITS = st.sampled_from(["a" * 40, "0" * 64])
PROCESSES = records(
    Process,
    pid=unknown_or(NUMBERS),
    cmdline=st.lists(TEXTS, max_size=3).map(tuple),
    requirements=st.lists(TEXTS, max_size=3).map(tuple),
    environ=VARIABLES.map(lambda found: tuple(found.items())),
    konduktor=st.dictionaries(st.sampled_from(["job_name", "num_nodes", "num_gpus_per_node"]), TEXTS).map(
        lambda found: tuple(found.items())
    ),
    git=unknown_or(records(Git, commit=unknown_or(COMMITS), dirty=unknown_or(st.booleans()), url=unknown_or(URLS))),
)


def h100_node(name: str, *, power_w: dict[int, int] | None = None, lost: tuple[int, ...] = ()) -> NodeInventory:
    """A typical node with 8 H100 GPUs, whose UUIDs are derived from its name."""
    devices = (
        Gpu(
            index=i,
            name="NVIDIA H100 80GB HBM3",
            uuid=f"GPU-{hash_of(name)}-86f3-7a43-b711-4771313afc5{i}",
            memory=85520809984,
            compute_capability="9.0",
            pci_bus_id=f"00000000:{i}B:00.0",
            temperature=31 + i,
            power_limit_w=(power_w or {}).get(i, 700),
            pids=(4242 + i,),
            mig=False,
            nvlinks=18,
            nvlinks_up=18,
            numa=i // 4,
            cpus="0-55,112-167" if i < 4 else "56-111,168-223",
        )
        for i in range(8)
        if i not in lost
    )
    return NodeInventory(
        hostname=name,
        host=HostReport(
            system="Linux",
            os="Ubuntu 22.04.4 LTS",
            os_name="Ubuntu",
            os_version="22.04.4 LTS (Jammy Jellyfish)",
            os_id="ubuntu",
            kernel="5.15.0-105-generic",
            arch="x86_64",
            cpu_model="Intel(R) Xeon(R) Platinum 8480C",
            cores_physical=112,
            cores_logical=224,
            freq_min_mhz=800.0,
            freq_max_mhz=3800.0,
            cpus_allowed=224,
            memory=2164000000000 + len(name) * 4096,
            swap=0,
            shm=1082000000000 + len(name) * 2048,
            disk=7_500_000_000_000_000,
            disk_type="lustre",
            nics=(
                *(Nic(f"mlx5_{i}", "InfiniBand", 400.0, rdma=True) for i in range(8)),
                Nic("eth0", "Ethernet", 100.0),
            ),
            container="kubernetes",
            k8s_pod=f"{name}-pod",
            boot_time=1.7e9,
            timezone=("UTC", "UTC"),
        ),
        software=SoftwareReport(
            python="3.11.7",
            torch="2.4.0+cu121",
            cuda="12.1",
            cudnn="9.1.0",
            nccl="2.20.5",
            packages="0123456789abcdef",
            env="fedcba9876543210",
            commit="a" * 40,
        ),
        gpus=GpuReport(
            driver="550.54.15",
            cuda_driver="12.4",
            devices=tuple(devices),
            bad=tuple((i, "GpuIsLost") for i in lost),
            count=8,
            init_ms=12,
        ),
        collect_ms=25,
    )


def hash_of(name: str) -> str:
    import zlib

    return f"{zlib.crc32(name.encode()):08x}"


def creator(packages: int = 300) -> Process:
    """The process that creates the run, with this number of installed packages."""
    return Process(
        pid=4242,
        exe="/opt/conda/bin/python",
        cmdline=("/opt/conda/bin/python", "-u", "train.py", "--config", "configs/llama-8b.yaml"),
        requirements=tuple(f"nvidia-package-number-{n}==12.{n}.105" for n in range(packages)),
        environ=(("CUDA_DEVICE_MAX_CONNECTIONS", "1"), ("NCCL_IB_HCA", "mlx5"), ("OMP_NUM_THREADS", "8")),
        git=Git(root="/code", branch="main", commit="a" * 40, dirty=False, url="git@github.com:o/r.git"),
    )
