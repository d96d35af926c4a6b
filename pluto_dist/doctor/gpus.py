"""Checks that the driver, torch and the environment agree on the GPUs. Pure, except for ``probe``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from pluto_dist.doctor import gpu_health
from pluto_dist.doctor.examination import DaemonCall
from pluto_dist.doctor.finding import CheckGroup, Finding, Machine, not_applicable, ok, problem, warning
from pluto_dist.inventory.gpu import local_vendor, probe_gpus, vendor_named
from pluto_dist.inventory.gpu.vendor import GpuVendor, Runtime
from pluto_dist.inventory.probes import software
from pluto_dist.inventory.records import Gpu, GpuReport, SoftwareReport
from pluto_dist.inventory.safe_read import attempt
from pluto_dist.serialization.text import parse_digits

SLOW_INIT_MS = 2000
SEE_GPUS = "see GPUs"


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """GPUs, software and environment of this machine.

    Attributes:
        report: the report of the vendor's library.
        software: versions of torch and of what it was built with.
        installed: versions of the Python packages that the vendor's probe needs; ``None`` for one that is missing.
        visible: the vendor's list of visible devices.
        variable: the variable that the list is from; the vendor's first if it is empty.
        local_world_size: number of ranks on this machine.
    """

    report: GpuReport
    software: SoftwareReport = field(default_factory=SoftwareReport)
    installed: Mapping[str, str | None] = field(default_factory=dict)
    visible: str | None = None
    variable: str = ""
    local_world_size: int | None = None

    @property
    def vendor(self) -> GpuVendor:
        return vendor_named(self.report.vendor)

    @property
    def no_library(self) -> str:
        return f"no {self.vendor.title} library on this machine"

    @property
    def skip_reason(self) -> str:
        """Why there is no GPU to check; empty if there is one."""
        if self.report.error is not None:
            return f"see {self.vendor.title} driver"
        if self.report.driver is None and not self.report.count:
            return self.no_library
        return "" if self.report.devices else SEE_GPUS


Check = Callable[[GpuFacts], Finding]


def probe(machine: Machine) -> GpuFacts:
    asked: list[GpuVendor] = []
    library = DaemonCall(lambda: probe_gpus(asked))
    versions = software.probe()
    report, error = attempt(lambda: library.result(0.9 * machine.timeout))
    if report is None:
        stalled = asked[-1] if asked else local_vendor(machine.environ)
        report = GpuReport(vendor=stalled.name, error="timeout" if error else None)
    vendor = vendor_named(report.vendor)
    distributions = vendor.packages.distributions if vendor.packages else ()
    return GpuFacts(
        report,
        versions,
        {name: installed_version(name) for name in distributions},
        vendor.visible.listed(machine.environ),
        vendor.visible.name(machine.environ),
        parse_digits(machine.environ.get("LOCAL_WORLD_SIZE", "")),
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
        return problem(f"{facts.vendor.library}: {report.error}", _fix_of(report.error, facts.vendor))
    if facts.skip_reason == facts.no_library:
        return not_applicable(facts.no_library)
    return ok(f"{report.driver}, {report.count} GPU{'' if report.count == 1 else 's'}")


def _fix_of(error: str, vendor: GpuVendor) -> str:
    return vendor.fixes.errors.get(error, vendor.fixes.unknown_error)


def python_packages(facts: GpuFacts) -> Finding:
    """Whether the Python packages that the vendor's probe needs are installed, and no other hides them."""
    needed = facts.vendor.packages
    saw, fix = needed.judge(facts.installed) if needed else ("none needed", "")
    return warning(saw, fix) if fix else ok(saw)


def runtime(facts: GpuFacts, used: Runtime) -> Finding:
    """A driver runs binaries built for its own or an older major version, regardless of the minor version."""
    torch = facts.software.torch
    if torch is None:
        return problem("torch is not installed in this Python", "pip install torch")
    built, offered = used.built(facts.software), used.supported(facts.report)
    if built is None:
        saw, fix = f"torch {torch} is built without {used.name}", f"Install a torch that is built for {used.name}."
        return warning(saw, fix) if facts.report.count else not_applicable(saw)
    saw = f"torch {torch} is built for {used.name} {built}"
    if offered is None and facts.report.error is None:
        return warning(f"{saw}; {facts.no_library}", facts.vendor.fixes.container)
    if offered is None:
        return not_applicable(facts.skip_reason)
    saw += f", the driver runs up to {offered}"
    if _numbers(built)[:1] <= _numbers(offered)[:1]:
        return ok(saw)
    fix = f"Upgrade the driver, or install a torch that is built for {used.name} {_numbers(offered)[0]}."
    return problem(saw, fix)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(parse_digits(word) or 0 for word in version.split("."))


def lost_gpus(facts: GpuFacts) -> Finding:
    if facts.skip_reason not in ("", SEE_GPUS):
        return not_applicable(facts.skip_reason)
    if not facts.report.count:
        return warning("the driver lists no GPU", f"{facts.vendor.fixes.container} On a host: lspci.")
    if not facts.report.bad:
        return ok(f"all {len(facts.report.devices)} answer")
    errors = {error for _, error in facts.report.bad}
    saw = ", ".join(f"GPU {index}: {error}" for index, error in facts.report.bad)
    return problem(saw, " ".join(_fix_of(error, facts.vendor) for error in sorted(errors)))


def visible_gpus(facts: GpuFacts) -> Finding:
    """The vendor's runtime ignores the entries of its list from the first one on that names no GPU."""
    if facts.skip_reason:
        return not_applicable(facts.skip_reason)
    present = len(facts.report.devices)
    value, variable = facts.visible, facts.variable or facts.vendor.visible.variables[0]
    runtime = facts.vendor.runtime.name if facts.vendor.runtime else facts.vendor.title
    fix = f"Set {variable} to some of {', '.join(str(gpu.index) for gpu in facts.report.devices)}, or unset it."
    if value is None:
        count, saw = present, f"all {present}: {variable} is not set"
    else:
        entries = [entry.strip() for entry in value.split(",")] if value.strip() else []
        named = [target_of(entry, facts.report) for entry in entries]
        count = named.index(None) if None in named else len(named)
        saw = f"{count} of {present}: {variable}={value}"
        if count == 0:
            return warning(f"{saw}: {runtime} sees no GPU", fix)
        if count < len(entries):
            return problem(f"{saw}: {entries[count]!r} names no GPU, and {runtime} stops there", fix)
        if len(set(named)) < len(named):
            return problem(f"{saw}: a GPU is named twice", fix)
    if facts.local_world_size and facts.local_world_size > count:
        return warning(
            f"{saw}, for {facts.local_world_size} ranks on this node",
            "NCCL does not support two ranks on one GPU: start fewer ranks.",
        )
    return ok(saw)


def target_of(entry: str, report: GpuReport) -> str | None:
    """The UUID (or index) of the device that an entry of the list names by its index or a prefix of its UUID."""
    if (index := parse_digits(entry)) is not None:
        found = next((gpu for gpu in report.devices if gpu.index == index), None)
        return None if found is None else found.uuid or str(found.index)
    prefixes = vendor_named(report.vendor).visible.uuid_prefixes
    uuids = [gpu.uuid for gpu in report.devices]
    uuids += [instance.uuid for gpu in report.devices for instance in gpu.mig_instances]
    matching = [uuid for uuid in uuids if uuid and entry.startswith(prefixes) and uuid.startswith(entry)]
    return matching[0] if len(matching) == 1 else None


def partitions(facts: GpuFacts) -> Finding:
    """A process uses at most one partition, and NCCL does not work between partitions (MIG user guide)."""
    if facts.skip_reason:
        return not_applicable(facts.skip_reason)
    split = [gpu for gpu in facts.report.devices if gpu.mig]
    if not split or facts.vendor.fixes.partitions is None:
        return ok("off")
    saw = ", ".join(f"GPU {gpu.index}: {len(gpu.mig_instances)} instances" for gpu in split)
    return warning(saw, facts.vendor.fixes.partitions[1])


def persistence_mode(facts: GpuFacts) -> Finding:
    """Without persistence mode the driver deinitializes idle GPUs; initializing takes seconds for each."""
    if facts.skip_reason:
        return not_applicable(facts.skip_reason)
    fix = facts.vendor.fixes.persistence or facts.vendor.fixes.unknown_error
    off = [each.index for each in facts.report.devices if each.persistence is False]
    took = f"the driver opened in {(facts.report.init_ms or 0) / 1000:.1f} s"
    if off:
        return warning(f"off on {_indexes(off)}; {took}", fix)
    if (facts.report.init_ms or 0) > SLOW_INIT_MS:
        return warning(took, fix)
    return ok(f"on; {took}" if any(each.persistence for each in facts.report.devices) else took)


def _if_gpus(check: Callable[[tuple[Gpu, ...], GpuVendor], Finding]) -> Check:
    return lambda facts: (
        not_applicable(facts.skip_reason) if facts.skip_reason else check(facts.report.devices, facts.vendor)
    )


def _indexes(indexes: list[int]) -> str:
    return f"GPU {', '.join(map(str, indexes))}"


def checks_for(vendor: GpuVendor) -> tuple[tuple[str, Check], ...]:
    """The checks that apply to a vendor's GPUs, by name."""
    packages, used, fixes = vendor.packages, vendor.runtime, vendor.fixes
    checks: dict[str, Check] = {
        f"{vendor.title} driver": driver,
        **({packages.title: python_packages} if packages else {}),
        **({used.name: partial(runtime, used=used)} if used else {}),
        "GPUs": lost_gpus,
        "visible GPUs": visible_gpus,
        **({fixes.partitions[0]: partitions} if fixes.partitions else {}),
        **({"persistence mode": persistence_mode} if fixes.persistence else {}),
        "PCIe": _if_gpus(gpu_health.pcie),
        vendor.link_title: _if_gpus(gpu_health.links),
        "GPU memory": _if_gpus(gpu_health.memory),
        "GPU clocks": _if_gpus(gpu_health.clocks),
        **({f"{vendor.title} faults": _if_gpus(gpu_health.own_faults)} if vendor.faults else {}),
    }
    return tuple(checks.items())


GROUP = CheckGroup(probe, checks_for(vendor_named(None)), checks_of=lambda facts: checks_for(facts.vendor))
