"""Table of the NVML functions in a profile, and their keys; ``dump`` calls them.

The keys are those of the fake driver of the tests (``tests/fakenvml``), which returns the values of such a profile.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pluto_dist.inventory.gpu.nvidia_fields import CPU_WORDS, cpu_list

Values = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Getter:
    """One function of a device.

    Attributes:
        symbol: its name in the library, which is the key of its error in a profile.
        read: calls pynvml's function with the module and a handle.
        values: keys and values for a result.
    """

    symbol: str
    read: Callable[[Any, Any], Any]
    values: Callable[[Any], Values]


def _one(
    symbol: str, key: str, *args: int, function: str = "", text: Callable[[Any], object] = lambda value: value
) -> Getter:
    """A function with one line in a profile; ``function`` is its name in pynvml if that differs from the library's."""
    name = function or symbol
    return Getter(symbol, lambda nvml, handle: getattr(nvml, name)(handle, *args), lambda value: {key: text(value)})


def _memory(value: Any) -> Values:
    return {"mem.total": value.total, "mem.used": value.used}


def _pids(processes: Any) -> str:
    return ",".join(str(process.pid) for process in processes)


def _fabric(nvml: Any, handle: Any) -> Any:
    info = nvml.c_nvmlGpuFabricInfoV_t()
    nvml.nvmlDeviceGetGpuFabricInfoV(handle, ctypes.byref(info))
    return info


def _fabric_values(info: Any) -> Values:
    cluster = bytes(info.clusterUuid).hex()
    return {"fabric.state": info.state, "fabric.clique": info.cliqueId, "fabric.cluster": cluster}


IDENTITY = (
    _one("nvmlDeviceGetName", "name"),
    _one("nvmlDeviceGetUUID", "uuid"),
    Getter("nvmlDeviceGetMemoryInfo", lambda nvml, handle: nvml.nvmlDeviceGetMemoryInfo(handle), _memory),
)
"""Functions that MIG instances support as well."""

DEVICE: tuple[Getter, ...] = (
    *IDENTITY,
    Getter(
        "nvmlDeviceGetMemoryInfo_v2",
        lambda nvml, handle: nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2),
        _memory,
    ),
    _one("nvmlDeviceGetPciInfo_v3", "pci", function="nvmlDeviceGetPciInfo", text=lambda info: info.busId),
    _one("nvmlDeviceGetSerial", "serial"),
    _one("nvmlDeviceGetBoardPartNumber", "board"),
    _one("nvmlDeviceGetVbiosVersion", "vbios"),
    _one("nvmlDeviceGetMinorNumber", "minor"),
    _one("nvmlDeviceGetArchitecture", "arch"),
    _one("nvmlDeviceGetNumGpuCores", "cores"),
    _one("nvmlDeviceGetNumaNodeId", "numa"),
    _one("nvmlDeviceGetPersistenceMode", "persistence"),
    _one("nvmlDeviceGetComputeMode", "compute_mode"),
    _one("nvmlDeviceGetEnforcedPowerLimit", "power.limit_mw"),
    _one("nvmlDeviceGetPowerManagementDefaultLimit", "power.default_mw"),
    _one("nvmlDeviceGetPowerUsage", "power.draw_mw"),
    _one("nvmlDeviceGetCurrPcieLinkGeneration", "pcie.gen"),
    _one("nvmlDeviceGetCurrPcieLinkWidth", "pcie.width"),
    _one("nvmlDeviceGetMaxPcieLinkGeneration", "pcie.gen_max"),
    _one("nvmlDeviceGetMaxPcieLinkWidth", "pcie.width_max"),
    _one("nvmlDeviceGetCurrentClocksEventReasons", "throttle"),
    _one("nvmlDeviceGetCurrentClocksThrottleReasons", "throttle"),
    _one("nvmlDeviceGetTemperature", "temp", 0),
    *(_one("nvmlDeviceGetMaxClockInfo", f"clock.{clock}", clock) for clock in range(4)),
    _one("nvmlDeviceGetCudaComputeCapability", "cc", text=lambda pair: f"{pair[0]}.{pair[1]}"),
    _one("nvmlDeviceGetUtilizationRates", "util", text=lambda rates: f"{rates.gpu},{rates.memory}"),
    _one("nvmlDeviceGetEccMode", "ecc", text=lambda modes: str(modes[0])),
    *(_one("nvmlDeviceGetTotalEccErrors", f"ecc.errors.{kind}", kind, 0) for kind in (0, 1)),
    _one("nvmlDeviceGetRemappedRows", "remapped", text=lambda rows: ",".join(map(str, rows))),
    _one("nvmlDeviceGetCpuAffinity", "cpus", CPU_WORDS, text=lambda words: cpu_list(words) or ""),
    _one(
        "nvmlDeviceGetComputeRunningProcesses_v3", "pids", function="nvmlDeviceGetComputeRunningProcesses", text=_pids
    ),
    _one(
        "nvmlDeviceGetGraphicsRunningProcesses_v3",
        "gpids",
        function="nvmlDeviceGetGraphicsRunningProcesses",
        text=_pids,
    ),
    _one("nvmlDeviceGetMigMode", "mig", text=lambda modes: str(modes[0])),
    _one("nvmlDeviceGetMaxMigDeviceCount", "mig.max"),
    _one("nvmlDeviceGetNvLinkVersion", "nvlink.version", 0),
    Getter("nvmlDeviceGetGpuFabricInfoV", _fabric, _fabric_values),
)

SYSTEM: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "nvmlSystemGetDriverVersion": ("driver", lambda nvml: nvml.nvmlSystemGetDriverVersion()),
    "nvmlSystemGetNVMLVersion": ("nvml", lambda nvml: nvml.nvmlSystemGetNVMLVersion()),
    "nvmlSystemGetCudaDriverVersion": ("cuda", lambda nvml: nvml.nvmlSystemGetCudaDriverVersion()),
    "nvmlSystemGetConfComputeState": ("confidential", lambda nvml: nvml.nvmlSystemGetConfComputeState().ccFeature),
}
"""Functions without a device: their keys, and how to read their values."""

PAIRS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "nvmlDeviceGetTopologyCommonAncestor": ("topo", ()),
    "nvmlDeviceGetP2PStatus": ("p2p", (0,)),  # NVML_P2P_CAPS_INDEX_READ
}
"""Functions of two devices: their keys and additional arguments."""
