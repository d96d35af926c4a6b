"""Node classes: each distinct combination of hardware and software once, the most common first.

A class holds the values that its nodes share. Values of one node (name, pod, UUIDs, temperature, processes, boot time)
are not part of it. If the GPUs of a node differ, the class has the most common value and ``differences`` the others, so
that one throttled GPU does not create a class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pluto_dist.inventory.gpu import vendor_named
from pluto_dist.inventory.records import Gpu, GpuReport, HostReport, NodeInventory, SoftwareReport
from pluto_dist.inventory.report.sdk_fields import without_none
from pluto_dist.serialization.codec import Json

TOLERANCE = 0.01
"""Relative difference of sizes that count as equal: firmware and kernel reserve different amounts of memory."""

PER_GPU: Mapping[str, str] = {
    "gpu.name": "name",
    "gpu.cc": "compute_capability",
    "gpu.memory": "memory",
    "gpu.memory_kind": "memory_kind",
    "gpu.power_limit_w": "power_limit_w",
    "gpu.mig": "mig",
    "gpu.arch": "arch",
    "gpu.cores": "cores",
    "gpu.vbios": "vbios",
    "gpu.ecc": "ecc",
    "gpu.persistence": "persistence",
    "gpu.clock_max_mhz.sm": "clock_sm_mhz",
    "gpu.clock_max_mhz.mem": "clock_mem_mhz",
    "gpu.pcie.width": "pcie_width",
    "gpu.pcie.width_max": "pcie_width_max",
    "gpu.pcie.gen_max": "pcie_gen_max",
    "gpu.link.links": "nvlinks",
    "gpu.link.up": "nvlinks_up",
    "gpu.link.version": "nvlink_version",
}
"""Values that all GPUs of a node should share: name in the document ("link" is the vendor's), and in the record."""

Layout = tuple[tuple[Any, ...], ...]
"""For each name in ``LAYOUT``, the value of every GPU by index."""

LAYOUT: Mapping[str, str] = {"bus": "pci_bus_id", "numa": "numa", "cpus": "cpus"}
"""The location of each GPU in its node: name in the document, and name in the record."""

Values = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class NodeClass:
    """One class, and how many nodes are in it."""

    values: Values
    """Dotted names and scalars; for the network ports, records."""
    layout: Layout
    """``None`` for a GPU that is lost on every node of the class."""
    count: int
    common_sizes: Mapping[int, int]
    """See :func:`_common_sizes`."""

    def to_json(self) -> dict[str, Json]:
        document: dict[str, Json] = {}
        for name, value in self.values:
            *sections, key = name.split(".")
            target = document
            for section in sections:
                target = target.setdefault(section, {})
            target[key] = [each.to_json() for each in value] if isinstance(value, tuple) else value
        for name, column in zip(LAYOUT, self.layout, strict=True):
            if any(value is not None for value in column):
                document["gpu"][name] = list(column)
        return document

    def differences(self, gpus: GpuReport) -> dict[str, dict[str, Json]]:
        """Values of single GPUs that differ from the class: ``{"gpu.power_limit_w": {"3": 600}}``."""
        found: dict[str, dict[str, Json]] = {}
        class_values = dict(self.values)
        for name, attribute in _per_gpu(gpus):
            for gpu in gpus.devices:
                value = _gpu_value(gpu, attribute, self.common_sizes)
                if value != class_values.get(name) and not (gpu.hidden and value is None):
                    found.setdefault(name, {})[str(gpu.index)] = value
        return found


def classify(nodes: Mapping[int, NodeInventory]) -> tuple[list[NodeClass], dict[int, int]]:
    """The classes, and the index of each node's class."""
    common_sizes = _common_sizes(value for inventory in nodes.values() for value in _sizes(inventory))
    layouts = {node: _layout(inventory.gpus) for node, inventory in nodes.items()}
    known_layouts: dict[Values, list[Layout]] = {}
    members: dict[tuple[Values, Layout], list[int]] = {}
    # Nodes with all GPUs first: a node that lost a GPU then joins a class instead of creating one.
    for node in sorted(nodes, key=lambda node: (None in layouts[node][0], node)):
        values, layout = _values(nodes[node], common_sizes), layouts[node]
        candidates = known_layouts.setdefault(values, [])
        complete = next((each for each in candidates if _is_compatible(layout, each)), None)
        if complete is None:
            candidates.append(layout)
            complete = layout
        members.setdefault((values, complete), []).append(node)
    ordered = sorted(members.items(), key=lambda item: (-len(item[1]), min(item[1])))
    classes = [NodeClass(values, layout, len(group), common_sizes) for (values, layout), group in ordered]
    return classes, {node: index for index, (_, group) in enumerate(ordered) for node in group}


def _values(inventory: NodeInventory, common_sizes: Mapping[int, int]) -> Values:
    gpus = inventory.gpus
    values = {  # in a report without GPUs the default vendor says nothing about the node
        "gpu.vendor": gpus.vendor if gpus.count or gpus.vendor != GpuReport().vendor else None,
        "gpu.count": gpus.count,
        **{
            name: _most_common(_gpu_value(gpu, attribute, common_sizes) for gpu in gpus.devices)
            for name, attribute in _per_gpu(gpus)
        },
        "gpu.driver": gpus.driver,
        "gpu.cuda_driver": gpus.cuda_driver,
        "gpu.p2p": gpus.p2p,
        "gpu.confidential": gpus.confidential,
        **_host_values(inventory.host, common_sizes),
        **_software_values(inventory.software),
    }
    return tuple(without_none(values).items())


def _per_gpu(gpus: GpuReport) -> list[tuple[str, str]]:
    """``PER_GPU`` in the words of a node's vendor."""
    link = vendor_named(gpus.vendor).link
    return [(name.replace("gpu.link.", f"gpu.{link}."), attribute) for name, attribute in PER_GPU.items()]


def _host_values(host: HostReport, common_sizes: Mapping[int, int]) -> dict[str, Any]:
    return {
        "cpu.model": host.cpu_model,
        "cpu.arch": host.arch,
        "cpu.physical": host.cores_physical,
        "cpu.logical": host.cores_logical,
        "cpu.allowed": host.cpus_allowed,
        "cpu.quota": host.cpu_quota,
        "cpu.freq_max_mhz": host.freq_max_mhz,
        "memory.total": common_sizes.get(host.memory or 0, host.memory),
        "memory.limit": host.memory_limit,
        "memory.swap": common_sizes.get(host.swap or 0, host.swap),
        "shm": common_sizes.get(host.shm or 0, host.shm),
        "disk.total": common_sizes.get(host.disk or 0, host.disk),
        "disk.type": host.disk_type,
        "nic": host.nics or None,
        "os": host.os,
        "kernel": host.kernel,
        "virt": host.virt,
        "container": host.container,
        "image": host.image,
    }


def _software_values(software: SoftwareReport) -> dict[str, Any]:
    return {
        "python": software.python,
        "torch": software.torch,
        "cuda": software.cuda,
        "cudnn": software.cudnn,
        "nccl": software.nccl,
        "packages": software.packages,
        "env": software.env,
        "commit": software.commit,
    }


def _most_common(values: Iterable[Any]) -> Any:
    """The most common value that is not ``None``; of equally common ones the first."""
    counted = Counter(value for value in values if value is not None).most_common(1)
    return counted[0][0] if counted else None


def _gpu_value(gpu: Gpu, attribute: str, common_sizes: Mapping[int, int]) -> Any:
    value = getattr(gpu, attribute)
    return common_sizes.get(value, value) if attribute == "memory" and gpu.memory_kind else value


def _sizes(inventory: NodeInventory) -> list[int]:
    """Sizes in bytes that firmware, kernel or filesystem make slightly different on equal nodes."""
    host = inventory.host
    unified = [gpu.memory for gpu in inventory.gpus.devices if gpu.memory_kind]
    return [size for size in (host.memory, host.swap, host.shm, host.disk, *unified) if size]


def _common_sizes(values: Iterable[int]) -> dict[int, int]:
    """Maps each size to one size for all within the tolerance: the most common, then the smallest.

    >>> _common_sizes([1000, 1001, 1001, 2000])
    {1000: 1001, 1001: 1001, 2000: 2000}
    """
    counted = Counter(values)
    groups: list[list[int]] = []
    for value in sorted(counted):
        if groups and value <= groups[-1][0] * (1 + TOLERANCE):
            groups[-1].append(value)
        else:
            groups.append([value])
    return {value: max(group, key=lambda each: counted[each]) for group in groups for value in group}


def _layout(gpus: GpuReport) -> Layout:
    """The location of each GPU, by index."""
    found = {gpu.index: gpu for gpu in gpus.devices}
    indexes = range(gpus.count or 0)
    columns = ([getattr(found.get(index), attribute, None) for index in indexes] for attribute in LAYOUT.values())
    bus, *others = columns
    return tuple(map(tuple, [map(_short_bus, bus), *others]))


def _short_bus(bus: str | None) -> str | None:
    """A bus id without function, and without domain if it is 0: "18:00"."""
    return (bus or "").lower().removeprefix("00000000:").partition(".")[0] or None


def _is_compatible(layout: Layout, complete: Layout) -> bool:
    """Whether a node with ``layout`` fits the class with ``complete``: equal, except for values that are ``None``."""
    return all(
        len(own) == len(other) and all(value in (None, expected) for value, expected in zip(own, other, strict=True))
        for own, other in zip(layout, complete, strict=True)
    )


def value_or_mixed(values: Iterable[str | None]) -> str | None:
    """The only value that is not ``None``; "mixed" if there are several.

    >>> value_or_mixed(["a", None, "a"]), value_or_mixed(["a", "b"]), value_or_mixed([None])
    ('a', 'mixed', None)
    """
    found = {value for value in values if value is not None}
    return next(iter(found), None) if len(found) < 2 else "mixed"
