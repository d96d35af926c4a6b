"""What NVML tells of one GPU beyond its name: its links, its memory's health, its clocks, its place in the machine.

Each value is asked for alone and may fail alone; ``nvidia`` says how a GPU is asked, and what becomes of one that is
lost meanwhile. Names and codes are nvml.h's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any, Protocol

from pluto_dist.serialization.text import clean_text

MOST_NVLINKS = 36  # NVML_NVLINK_MAX_LINKS; an H100 or B200 has 18
UNCORRECTED, SINCE_LOADED = 1, 0  # NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC
SM, MEMORY = 1, 2  # NVML_CLOCK_SM, NVML_CLOCK_MEM
CPU_WORDS = 64  # of 64 bits: 4,096 CPUs, Linux's usual limit
ARCHITECTURES = {
    2: "Kepler", 3: "Maxwell", 4: "Pascal", 5: "Volta", 6: "Turing", 7: "Ampere", 8: "Ada", 9: "Hopper",
    10: "Blackwell", 13: "Rubin",
}  # fmt: skip
SLOWDOWNS = {
    0x8: "hardware",
    0x20: "temperature, by software",
    0x40: "temperature",
    0x80: "power brake",
}
"""Bits of nvmlClocksEventReasons that no healthy GPU shows; idle, power caps and set clocks are none."""
FABRIC_COMPLETED = 3  # NVML_GPU_FABRIC_STATE_COMPLETED


class Device(Protocol):
    """One GPU, as ``nvidia`` reads it."""

    nvml: Any

    def read(self, function: str, *args: Any) -> Any: ...


def fields(device: Device) -> dict[str, Any]:
    """The fields of ``records.Gpu`` that are read here, by name; what cannot be read is left out."""
    ecc = device.read("nvmlDeviceGetEccMode")
    persistence = device.read("nvmlDeviceGetPersistenceMode")
    rates = device.read("nvmlDeviceGetUtilizationRates")
    found = {
        "arch": ARCHITECTURES.get(device.read("nvmlDeviceGetArchitecture")),
        "cores": device.read("nvmlDeviceGetNumGpuCores") or None,
        "vbios": clean_text(device.read("nvmlDeviceGetVbiosVersion")),
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
        "throttle": _slowdowns(device),
        "busy": None if rates is None else rates.gpu,
        **_worn_memory(device),
        **_nvlinks(device),
        **_fabric(device),
    }
    return {name: value for name, value in found.items() if value is not None}


def cpu_list(words: Iterable[int]) -> str | None:
    """A mask of CPUs, 64 a word, as Linux writes lists of them: a mask as a number is beyond JSON's exact ones.

    >>> cpu_list([0b1011, 0b1]), cpu_list([2**64 - 1, 2**64 - 1]), cpu_list([0])
    ('0-1,3,64', '0-127', None)
    """
    found = [64 * n + bit for n, word in enumerate(words) for bit in range(64) if word >> bit & 1]
    starts = [cpu for cpu in found if cpu - 1 not in set(found)]
    ends = [cpu for cpu in found if cpu + 1 not in set(found)]
    spans = [f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)]
    return ",".join(spans) or None


def _slowdowns(device: Device) -> tuple[str, ...] | None:
    reasons = device.read("nvmlDeviceGetCurrentClocksEventReasons")
    if reasons is None:  # its name before driver 535
        reasons = device.read("nvmlDeviceGetCurrentClocksThrottleReasons")
    return None if reasons is None else tuple(word for bit, word in SLOWDOWNS.items() if reasons & bit)


def _worn_memory(device: Device) -> dict[str, Any]:
    """Rows that were remapped (since Ampere), or pages that were retired (before) for errors of one bit and of two."""
    rows = device.read("nvmlDeviceGetRemappedRows")
    if rows is not None:
        corrected, uncorrected, pending, failed = rows
        flags = {"remap_pending": bool(pending), "remap_failed": bool(failed)}
        return {"remapped_rows": corrected + uncorrected, **flags}
    pages = [found for cause in (0, 1) if (found := device.read("nvmlDeviceGetRetiredPages", cause)) is not None]
    return {"retired_pages": sum(map(len, pages)) if pages else None}


def _nvlinks(device: Device) -> dict[str, Any]:
    """A link that does not exist answers an error; the first one does where there is no NVLink at all."""
    states = []
    for link in range(MOST_NVLINKS):
        if (state := device.read("nvmlDeviceGetNvLinkState", link)) is None:
            break
        states.append(bool(state))
    if not states:
        return {}
    version = device.read("nvmlDeviceGetNvLinkVersion", 0)
    return {"nvlinks": len(states), "nvlinks_up": sum(states), "nvlink_version": version}


def _fabric(device: Device) -> dict[str, Any]:
    """Cluster and clique of a GPU in an NVLink fabric (GB200 NVL72).

    An HGX H100 says that it has joined one, and names the cluster with zeros: it has none (torchcomms#1385). A
    clique's number alone names nothing (32766 everywhere, nccl#1301).
    """
    structure = getattr(device.nvml, "c_nvmlGpuFabricInfo_v2_t", None)  # missing before nvidia-ml-py 12.560
    if structure is None:
        return {}
    info = structure()
    if device.read("nvmlDeviceGetGpuFabricInfoV", ctypes.byref(info)) is None or info.state != FABRIC_COMPLETED:
        return {}
    cluster = bytes(info.clusterUuid)
    return {"fabric_cluster": cluster.hex(), "fabric_clique": int(info.cliqueId)} if any(cluster) else {}
