"""Hypothesis strategies for inventories, and what makes a document unfit for the Pluto UI."""

from __future__ import annotations

from hypothesis import strategies as st

from pluto_dist.inventory import (
    Gpu,
    GpuReport,
    HostReport,
    MigInstance,
    NodeInventory,
    Process,
    SoftwareReport,
)

TEXTS = st.text(st.characters(exclude_categories=()), max_size=20)  # NUL and lone surrogates too
NUMBERS = st.integers(0, 2**53 - 1)
FREQUENCIES = st.floats(0, 1e6)
ERRORS = st.sampled_from(["GpuIsLost", "NoPermission", "Unknown"])


def unknown_or(strategy):
    return st.none() | strategy


def records(record, **known):
    """Any ``record``: the fields in ``known`` as they are there, all others unknown or a text."""
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
    boot_time=unknown_or(FREQUENCIES),
    timezone=st.lists(TEXTS, max_size=2).map(tuple),
)
INVENTORIES = records(
    NodeInventory,
    host=HOSTS,
    software=records(SoftwareReport),
    gpus=gpu_reports(),
    collect_ms=unknown_or(NUMBERS),
)
PROCESSES = records(Process, pid=unknown_or(NUMBERS), cmdline=st.lists(TEXTS, max_size=3).map(tuple))


def h100_node(name: str, *, power_w: dict[int, int] | None = None, lost: tuple[int, ...] = ()) -> NodeInventory:
    """An 8 x H100 node as production has it; UUIDs made of its name."""
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
            memory=2164000000000 + len(name) * 4096,
            swap=0,
            boot_time=1.7e9,
            timezone=("UTC", "UTC"),
        ),
        software=SoftwareReport(python="3.11.7", torch="2.4.0+cu121", cuda="12.1", cudnn="9.1.0", nccl="2.20.5"),
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


def ui_faults(document: dict) -> list[str]:
    """Why a card of the Pluto UI would vanish; empty when all are shown.

    Measured with the UI's own schemas: a device needs an integer ``temp`` and a positive
    ``memory.total``, ``gpu.nvidia`` is no null and has a ``driver``, ``git`` comes with ``diff``.
    """
    faults = [f"{name} is null" for name, value in document.items() if value is None]
    for name in ("process", "platform", "cpu", "memory", "os_info", "cuda", "nccl", "gpu"):
        faults += [f"{path} is null" for path in nulls_in(document.get(name, {}), name)]
    if "git" in document and "diff" not in document["git"]:
        faults.append("git without diff")
    card = document.get("gpu", {}).get("nvidia", {"driver": "", "count": 0, "devices": []})
    if not isinstance(card.get("driver"), str) or type(card.get("count")) is not int:
        faults.append("gpu.nvidia without driver or count")
    for device in card["devices"]:
        if type(device.get("temp")) is not int or not isinstance(device.get("name"), str):
            faults.append("a device without integer temp or name")
        if type(device["memory"].get("total")) is not int or device["memory"]["total"] <= 0:
            faults.append("a device without memory")
    return faults


def nulls_in(value: object, path: str) -> list[str]:
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in nulls_in(item, f"{path}.{key}")]
    if isinstance(value, list):
        return [found for n, item in enumerate(value) for found in nulls_in(item, f"{path}[{n}]")]
    return [path] if value is None else []
