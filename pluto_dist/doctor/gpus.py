"""Checks that the driver, torch and the environment agree on the GPUs. Pure, except for ``probe``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from pluto_dist.doctor import gpu_health
from pluto_dist.doctor.examination import DaemonCall
from pluto_dist.doctor.finding import CheckGroup, Finding, Machine, not_applicable, ok, problem, warning
from pluto_dist.inventory.gpu import nvidia
from pluto_dist.inventory.gpu.assignment import VISIBLE_DEVICES
from pluto_dist.inventory.probes import software
from pluto_dist.inventory.records import Gpu, GpuReport, SoftwareReport
from pluto_dist.inventory.safe_read import attempt

SLOW_INIT_MS = 2000
NO_GPU = "no NVIDIA library on this machine"

FIXES = {
    "LibRmVersionMismatch": "The driver was upgraded, the loaded module is the old one: reboot, or reload the module.",
    "DriverNotLoaded": "modprobe nvidia; dmesg says why it is not loaded.",
    "NoPermission": "Give this user access to /dev/nvidia*; in a container: docker run --gpus all.",
    "Unknown": "In a container: restart it (systemctl daemon-reload removed its devices). On a host: dmesg | grep Xid.",
    "timeout": "Check whether nvidia-smi hangs as well; dmesg | grep Xid, then drain the node and reboot it.",
    "GpuIsLost": "dmesg | grep Xid, then drain the node: nvidia-smi --gpu-reset, or reboot.",
    "ResetRequired": "nvidia-smi --gpu-reset, with no process on it; or reboot.",
}
"""By the name of NVML's error; ``inventory.gpu.nvidia`` has the sources."""

UNKNOWN_ERROR_FIX = "nvidia-smi may show more; dmesg | grep -i nvidia."


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """GPUs, software and environment of this machine.

    Attributes:
        report: NVML's report.
        software: versions of torch and CUDA.
        pynvml, nvidia_ml_py: installed versions.
        visible: CUDA_VISIBLE_DEVICES.
        local_world_size: number of ranks on this machine.
    """

    report: GpuReport
    software: SoftwareReport = field(default_factory=SoftwareReport)
    pynvml: str | None = None
    nvidia_ml_py: str | None = None
    visible: str | None = None
    local_world_size: int | None = None

    @property
    def skip_reason(self) -> str:
        """Why there is no GPU to check; empty if there is one."""
        if self.report.error is not None:
            return "see NVIDIA driver"
        if self.report.driver is None and not self.report.count:
            return NO_GPU
        return "" if self.report.devices else "see GPUs"


def probe(machine: Machine) -> GpuFacts:
    nvml = DaemonCall(nvidia.probe)
    versions = software.probe()
    pynvml, nvidia_ml_py = installed_version("pynvml"), installed_version("nvidia-ml-py")
    report, error = attempt(lambda: nvml.result(0.9 * machine.timeout))
    local_world_size = machine.environ.get("LOCAL_WORLD_SIZE", "")
    return GpuFacts(
        report or GpuReport(error="timeout" if error else None),
        versions,
        pynvml,
        nvidia_ml_py,
        machine.environ.get(VISIBLE_DEVICES),
        int(local_world_size) if local_world_size.isdecimal() else None,
    )


def installed_version(distribution: str) -> str | None:
    """The installed version of a distribution; ``None`` if it is not installed.

    >>> installed_version("no-such-distribution") is None
    True
    """
    from importlib.metadata import PackageNotFoundError, version  # 87 ms

    with suppress(PackageNotFoundError):
        return version(distribution)
    return None


def driver(facts: GpuFacts) -> Finding:
    report = facts.report
    if report.error is not None:
        return problem(f"NVML: {report.error}", FIXES.get(report.error, UNKNOWN_ERROR_FIX))
    if facts.skip_reason == NO_GPU:
        return not_applicable(NO_GPU)
    return ok(f"{report.driver}, {report.count} GPU{'' if report.count == 1 else 's'}")


def pynvml_package(facts: GpuFacts) -> Finding:
    """PyPI's deprecated pynvml 11 shadows nvidia-ml-py's module; from 12 on it only depends on nvidia-ml-py."""
    fix = "pip uninstall pynvml, then pip install --force-reinstall nvidia-ml-py"
    if facts.pynvml is not None and _numbers(facts.pynvml) < (12,):
        return warning(f"pynvml {facts.pynvml} hides nvidia-ml-py {facts.nvidia_ml_py or '(not installed)'}", fix)
    if facts.nvidia_ml_py is None:
        return warning("nvidia-ml-py is not installed", "pip install nvidia-ml-py")
    return ok(f"nvidia-ml-py {facts.nvidia_ml_py}")


def cuda(facts: GpuFacts) -> Finding:
    """A driver runs binaries built for its own or an older major version of CUDA, regardless of the minor version
    (CUDA's compatibility guide: minor version compatibility)."""
    torch, built, offered = facts.software.torch, facts.software.cuda, facts.report.cuda_driver
    if torch is None:
        return problem("torch is not installed in this Python", "pip install torch")
    if built is None:
        saw = f"torch {torch} is built without CUDA"
        return warning(saw, "Install a torch that is built for CUDA.") if facts.report.count else not_applicable(saw)
    saw = f"torch {torch} is built for CUDA {built}"
    if offered is None and facts.report.error is None:
        return warning(f"{saw}; {NO_GPU}", "In a container: docker run --gpus all.")
    if offered is None:
        return not_applicable("see NVIDIA driver")
    saw += f", the driver runs up to {offered}"
    if _numbers(built)[:1] <= _numbers(offered)[:1]:
        return ok(saw)
    return problem(saw, f"Upgrade the driver, or install a torch that is built for CUDA {_numbers(offered)[0]}.")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) if word.isdecimal() else 0 for word in version.split("."))


def lost_gpus(facts: GpuFacts) -> Finding:
    if facts.skip_reason not in ("", "see GPUs"):
        return not_applicable(facts.skip_reason)
    if not facts.report.count:
        return warning("the driver lists no GPU", "In a container: docker run --gpus all. On a host: lspci.")
    if not facts.report.bad:
        return ok(f"all {len(facts.report.devices)} answer")
    errors = {error for _, error in facts.report.bad}
    saw = ", ".join(f"GPU {index}: {error}" for index, error in facts.report.bad)
    return problem(saw, " ".join(FIXES.get(error, UNKNOWN_ERROR_FIX) for error in sorted(errors)))


def visible_gpus(facts: GpuFacts) -> Finding:
    """CUDA ignores the entries of CUDA_VISIBLE_DEVICES from the first one on that names no GPU."""
    if facts.skip_reason:
        return not_applicable(facts.skip_reason)
    present = len(facts.report.devices)
    value = facts.visible
    fix = (
        f"Set CUDA_VISIBLE_DEVICES to some of {', '.join(str(gpu.index) for gpu in facts.report.devices)}, or unset it."
    )
    if value is None:
        count, saw = present, f"all {present}: CUDA_VISIBLE_DEVICES is not set"
    else:
        entries = [entry.strip() for entry in value.split(",")] if value.strip() else []
        named = [target_of(entry, facts.report) for entry in entries]
        count = named.index(None) if None in named else len(named)
        saw = f"{count} of {present}: CUDA_VISIBLE_DEVICES={value}"
        if count == 0:
            return warning(f"{saw}: CUDA sees no GPU", fix)
        if count < len(entries):
            return problem(f"{saw}: {entries[count]!r} names no GPU, and CUDA stops there", fix)
        if len(set(named)) < len(named):
            return problem(f"{saw}: a GPU is named twice", fix)
    if facts.local_world_size and facts.local_world_size > count:
        return warning(
            f"{saw}, for {facts.local_world_size} ranks on this node",
            "NCCL does not support two ranks on one GPU: start fewer ranks.",
        )
    return ok(saw)


def target_of(entry: str, report: GpuReport) -> str | None:
    """The UUID (or index) of the device that an entry of CUDA_VISIBLE_DEVICES names by index or prefix of its UUID."""
    if entry.isdecimal():
        found = next((gpu for gpu in report.devices if gpu.index == int(entry)), None)
        return None if found is None else found.uuid or str(found.index)
    uuids = [gpu.uuid for gpu in report.devices]
    uuids += [instance.uuid for gpu in report.devices for instance in gpu.mig_instances]
    matching = [uuid for uuid in uuids if uuid and entry.startswith(("GPU-", "MIG-")) and uuid.startswith(entry)]
    return matching[0] if len(matching) == 1 else None


def mig(facts: GpuFacts) -> Finding:
    """CUDA uses at most one MIG instance per process, and NCCL does not work between instances (MIG user guide)."""
    if facts.skip_reason:
        return not_applicable(facts.skip_reason)
    split = [gpu for gpu in facts.report.devices if gpu.mig]
    if not split:
        return ok("off")
    saw = ", ".join(f"GPU {gpu.index}: {len(gpu.mig_instances)} instances" for gpu in split)
    return warning(
        saw, "Give each rank one instance by its MIG-UUID in CUDA_VISIBLE_DEVICES; nvidia-smi -mig 0 disables MIG."
    )


def persistence_mode(facts: GpuFacts) -> Finding:
    """Without persistence mode the driver deinitializes idle GPUs; initializing takes seconds for each."""
    if facts.skip_reason:
        return not_applicable(facts.skip_reason)
    off = [each.index for each in facts.report.devices if each.persistence is False]
    took = f"the driver opened in {(facts.report.init_ms or 0) / 1000:.1f} s"
    if off:
        return warning(f"off on {_indexes(off)}; {took}", "nvidia-smi -pm 1, or run nvidia-persistenced.")
    if (facts.report.init_ms or 0) > SLOW_INIT_MS:
        return warning(took, "nvidia-smi -pm 1, or run nvidia-persistenced.")
    return ok(f"on; {took}" if any(each.persistence for each in facts.report.devices) else took)


def _if_gpus(check: Callable[[tuple[Gpu, ...]], Finding]) -> Callable[[GpuFacts], Finding]:
    return lambda facts: not_applicable(facts.skip_reason) if facts.skip_reason else check(facts.report.devices)


def _indexes(indexes: list[int]) -> str:
    return f"GPU {', '.join(map(str, indexes))}"


CHECKS: Mapping[str, Callable[[GpuFacts], Finding]] = {
    "NVIDIA driver": driver,
    "pynvml": pynvml_package,
    "CUDA": cuda,
    "GPUs": lost_gpus,
    "visible GPUs": visible_gpus,
    "MIG": mig,
    "persistence mode": persistence_mode,
    "PCIe": _if_gpus(gpu_health.pcie),
    "NVLink": _if_gpus(gpu_health.nvlink),
    "GPU memory": _if_gpus(gpu_health.memory),
    "GPU clocks": _if_gpus(gpu_health.clocks),
}

GROUP = CheckGroup(probe, tuple(CHECKS.items()))
