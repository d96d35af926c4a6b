"""The NVIDIA GPUs of this node, read from NVML; nvidia-smi is never run.

All known deviations of NVML are handled in this file, with their sources. There are no threads and no deadlines here:
a driver can block indefinitely (NVIDIA/go-nvml#152: 570.148 on H200; NVIDIA/open-gpu-kernel-modules#971: B200 after
66 days), so ``collect`` calls ``probe`` in a daemon thread.

NVML counts calls of init and shutdown, which are paired here, so other users of NVML in this process, such as torch,
are not affected (nvml.h). There is no atexit handler: it would race with threads that still use NVML (nvitop#222).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from pluto_dist.inventory.gpu import nvidia_fields, nvidia_proc
from pluto_dist.inventory.gpu.vendor import Fixes, GpuVendor, PythonPackages, Runtime, TorchBackend, VisibleDevices
from pluto_dist.inventory.records import DEVICE_LIMIT, MIG_LIMIT, PID_LIMIT, Gpu, GpuReport, MigInstance
from pluto_dist.inventory.safe_read import attempt, value_or_none
from pluto_dist.serialization.text import parse_digits, record_text

LOST_ERRORS = frozenset({"GpuIsLost", "ResetRequired"})
"""Errors after which a GPU is not queried again: calls for a lost GPU can crash in the driver (nvitop#139)."""

P2P_READ, P2P_OK = 0, 0  # pynvml's own NVML_P2P_CAPS_INDEX_READ is a tuple by mistake (13.615)
CONFIDENTIAL = 1  # NVML_CC_SYSTEM_FEATURE_ENABLED
LARGEST_MEMORY = 2**50  # bytes; no GPU has a pebibyte
LARGEST_PID = 2**22  # the kernel's PID_MAX_LIMIT on 64-bit systems


class GpuLostError(Exception):
    """The GPU fell off the bus, at its handle or at a later call; the message is the name of NVML's error."""


def probe() -> GpuReport:
    """All NVIDIA GPUs of this node. A value that cannot be read is ``None``; nothing is raised.

    Blocks as long as the driver does. A failure of the library as a whole is ``GpuReport.error``:
    "LibRmVersionMismatch" after a driver upgrade without reboot (gpustat#147, dask-cuda#949), "Unknown" in a container
    that lost its device permissions through ``systemctl daemon-reload`` (nvidia-container-toolkit#48),
    "NoPermission", "DriverNotLoaded". Without the library the node has no NVIDIA GPUs.
    """
    nvml, error = attempt(import_pynvml)
    if nvml is None:
        return GpuReport(error=error_name(error))
    began = time.monotonic()
    _, error = attempt(nvml.nvmlInit)
    init_ms = round(1000 * (time.monotonic() - began))
    if error is not None:
        missing = error_name(error) == "LibraryNotFound"
        return GpuReport(count=0) if missing else GpuReport(error=error_name(error), init_ms=init_ms)
    try:
        return _report(nvml, init_ms)
    finally:
        value_or_none(nvml.nvmlShutdown)


def error_name(error: Exception | None) -> str:
    """NVML's name of an error, "GpuIsLost" for NVMLError_GpuIsLost; the class name of any other exception.

    >>> error_name(ValueError("x"))
    'ValueError'
    """
    name = type(error).__name__
    if name == "NVMLError":  # an error code without a class in this pynvml
        return f"Error{getattr(error, 'value', '')}"
    return name.removeprefix("NVMLError_")


def import_pynvml() -> Any:
    """The ``pynvml`` module: nvidia-ml-py's, or that of the abandoned package of the same name.

    pynvml 11.x on PyPI installs a package that shadows nvidia-ml-py's module; up to 11.4 it returns bytes, as
    nvidia-ml-py did before 11.525 (dask#5768, vllm#7649). ``record_text`` accepts both.
    """
    import pynvml

    return pynvml


def _report(nvml: Any, init_ms: int) -> GpuReport:
    count, error = attempt(nvml.nvmlDeviceGetCount)
    devices, bad = [], []
    for index in range(min(count or 0, DEVICE_LIMIT)):
        # One faulty GPU must not hide the others (k8s-device-plugin#231: it hid three).
        gpu, failure = attempt(partial(_gpu, nvml, index))
        if gpu is not None:
            devices.append(gpu)
        else:
            bad.append((index, str(failure) if isinstance(failure, GpuLostError) else error_name(failure)))
    return GpuReport(
        p2p=value_or_none(lambda: _p2p(nvml, [gpu.index for gpu in devices])),
        confidential=value_or_none(lambda: nvml.nvmlSystemGetConfComputeState().ccFeature == CONFIDENTIAL) or None,
        driver=value_or_none(lambda: record_text(nvml.nvmlSystemGetDriverVersion())),
        cuda_driver=value_or_none(lambda: _cuda_version(nvml.nvmlSystemGetCudaDriverVersion())),
        devices=tuple(devices),
        bad=tuple(bad),
        error=None if error is None else error_name(error),
        count=count,
        init_ms=init_ms,
    )


def _p2p(nvml: Any, indexes: list[int]) -> str | None:
    """Which pairs of GPUs can read each other's memory directly: "all", "none" or "partial"."""
    if len(indexes) < 2:
        return None
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in indexes]
    ok = [
        nvml.nvmlDeviceGetP2PStatus(one, other, P2P_READ) == P2P_OK
        for n, one in enumerate(handles)
        for other in handles[n + 1 :]
    ]
    return "all" if all(ok) else "partial" if any(ok) else "none"


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


class _Device:
    """The handle of one GPU or MIG instance, and how its values are read."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self.nvml = nvml
        self.handle = handle
        self.first_error: str | None = None

    def read(self, function: str, *args: Any) -> Any:
        """The result of NVML's ``function`` for this GPU, or ``None`` if it failed.

        Raises:
            GpuLostError: the GPU is lost.
        """
        return self.query(function, *args)[0]

    def query(self, function: str, *args: Any) -> tuple[Any, str | None]:
        """The result, or ``None`` and the name of the error."""
        value, error = attempt(lambda: getattr(self.nvml, function)(self.handle, *args))
        if error is None:
            return value, None
        name = error_name(error)
        if name in LOST_ERRORS:
            raise GpuLostError(name)
        self.first_error = self.first_error or name
        return None, name


def _gpu(nvml: Any, index: int) -> Gpu:
    """One GPU; one that has neither name nor UUID nor bus id counts as lost."""
    device = _Device(nvml, nvml.nvmlDeviceGetHandleByIndex(index))
    # A name may be bytes that are not UTF-8 (pynvml#53, ray#45492: WSL, driver 555): pynvml raises, so it is unknown.
    name = record_text(device.read("nvmlDeviceGetName"))
    uuid = record_text(device.read("nvmlDeviceGetUUID"))
    pci_bus_id = _pci_bus_id(device)
    if name is uuid is pci_bus_id is None:
        raise GpuLostError(device.first_error or "Unnamed")
    memory, memory_kind = _memory(device)
    capability = device.read("nvmlDeviceGetCudaComputeCapability")
    power_mw = device.read("nvmlDeviceGetEnforcedPowerLimit")
    mig = device.read("nvmlDeviceGetMigMode")
    return Gpu(
        index=index,
        name=name,
        uuid=uuid,
        memory=memory,
        memory_kind=memory_kind,
        compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
        pci_bus_id=pci_bus_id,
        temperature=device.read("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        power_limit_w=None if not power_mw else round(power_mw / 1000),
        pids=_pids(device),
        **nvidia_fields.fields(device),
        mig=None if mig is None else bool(mig[0]),
        mig_instances=_mig_instances(device) if mig and mig[0] else (),
    )


def _pci_bus_id(device: _Device) -> str | None:
    info = device.read("nvmlDeviceGetPciInfo")
    return None if info is None else record_text(info.busId)


def _memory(device: _Device) -> tuple[int | None, str | None]:
    """Bytes and kind. For ``(None, "unified")`` ``collect`` fills in the size of the host's memory.

    GB10 (DGX Spark) and Thor have no memory of their own: NOT_SUPPORTED, from version 2 of the call too
    (gpud#1170, nvtop#411, nvitop PR #208: driver 580.173). Only that error means unified memory; any other means
    unknown. A Jetson returns SUCCESS with zeros or garbage (nv-monitor#17), which is unknown as well.
    """
    info, error = device.query("nvmlDeviceGetMemoryInfo")
    if error == "NotSupported":
        return None, "unified"
    return (info.total if info is not None and 0 < info.total <= LARGEST_MEMORY else None), None


def _pids(device: _Device) -> tuple[int, ...]:
    """Processes on the GPU, for display: the pid namespace depends on the driver (nvidia-docker#1483).

    The call is missing before driver 510 (pynvml raises NVMLLibraryMismatchError) and returns another structure under
    the same name in 535.43 to 535.86 (nvitop PR #79, #89), whose numbers are outside the range of pids.
    """
    found = [
        process.pid
        for kind in ("Compute", "Graphics")
        for process in device.read(f"nvmlDeviceGet{kind}RunningProcesses") or ()
    ]
    return tuple(dict.fromkeys(pid for pid in found if 0 < pid <= LARGEST_PID))[:PID_LIMIT]


def _mig_instances(device: _Device) -> tuple[MigInstance, ...]:
    """Instances of a GPU in MIG mode, whose own memory and utilization mean nothing (dask#8739, vllm#41776).

    The used slots need not be the first ones, so all are queried; an empty one returns NOT_FOUND.
    """
    slots = min(device.read("nvmlDeviceGetMaxMigDeviceCount") or 0, MIG_LIMIT)
    handles = [device.read("nvmlDeviceGetMigDeviceHandleByIndex", slot) for slot in range(slots)]
    return tuple(_mig_instance(_Device(device.nvml, handle)) for handle in handles if handle is not None)


def _mig_instance(device: _Device) -> MigInstance:
    return MigInstance(record_text(device.read("nvmlDeviceGetUUID")), record_text(device.read("nvmlDeviceGetName")))


# The vendor.


def _judge_packages(installed: Mapping[str, str | None]) -> tuple[str, str]:
    """PyPI's deprecated pynvml 11 shadows nvidia-ml-py's module; from 12 on it only depends on nvidia-ml-py."""
    pynvml, nvidia_ml_py = installed.get("pynvml"), installed.get("nvidia-ml-py")
    if pynvml is not None and (parse_digits(pynvml.partition(".")[0]) or 0) < 12:
        saw = f"pynvml {pynvml} hides nvidia-ml-py {nvidia_ml_py or '(not installed)'}"
        return saw, "pip uninstall pynvml, then pip install --force-reinstall nvidia-ml-py"
    if nvidia_ml_py is None:
        return "nvidia-ml-py is not installed", "pip install nvidia-ml-py"
    return f"nvidia-ml-py {nvidia_ml_py}", ""


FIXES = Fixes(
    errors={
        "LibRmVersionMismatch": (
            "The driver was upgraded, the loaded module is the old one: reboot, or reload the module."
        ),
        "DriverNotLoaded": "modprobe nvidia; dmesg says why it is not loaded.",
        "NoPermission": "Give this user access to /dev/nvidia*; in a container: docker run --gpus all.",
        "Unknown": (
            "In a container: restart it (systemctl daemon-reload removed its devices). On a host: dmesg | grep Xid."
        ),
        "timeout": "Check whether nvidia-smi hangs as well; dmesg | grep Xid, then drain the node and reboot it.",
        "GpuIsLost": "dmesg | grep Xid, then drain the node: nvidia-smi --gpu-reset, or reboot.",
        "ResetRequired": "nvidia-smi --gpu-reset, with no process on it; or reboot.",
    },
    unknown_error="nvidia-smi may show more; dmesg | grep -i nvidia.",
    container="In a container: docker run --gpus all.",
    reset="nvidia-smi --gpu-reset with no process on it, or reboot; if it comes back, replace the GPU.",
    links="nvidia-smi nvlink -s; with NVSwitch: systemctl status nvidia-fabricmanager, then reset.",
    clocks="Check cooling and power; nvidia-smi -q -d PERFORMANCE.",
    partitions=(
        "MIG",
        "Give each rank one instance by its MIG-UUID in CUDA_VISIBLE_DEVICES; nvidia-smi -mig 0 disables MIG.",
    ),
    persistence="nvidia-smi -pm 1, or run nvidia-persistenced.",
)

VENDOR = GpuVendor(
    name="nvidia",
    title="NVIDIA",
    library="NVML",
    probe=probe,
    visible=VisibleDevices(
        ("CUDA_VISIBLE_DEVICES",), uuid_prefixes=("GPU-", "MIG-"), order=("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    ),
    link="nvlink",
    link_title="NVLink",
    env_prefixes=("CUDA_",),
    bus_id=nvidia_proc.bus_id,
    openable=nvidia_proc.openable_minors,
    kernel_gpus=nvidia_proc.list_gpus,
    torch=TorchBackend("cuda", "_cuda_hasPrimaryContext"),  # torch 2.13 has no public function for this
    # A driver runs what was built for an older CUDA (CUDA's compatibility guide: minor version compatibility).
    runtime=Runtime("CUDA", lambda software: software.cuda, lambda report: report.cuda_driver),
    packages=PythonPackages("pynvml", ("pynvml", "nvidia-ml-py"), _judge_packages),
    advice={
        "gpu.library": ("NVML failed, so its GPUs are unknown", "run pluto-dist doctor there"),
        "gpu.lost": ("the GPU does not answer", "look for Xid errors in dmesg; reset the GPU or drain the node"),
        "env": ("settings of NCCL, CUDA or torch differ", "export the same variables on every node"),
        "gpu.p2p": ("GPUs there do not reach each other directly", "look at nvidia-smi topo -p2p r there"),
        "gpu.persistence": ("initializing the driver takes seconds there", "nvidia-smi -pm 1"),
    },
    fixes=FIXES,
)
