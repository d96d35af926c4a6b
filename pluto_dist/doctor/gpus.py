"""Do the driver, torch and this environment agree on the GPUs? Pure, but for ``look``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pluto_dist.doctor import gpu_health
from pluto_dist.doctor.asking import Asked
from pluto_dist.doctor.family import Family, Machine
from pluto_dist.doctor.finding import Finding, not_applicable, ok, problem, warning
from pluto_dist.doctor.installed import installed_version
from pluto_dist.inventory.gpu import nvidia
from pluto_dist.inventory.probes import software
from pluto_dist.inventory.records import Gpu, GpuReport, SoftwareReport
from pluto_dist.inventory.safe_read import attempt

SLOW_INIT_MS = 2000
NO_GPU = "no NVIDIA library on this machine"

FIXES = {
    "LibRmVersionMismatch": "The driver was upgraded, the loaded module is the old one: reboot, or reload the module.",
    "DriverNotLoaded": "modprobe nvidia; dmesg says why it is not loaded.",
    "NoPermission": "Let this user open /dev/nvidia*; in a container: docker run --gpus all.",
    "Unknown": "In a container: restart it (systemctl daemon-reload takes its devices). On a host: dmesg | grep Xid.",
    "timeout": "nvidia-smi hangs as well? dmesg | grep Xid, then take the node out and reboot it.",
    "GpuIsLost": "dmesg | grep Xid, then take the node out: nvidia-smi --gpu-reset, or reboot.",
    "ResetRequired": "nvidia-smi --gpu-reset, with no process on it; or reboot.",
}
"""By NVML's words; ``inventory.nvidia`` has the evidence."""

UNHEARD_OF = "nvidia-smi may say more; dmesg | grep -i nvidia."


@dataclass(frozen=True, slots=True)
class GpusSeen:
    """Attributes: ``pynvml`` and ``nvidia_ml_py`` are installed versions; ``local_world_size`` the ranks here."""

    report: GpuReport
    software: SoftwareReport = field(default_factory=SoftwareReport)
    pynvml: str | None = None
    nvidia_ml_py: str | None = None
    visible: str | None = None
    local_world_size: int | None = None

    @property
    def missing(self) -> str:
        """Why there is no GPU to judge; empty where there is one."""
        if self.report.error is not None:
            return "see NVIDIA driver"
        if self.report.driver is None and not self.report.count:
            return NO_GPU
        return "" if self.report.devices else "see GPUs"


def look(machine: Machine) -> GpusSeen:
    asked = Asked(nvidia.probe)
    found = software.probe()
    installed = {name: installed_version(name) for name in ("pynvml", "nvidia-ml-py")}
    answered, error = attempt(lambda: asked.answer(0.9 * machine.timeout))
    report = answered or GpuReport(error="timeout" if error else None)
    ranks = machine.environ.get("LOCAL_WORLD_SIZE", "")
    return GpusSeen(
        report,
        found,
        installed["pynvml"],
        installed["nvidia-ml-py"],
        machine.environ.get("CUDA_VISIBLE_DEVICES"),
        int(ranks) if ranks.isdecimal() else None,
    )


def driver(seen: GpusSeen) -> Finding:
    report = seen.report
    if report.error is not None:
        return problem(f"NVML: {report.error}", FIXES.get(report.error, UNHEARD_OF))
    if seen.missing == NO_GPU:
        return not_applicable(NO_GPU)
    return ok(f"{report.driver}, {report.count} GPU{'' if report.count == 1 else 's'}")


def pynvml_package(seen: GpusSeen) -> Finding:
    """PyPI's abandoned pynvml 11 installs a folder over nvidia-ml-py's file; from 12 on it only depends on that."""
    fix = "pip uninstall pynvml, then pip install --force-reinstall nvidia-ml-py"
    if seen.pynvml is not None and _numbers(seen.pynvml) < (12,):
        return warning(f"pynvml {seen.pynvml} hides nvidia-ml-py {seen.nvidia_ml_py or '(not installed)'}", fix)
    if seen.nvidia_ml_py is None:
        return warning("nvidia-ml-py is not installed", "pip install nvidia-ml-py")
    return ok(f"nvidia-ml-py {seen.nvidia_ml_py}")


def cuda(seen: GpusSeen) -> Finding:
    """A driver runs what was built for its own major version of CUDA or an older one, whatever the minor version
    (CUDA's compatibility guide: minor version compatibility)."""
    torch, built, offered = seen.software.torch, seen.software.cuda, seen.report.cuda_driver
    if torch is None:
        return problem("torch is not installed in this Python", "pip install torch")
    if built is None:
        saw = f"torch {torch} is built without CUDA"
        return warning(saw, "Install a torch for CUDA.") if seen.report.count else not_applicable(saw)
    saw = f"torch {torch} is built for CUDA {built}"
    if offered is None and seen.report.error is None:
        return warning(f"{saw}; {NO_GPU}", "In a container: docker run --gpus all.")
    if offered is None:
        return not_applicable("see NVIDIA driver")
    saw += f", the driver runs up to {offered}"
    if _numbers(built)[:1] <= _numbers(offered)[:1]:
        return ok(saw)
    return problem(saw, f"Upgrade the driver, or install a torch that is built for CUDA {_numbers(offered)[0]}.")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) if word.isdecimal() else 0 for word in version.split("."))


def bad(seen: GpusSeen) -> Finding:
    if seen.missing not in ("", "see GPUs"):
        return not_applicable(seen.missing)
    if not seen.report.count:
        return warning("the driver has none", "In a container: docker run --gpus all. On a host: lspci.")
    if not seen.report.bad:
        return ok(f"all {len(seen.report.devices)} answer")
    errors = {error for _, error in seen.report.bad}
    saw = ", ".join(f"GPU {index}: {error}" for index, error in seen.report.bad)
    return problem(saw, " ".join(FIXES.get(error, UNHEARD_OF) for error in sorted(errors)))


def visible(seen: GpusSeen) -> Finding:
    """CUDA takes the entries of CUDA_VISIBLE_DEVICES up to the first that names no GPU, and leaves out the rest."""
    if seen.missing:
        return not_applicable(seen.missing)
    present = len(seen.report.devices)
    value = seen.visible
    fix = (
        f"Set CUDA_VISIBLE_DEVICES to some of {', '.join(str(gpu.index) for gpu in seen.report.devices)}, or unset it."
    )
    if value is None:
        count, saw = present, f"all {present}: CUDA_VISIBLE_DEVICES is not set"
    else:
        entries = [entry.strip() for entry in value.split(",")] if value.strip() else []
        named = [target_of(entry, seen.report) for entry in entries]
        count = named.index(None) if None in named else len(named)
        saw = f"{count} of {present}: CUDA_VISIBLE_DEVICES={value}"
        if count == 0:
            return warning(f"{saw}: CUDA sees no GPU", fix)
        if count < len(entries):
            return problem(f"{saw}: {entries[count]!r} names no GPU, and CUDA stops there", fix)
        if len(set(named)) < len(named):
            return problem(f"{saw}: a GPU is named twice", fix)
    if seen.local_world_size and seen.local_world_size > count:
        return warning(
            f"{saw}, for {seen.local_world_size} ranks on this node",
            "NCCL shares no GPU: start fewer ranks.",
        )
    return ok(saw)


def target_of(entry: str, report: GpuReport) -> str | None:
    """The UUID (or the index) of what an entry of CUDA_VISIBLE_DEVICES names: an index, or the start of a UUID."""
    if entry.isdecimal():
        found = next((gpu for gpu in report.devices if gpu.index == int(entry)), None)
        return None if found is None else found.uuid or str(found.index)
    uuids = [gpu.uuid for gpu in report.devices] + [part.uuid for gpu in report.devices for part in gpu.mig_instances]
    matching = [uuid for uuid in uuids if uuid and entry.startswith(("GPU-", "MIG-")) and uuid.startswith(entry)]
    return matching[0] if len(matching) == 1 else None


def mig(seen: GpusSeen) -> Finding:
    """A process sees one MIG instance at most, and NCCL does not work between instances (NVIDIA's MIG user guide)."""
    if seen.missing:
        return not_applicable(seen.missing)
    cut = [gpu for gpu in seen.report.devices if gpu.mig]
    if not cut:
        return ok("off")
    saw = ", ".join(f"GPU {gpu.index}: {len(gpu.mig_instances)} instances" for gpu in cut)
    return warning(
        saw, "Give each rank one instance by its MIG-UUID in CUDA_VISIBLE_DEVICES; nvidia-smi -mig 0 ends it."
    )


def opening(seen: GpusSeen) -> Finding:
    """Without persistence mode the driver closes idle GPUs, and opening them takes seconds for each."""
    if seen.missing:
        return not_applicable(seen.missing)
    off = [each.index for each in seen.report.devices if each.persistence is False]
    took = f"the driver opened in {(seen.report.init_ms or 0) / 1000:.1f} s"
    if off:
        return warning(f"off on {_gpus(off)}; {took}", "nvidia-smi -pm 1, or run nvidia-persistenced.")
    if (seen.report.init_ms or 0) > SLOW_INIT_MS:
        return warning(took, "nvidia-smi -pm 1, or run nvidia-persistenced.")
    return ok(f"on; {took}" if any(each.persistence for each in seen.report.devices) else took)


def _of_each(check: Callable[[tuple[Gpu, ...]], Finding]) -> Callable[[GpusSeen], Finding]:
    return lambda seen: not_applicable(seen.missing) if seen.missing else check(seen.report.devices)


def _gpus(indexes: list[int]) -> str:
    return f"GPU {', '.join(map(str, indexes))}"


CHECKS: Mapping[str, Callable[[GpusSeen], Finding]] = {
    "NVIDIA driver": driver,
    "pynvml": pynvml_package,
    "CUDA": cuda,
    "GPUs": bad,
    "visible GPUs": visible,
    "MIG": mig,
    "persistence mode": opening,
    "PCIe": _of_each(gpu_health.pcie),
    "NVLink": _of_each(gpu_health.nvlink),
    "GPU memory": _of_each(gpu_health.memory),
    "GPU clocks": _of_each(gpu_health.clocks),
}

FAMILY = Family(look, tuple(CHECKS.items()))
