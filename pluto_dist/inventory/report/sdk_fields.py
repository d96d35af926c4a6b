"""The top level of the system metadata: one node in the field names of the official SDK.

The Pluto UI reads these names with strict schemas, and users filter by them. It hides the GPU card if a GPU's ``temp``
is not an integer, its ``memory.total`` is not positive, or ``driver`` is missing; a GPU that would break this is left
out, and ``count`` still includes it. Unknown values are 0 or "" where ``platform`` and psutil, which the SDK uses,
return those.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pluto_dist.inventory.gpu import environment_prefixes, vendor_named
from pluto_dist.inventory.records import Git, Gpu, GpuReport, HostReport, NodeInventory, Process, SoftwareReport
from pluto_dist.serialization.codec import Json
from pluto_dist.serialization.text import parse_digits

CUDA = ("CUDA_",)
NCCL = ("NCCL_", "TORCH_NCCL_", "FI_", "UCX_")
"""Prefixes of the variables that the SDK (0.0.29) reports as CUDA's and NCCL's environment."""
OTHERS = ("TORCHELASTIC_", "PYTORCH_", "OMP_", "TORCH_")


def top_level(node: NodeInventory, process: Process | None) -> dict[str, Json]:
    """The known part of what the SDK would send from ``node`` and the ``process`` on it."""
    host, software, process = node.host, node.software, process or Process()
    sections = {
        "process": _process(process),
        "platform": _platform(node.hostname, host),
        "timezone": list(host.timezone),
        "cpu": _cpu(host),
        "memory": without_none({"virt": host.memory, "swap": host.swap}),
        "boot_time": host.boot_time,
        "os_info": _os_info(node.hostname, host, software),
        "cuda": without_none(
            {
                "cuda_driver": node.gpus.cuda_driver,
                "cuda_pytorch": software.cuda,
                "cudnn_pytorch": _cudnn_number(software.cudnn),
                "cuda_env": _variables(process, *CUDA),
            }
        ),
        "nccl": without_none({"nccl_pytorch": software.nccl, "nccl_env": _variables(process, *NCCL)}),
        "env": _variables(process, *OTHERS, *environment_prefixes(), but=(*CUDA, *NCCL)),
        "requirements": list(process.requirements),
        "git": _git(process.git),
        "konduktor": _konduktor(dict(process.konduktor)),
        "gpu": _gpu(node.gpus),
    }
    return {name: value for name, value in sections.items() if value}


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` without those that are ``None``."""
    return {name: value for name, value in values.items() if value is not None}


def _process(process: Process) -> dict[str, Json]:
    return without_none({"pid": process.pid, "exe": process.exe, "cmdline": list(process.cmdline) or None})


def _variables(process: Process, *prefixes: str, but: tuple[str, ...] = ()) -> dict[str, str] | None:
    found = {name: value for name, value in process.environ if name.startswith(prefixes) and not name.startswith(but)}
    return found or None


def _git(git: Git | None) -> dict[str, Json]:
    """The UI shows a repository only if it has a ``diff``; it is empty, since the code is not sent."""
    return {**git.to_json(), "diff": {}} if git and git.commit else {}


def _konduktor(names: Mapping[str, str]) -> dict[str, Json]:
    """The strings of the environment, and the total number of GPUs as a number."""
    nodes, gpus = (parse_digits(names.get(name, ""), most=6) for name in ("num_nodes", "num_gpus_per_node"))
    if nodes is None or gpus is None:
        return dict(names)
    return {**names, "total_gpus": nodes * gpus}


def _gpu(gpus: GpuReport) -> dict[str, Json]:
    """The UI has a card for ``gpu.nvidia`` alone; other vendors' are stored in the same form."""
    if not gpus.count or gpus.vendor != vendor_named(gpus.vendor).name:
        return {}
    card = {
        "count": gpus.count,
        "driver": gpus.driver or "unknown",
        "devices": [_device(gpu) for gpu in gpus.devices if gpu.memory],
    }
    return {gpus.vendor: card}


def _device(gpu: Gpu) -> dict[str, Json]:
    device = {
        "pid": list(gpu.pids),
        "name": gpu.name or "unknown",
        "temp": gpu.temperature or 0,
        "memory": {"total": gpu.memory},
        "uuid": gpu.uuid,
    }
    return without_none(device)


def _platform(hostname: str | None, host: HostReport) -> dict[str, Json]:
    found = without_none(
        {
            "system": host.system,
            "node": hostname,
            "release": host.kernel,
            "version": host.kernel_version,
            "machine": host.arch,
        }
    )
    return {**found, "processor": ""} if found else {}


def _cpu(host: HostReport) -> dict[str, Json]:
    found = without_none({"physical": host.cores_physical, "virtual": host.cores_logical, "model": host.cpu_model})
    freq = {"min": host.freq_min_mhz or 0.0, "max": host.freq_max_mhz or 0.0}
    return {**found, "freq": freq} if found else {}


def _os_info(hostname: str | None, host: HostReport, software: SoftwareReport) -> dict[str, Json]:
    release = {"name": host.os_name, "version": host.os_version, "pretty_name": host.os, "id": host.os_id}
    python = {
        "version": software.python,
        "implementation": software.python_implementation,
        "compiler": software.python_compiler,
        "executable": software.python_executable,
    }
    found = {
        "hostname": hostname,
        "os": without_none(release) or None,
        "kernel": host.kernel,
        "python": without_none(python) or None,
        "glibc": software.glibc,
    }
    return without_none(found)


def _cudnn_number(version: str | None) -> str | None:
    """cuDNN's version in the format of torch and the SDK.

    >>> _cudnn_number("9.1.0"), _cudnn_number("8.9.7"), _cudnn_number("nine")
    ('90100', '8907', None)
    """
    found = re.fullmatch(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})", version or "")
    if found is None:
        return None
    major, minor, patch = map(int, found.groups())
    return str(major * (10_000 if major >= 9 else 1_000) + minor * 100 + patch)
