"""Fields of one GPU beyond its name, from NVML: links, memory errors, clocks, NUMA node and CPU affinity.

Each value is read separately and may fail separately; ``nvidia`` defines how a GPU is read and what happens if it is
lost meanwhile. Names and codes are those of nvml.h.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from pluto_dist.log import lacking
from pluto_dist.serialization.text import record_text

MAX_NVLINKS = 36  # NVML_NVLINK_MAX_LINKS; an H100 or B200 has 18
UNCORRECTED, SINCE_LOADED = 1, 0  # NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC
SM, MEMORY = 1, 2  # NVML_CLOCK_SM, NVML_CLOCK_MEM
CPU_WORDS = 64  # of 64 bits: 4,096 CPUs, Linux's usual limit
ARCHITECTURES = {
    2: "Kepler", 3: "Maxwell", 4: "Pascal", 5: "Volta", 6: "Turing", 7: "Ampere", 8: "Ada", 9: "Hopper",
    10: "Blackwell", 13: "Rubin",
}  # fmt: skip
THROTTLE_REASONS = {
    0x8: "hardware",
    0x20: "temperature, by software",
    0x40: "temperature",
    0x80: "power brake",
}
"""Bits of nvmlClocksEventReasons that indicate a fault; idle, power cap and application clocks are left out."""
FABRIC_COMPLETED = 3  # NVML_GPU_FABRIC_STATE_COMPLETED
FABRIC_STRUCTURE = "c_nvmlGpuFabricInfo_v2_t"  # not in 12.575, whose structure has another size; in 13.615


class Device(Protocol):
    """One GPU, read as in ``nvidia``."""

    nvml: Any

    def read(self, function: str, *args: Any) -> Any: ...


def fields(device: Device) -> dict[str, Any]:
    """Fields of ``records.Gpu`` by name; those that cannot be read are left out."""
    ecc = device.read("nvmlDeviceGetEccMode")
    persistence = device.read("nvmlDeviceGetPersistenceMode")
    rates = device.read("nvmlDeviceGetUtilizationRates")
    found = {
        "arch": ARCHITECTURES.get(device.read("nvmlDeviceGetArchitecture")),
        "cores": device.read("nvmlDeviceGetNumGpuCores") or None,
        "vbios": record_text(device.read("nvmlDeviceGetVbiosVersion")),
        "clock_sm_mhz": device.read("nvmlDeviceGetMaxClockInfo", SM) or None,
        "clock_mem_mhz": device.read("nvmlDeviceGetMaxClockInfo", MEMORY) or None,
        "ecc": None if ecc is None else bool(ecc[0]),
        "ecc_errors": device.read("nvmlDeviceGetTotalEccErrors", UNCORRECTED, SINCE_LOADED),
        "persistence": None if persistence is None else bool(persistence),
        "pcie_gen": device.read("nvmlDeviceGetCurrPcieLinkGeneration"),
        "pcie_width": device.read("nvmlDeviceGetCurrPcieLinkWidth"),
        "pcie_gen_max": device.read("nvmlDeviceGetMaxPcieLinkGeneration"),
        "pcie_width_max": device.read("nvmlDeviceGetMaxPcieLinkWidth"),
        "numa": device.read("nvmlDeviceGetNumaNodeId"),
        "cpus": cpu_list(device.read("nvmlDeviceGetCpuAffinity", CPU_WORDS) or ()),
        "throttle": _throttle_reasons(device),
        "busy": None if rates is None else rates.gpu,
        **_memory_repairs(device),
        **_nvlinks(device),
        **_fabric(device),
    }
    return {name: value for name, value in found.items() if value is not None}


def cpu_list(words: Iterable[int]) -> str | None:
    """A CPU mask (words of 64 bits) in the kernel's list format; as a number it would exceed JSON's exact integers.

    >>> cpu_list([0b1011, 0b1]), cpu_list([2**64 - 1, 2**64 - 1]), cpu_list([0])
    ('0-1,3,64', '0-127', None)
    """
    found = [64 * n + bit for n, word in enumerate(words) for bit in range(64) if word >> bit & 1]
    starts = [cpu for cpu in found if cpu - 1 not in set(found)]
    ends = [cpu for cpu in found if cpu + 1 not in set(found)]
    spans = [f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)]
    return ",".join(spans) or None


def _throttle_reasons(device: Device) -> tuple[str, ...] | None:
    reasons = device.read("nvmlDeviceGetCurrentClocksEventReasons")
    if reasons is None:  # the function's name before driver 535
        reasons = device.read("nvmlDeviceGetCurrentClocksThrottleReasons")
    return None if reasons is None else tuple(word for bit, word in THROTTLE_REASONS.items() if reasons & bit)


def _memory_repairs(device: Device) -> dict[str, Any]:
    """Remapped rows (since Ampere) or retired pages (before), for single-bit and double-bit errors."""
    rows = device.read("nvmlDeviceGetRemappedRows")
    if rows is not None:
        corrected, uncorrected, pending, failed = rows
        flags = {"remap_pending": bool(pending), "remap_failed": bool(failed)}
        return {"remapped_rows": corrected + uncorrected, **flags}
    pages = [found for cause in (0, 1) if (found := device.read("nvmlDeviceGetRetiredPages", cause)) is not None]
    return {"retired_pages": sum(map(len, pages)) if pages else None}


def _nvlinks(device: Device) -> dict[str, Any]:
    """NVLinks; the first link that does not exist returns an error, link 0 if the GPU has no NVLink."""
    states = []
    for link in range(MAX_NVLINKS):
        if (state := device.read("nvmlDeviceGetNvLinkState", link)) is None:
            break
        states.append(bool(state))
    if not states:
        return {}
    version = device.read("nvmlDeviceGetNvLinkVersion", 0)
    return {"nvlinks": len(states), "nvlinks_up": sum(states), "nvlink_version": version}


def _fabric(device: Device) -> dict[str, Any]:
    """Cluster and clique of a GPU in an NVLink fabric (GB200 NVL72).

    An HGX H100 reports a completed registration with a cluster UUID of zeros: it has no fabric (torchcomms#1385). A
    clique number alone identifies nothing (32766 everywhere, nccl#1301).
    """
    import ctypes  # pynvml has imported it

    structure = getattr(device.nvml, FABRIC_STRUCTURE, None)
    if structure is None:
        lacking(f"pynvml.{FABRIC_STRUCTURE}", "no NVLink fabric (GB200) is recorded; install a newer nvidia-ml-py")
        return {}
    info = structure()
    if device.read("nvmlDeviceGetGpuFabricInfoV", ctypes.byref(info)) is None or info.state != FABRIC_COMPLETED:
        return {}
    cluster = bytes(info.clusterUuid)
    return {"fabric_cluster": cluster.hex(), "fabric_clique": int(info.cliqueId)} if any(cluster) else {}
