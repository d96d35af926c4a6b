"""Which nodes are alike? Distinct hardware and software, each once, the most common first.

A class holds what nodes of one kind share. What is a node's own (name, UUIDs, temperature, processes, boot
time) is never in it, and what only some GPUs of a node have is folded away: the class has the value that
most of them have, ``differences`` the others, or one throttled card would make a class of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pluto_dist.inventory.records import Gpu, GpuReport, NodeInventory
from pluto_dist.inventory.report.alike import of_host, of_software, sizes
from pluto_dist.inventory.report.sdk_fields import known
from pluto_dist.serialization.codec import Json

TOLERANCE = 0.01
"""Memory of nodes that are alike differs by what firmware and kernel keep: MemTotal in /proc/meminfo."""

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
    "gpu.nvlink.links": "nvlinks",
    "gpu.nvlink.up": "nvlinks_up",
    "gpu.nvlink.version": "nvlink_version",
}
"""What all GPUs of a node should have in common: its name in the document, and in the record."""

Layout = tuple[tuple[Any, ...], ...]
"""For each name in ``LAYOUT``, the value of every GPU by index."""

LAYOUT: Mapping[str, str] = {"bus": "pci_bus_id", "numa": "numa", "cpus": "cpus"}
"""Where each GPU of a node sits: its name in the document, and in the record."""

Values = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class NodeClass:
    """One kind of node, and how many there are."""

    values: Values
    """Dotted names and scalars; of the network ports, records."""
    layout: Layout
    """By index; ``None`` where no node of the class knows it, because its GPU is lost."""
    n: int
    memories: Mapping[int, int]
    """What stands for a memory size, as ``_alike`` has it."""

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
        """What single GPUs have other than the class: ``{"gpu.power_limit_w": {"3": 600}}``."""
        found: dict[str, dict[str, Json]] = {}
        usual = dict(self.values)
        for name, attribute in PER_GPU.items():
            for gpu in gpus.devices:
                value = _gpu_value(gpu, attribute, self.memories)
                if value != usual.get(name) and not (gpu.hidden and value is None):
                    found.setdefault(name, {})[str(gpu.index)] = value
        return found


def classify(nodes: Mapping[int, NodeInventory]) -> tuple[list[NodeClass], dict[int, int]]:
    """The classes, and each node's place among them."""
    memories = _alike(value for inventory in nodes.values() for value in _memories(inventory))
    layouts = {node: _layout(inventory.gpus) for node, inventory in nodes.items()}
    known_layouts: dict[Values, list[Layout]] = {}
    members: dict[tuple[Values, Layout], list[int]] = {}
    # Whole nodes first: one that lost a GPU joins a class of its kind, it does not make one.
    for node in sorted(nodes, key=lambda node: (None in layouts[node][0], node)):
        values, layout = _values(nodes[node], memories), layouts[node]
        kin = known_layouts.setdefault(values, [])
        whole = next((each for each in kin if _fits(layout, each)), None)
        if whole is None:
            kin.append(layout)
            whole = layout
        members.setdefault((values, whole), []).append(node)
    ordered = sorted(members.items(), key=lambda item: (-len(item[1]), min(item[1])))
    classes = [NodeClass(values, layout, len(alike), memories) for (values, layout), alike in ordered]
    return classes, {node: place for place, (_, alike) in enumerate(ordered) for node in alike}


def _values(inventory: NodeInventory, memories: Mapping[int, int]) -> Values:
    gpus = inventory.gpus
    values = {
        "gpu.vendor": gpus.vendor if gpus.count else None,
        "gpu.count": gpus.count,
        **{
            name: _most_common(_gpu_value(gpu, attribute, memories) for gpu in gpus.devices)
            for name, attribute in PER_GPU.items()
        },
        "gpu.driver": gpus.driver,
        "gpu.cuda_driver": gpus.cuda_driver,
        "gpu.p2p": gpus.p2p,
        "gpu.confidential": gpus.confidential,
        **of_host(inventory.host, memories),
        **of_software(inventory.software),
    }
    return tuple(known(values).items())


def _most_common(values: Iterable[Any]) -> Any:
    """The most common of those that are known; of equally common ones the first."""
    counted = Counter(value for value in values if value is not None).most_common(1)
    return counted[0][0] if counted else None


def _gpu_value(gpu: Gpu, attribute: str, memories: Mapping[int, int]) -> Any:
    value = getattr(gpu, attribute)
    return memories.get(value, value) if attribute == "memory" and gpu.memory_kind else value


def _memories(inventory: NodeInventory) -> list[int]:
    unified = [gpu.memory for gpu in inventory.gpus.devices if gpu.memory_kind]
    return [*sizes(inventory.host), *(value for value in unified if value)]


def _alike(values: Iterable[int]) -> dict[int, int]:
    """Each value, and the one that stands for all within the tolerance: the most common, then the smallest.

    >>> _alike([1000, 1001, 1001, 2000])
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
    """Where each GPU sits, by index."""
    found = {gpu.index: gpu for gpu in gpus.devices}
    indexes = range(gpus.count or 0)
    columns = ([getattr(found.get(index), attribute, None) for index in indexes] for attribute in LAYOUT.values())
    bus, *others = columns
    return tuple(map(tuple, [map(_short_bus, bus), *others]))


def _short_bus(bus: str | None) -> str | None:
    """A bus id in short ("18:00") where the domain is 0."""
    return (bus or "").lower().removeprefix("00000000:").partition(".")[0] or None


def _fits(layout: Layout, whole: Layout) -> bool:
    """Whether a node with ``layout`` may be of the class with ``whole``: equal where the node knows."""
    return all(
        len(mine) == len(theirs) and all(one in (None, other) for one, other in zip(mine, theirs, strict=True))
        for mine, theirs in zip(layout, whole, strict=True)
    )
