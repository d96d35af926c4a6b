"""A vendor of GPUs: what the rest of the package needs to know about its GPUs, as one record.

A vendor is a module with a ``GpuVendor`` in this folder and an entry of ``gpu.VENDORS``. Nothing outside of this folder
knows a vendor by name: it takes the record of ``GpuReport.vendor``, which travels with the inventory of a node.

>>> devices = VisibleDevices(("ACME_VISIBLE_DEVICES",), order=("ACME_ORDER", "BUS"))
>>> devices.count({"ACME_VISIBLE_DEVICES": "0,3"}), devices.count({"ACME_VISIBLE_DEVICES": ""}), devices.count({})
(2, 0, None)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pluto_dist.inventory.records import GpuReport, SoftwareReport

Advice = tuple[str, str]
"""Why a fault or a difference matters, and what to do."""


@dataclass(frozen=True, slots=True)
class KernelGpu:
    """One GPU of the machine, as the kernel lists it to every process."""

    minor: int
    """Minor number of its device file; minors need not be in bus order."""
    bus: str
    """"0000:18:00.0"."""
    name: str | None
    uuid: str | None


@dataclass(frozen=True, slots=True)
class VisibleDevices:
    """The variable that lists the GPUs which a process may use: indexes, UUIDs, or prefixes of UUIDs.

    Attributes:
        variables: its names; the first one that is set applies.
        uuid_prefixes: how the UUID of a GPU or of a partition of one begins.
        order: a variable, and its value if indexes are in PCI bus order whatever the models of the GPUs.
    """

    variables: tuple[str, ...]
    uuid_prefixes: tuple[str, ...] = ()
    order: tuple[str, str] | None = None

    def name(self, environ: Mapping[str, str]) -> str:
        """The variable that applies; the first if none is set."""
        return next((name for name in self.variables if name in environ), self.variables[0])

    def listed(self, environ: Mapping[str, str]) -> str | None:
        """The list, unchanged; ``None`` if it is not set."""
        return environ.get(self.name(environ))

    def count(self, environ: Mapping[str, str]) -> int | None:
        """The number of entries; ``None`` if the variable is not set."""
        value = self.listed(environ)
        return None if value is None else len([entry for entry in value.split(",") if entry.strip()])

    def in_bus_order(self, environ: Mapping[str, str]) -> bool:
        return self.order is not None and environ.get(self.order[0]) == self.order[1]


@dataclass(frozen=True, slots=True)
class TorchBackend:
    """torch's module for the vendor's GPUs ("cuda" for ``torch.cuda``), and the function of ``torch._C`` that says
    whether this process has a context on a device."""

    module: str
    has_context: str | None = None


@dataclass(frozen=True, slots=True)
class Runtime:
    """The library through which torch uses the GPUs: its name, the version that torch was built with, and the newest
    version that the driver supports; a driver supports older major versions and any minor version."""

    name: str
    built: Callable[[SoftwareReport], str | None]
    supported: Callable[[GpuReport], str | None]


@dataclass(frozen=True, slots=True)
class PythonPackages:
    """The Python packages that ``probe`` needs.

    Attributes:
        title: name of the check.
        distributions: the distributions whose installed versions are judged.
        judge: what was found, and how to correct it (empty if nothing is wrong).
    """

    title: str
    distributions: tuple[str, ...]
    judge: Callable[[Mapping[str, str | None]], tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixes:
    """How a person corrects a state of the GPUs, in the vendor's commands.

    Attributes:
        errors: by the name of the library's error.
        unknown_error: of any other error.
        container: how to start a container with GPUs.
        reset: after memory errors.
        links: if links are down.
        clocks: if clocks are reduced.
        partitions: name of the mode that divides a GPU, and how to use it; ``None`` if there is no such mode.
        persistence: how to keep the driver initialized; ``None`` if there is no such mode.
    """

    errors: Mapping[str, str] = field(default_factory=dict)
    unknown_error: str = "Look for errors of the driver in dmesg."
    container: str = "In a container: pass the GPUs' device files to it."
    reset: str = "Reset the GPU, or reboot; if it comes back, replace the GPU."
    links: str = "Reset the GPUs, or drain the node."
    clocks: str = "Check cooling and power."
    partitions: tuple[str, str] | None = None
    persistence: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuVendor:
    """One vendor.

    Attributes:
        name: "nvidia", as in ``GpuReport.vendor`` and in the documents.
        title: its name for people.
        library: the library that ``probe`` asks.
        probe: all GPUs of this node; may block as long as the driver does.
        visible: the variable that restricts a process to some GPUs.
        link, link_title: the links between GPUs, in documents ("nvlink") and for people.
        env_prefixes: variables of the vendor, which are recorded without secrets.
        bus_id: the library's format of a bus id of the kernel's ("0000:18:00.0").
        openable: minor numbers of the device files that this process may open; ``None`` if there are no such files.
        kernel_gpus: the GPUs that the kernel lists, including those that a cgroup hides from this process.
        torch: torch's module for these GPUs.
        runtime: ``None`` if the versions of torch and driver need not fit.
        packages: ``None`` if ``probe`` needs none.
        advice: by field of the document, where the vendor has better words than ``report.drift``.
        faults: the faults that only this vendor has (``Gpu.faults``), by name.
        fixes: for ``pluto-dist doctor``.
    """

    name: str
    title: str
    library: str
    probe: Callable[[], GpuReport]
    visible: VisibleDevices
    link: str = "link"
    link_title: str = "GPU links"
    env_prefixes: tuple[str, ...] = ()
    bus_id: Callable[[str], str] = str
    openable: Callable[[], tuple[int, ...] | None] = lambda: None
    kernel_gpus: Callable[[], tuple[KernelGpu, ...]] = tuple
    torch: TorchBackend | None = None
    runtime: Runtime | None = None
    packages: PythonPackages | None = None
    advice: Mapping[str, Advice] = field(default_factory=dict)
    faults: Mapping[str, Advice] = field(default_factory=dict)
    fixes: Fixes = field(default_factory=Fixes)
