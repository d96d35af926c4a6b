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

from .alike import of_host, of_software, sizes
from .decoding import Json
from .records import Gpu, GpuReport, NodeInventory
from .sdk import known

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

Bus = tuple[str | None, ...]
Values = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class NodeClass:
    """One kind of node, and how many there are."""

    values: Values
    """Dotted names and scalars; of the network ports, records."""
    bus: Bus
    """PCI bus ids by index; ``None`` where no node of the class knows it, because its GPU is lost."""
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
        if any(self.bus):
            document["gpu"]["bus"] = list(self.bus)
        return document

    def differences(self, gpus: GpuReport) -> dict[str, dict[str, Json]]:
        """What single GPUs have other than the class: ``{"gpu.power_limit_w": {"3": 600}}``."""
        found: dict[str, dict[str, Json]] = {}
        usual = dict(self.values)
        for name, attribute in PER_GPU.items():
            for gpu in gpus.devices:
                value = _gpu_value(gpu, attribute, self.memories)
                if value != usual.get(name):
                    found.setdefault(name, {})[str(gpu.index)] = value
        return found


def classify(nodes: Mapping[int, NodeInventory]) -> tuple[list[NodeClass], dict[int, int]]:
    """The classes, and each node's place among them."""
    memories = _alike(value for inventory in nodes.values() for value in _memories(inventory))
    buses: dict[Values, list[Bus]] = {}
    members: dict[tuple[Values, Bus], list[int]] = {}
    # Whole nodes first: one that lost a GPU joins a class of its kind, it does not make one.
    for node in sorted(nodes, key=lambda node: (None in _bus(nodes[node].gpus), node)):
        values, bus = _values(nodes[node], memories), _bus(nodes[node].gpus)
        kin = buses.setdefault(values, [])
        whole = next((each for each in kin if _fits(bus, each)), None)
        if whole is None:
            kin.append(bus)
            whole = bus
        members.setdefault((values, whole), []).append(node)
    ordered = sorted(members.items(), key=lambda item: (-len(item[1]), min(item[1])))
    classes = [NodeClass(values, bus, len(alike), memories) for (values, bus), alike in ordered]
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


def _bus(gpus: GpuReport) -> Bus:
    """Bus ids by index, in short ("18:00") where the domain is 0."""
    found = {gpu.index: (gpu.pci_bus_id or "").lower() for gpu in gpus.devices}
    ids = (found.get(index, "") for index in range(gpus.count or 0))
    return tuple(each.removeprefix("00000000:").partition(".")[0] or None for each in ids)


def _fits(bus: Bus, known_bus: Bus) -> bool:
    """Whether a node with ``bus`` may be of the class with ``known_bus``: equal where the node knows."""
    return len(bus) == len(known_bus) and all(
        mine in (None, theirs) for mine, theirs in zip(bus, known_bus, strict=True)
    )
