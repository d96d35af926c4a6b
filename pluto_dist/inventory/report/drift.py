"""Drift: differences between nodes that should be equal, and faults of single GPUs, the most severe first. Pure.

The only input is the cluster document, so the warning in the log, ``cluster.drift`` and ``pluto-dist nodes`` agree, for
old runs too. An unknown value is not a difference.

>>> classes = [{"n": 2, "gpu": {"driver": "550.54"}}, {"n": 1, "gpu": {"driver": "535.1"}}]
>>> nodes = [{"node": n, "host": h, "class": c} for n, h, c in ((0, "a", 0), (1, "b", 1), (2, "c", 0))]
>>> found, = differences({"node_classes": classes, "nodes": nodes})
>>> found.field, found.usual, found.deviating
('gpu.driver', '550.54', (('b', '535.1'),))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pluto_dist.inventory.gpu import vendor_named
from pluto_dist.inventory.gpu.vendor import Advice, GpuVendor
from pluto_dist.inventory.records import NO_PERMISSION
from pluto_dist.serialization.codec import Json

MAX_CHARACTERS = 80  # of one value in a warning
MISSING, LOST, LIBRARY, HIDDEN = "node", "gpu.lost", "gpu.library", "gpu.hidden"
ADVICE: dict[str, Advice] = {
    MISSING: ("it did not report before the run began", "look for its host in the job's log"),
    LIBRARY: ("the driver's library failed, so its GPUs are unknown", "run pluto-dist doctor there"),
    LOST: ("the GPU does not answer", "reset the GPU or drain the node"),
    "gpu.count": ("ranks that expect a GPU will not find one", "run pluto-dist doctor there"),
    "gpu.name": ("the slowest GPU sets the pace of every step", "ask the scheduler for one kind of GPU"),
    "gpu.memory": ("the smallest GPU sets the largest batch", "ask the scheduler for one kind of GPU"),
    "nccl": ("NCCL of two versions may hang or fail", "use one image on all nodes"),
    "torch": ("ranks may compute different values, or fail to connect", "use one image on all nodes"),
    "cuda": ("ranks may compute different values", "use one image on all nodes"),
    "commit": ("the nodes run different code", "check out the same commit on every node"),
    "packages": ("the nodes run different code", "use one image on all nodes"),
    "python": ("the others may fail to unpickle its objects", "use one image on all nodes"),
    "cudnn": ("ranks may compute different values", "use one image on all nodes"),
    "gpu.driver": ("speed and errors differ by driver", "upgrade the driver there"),
    "gpu.cuda_driver": ("speed and errors differ by driver", "upgrade the driver there"),
    "env": ("settings of NCCL, torch or the GPUs differ", "export the same variables on every node"),
    "gpu.remap_failed": ("its memory has no spare row left", "replace the GPU"),
    "gpu.remap_pending": (
        "a row of its memory will be remapped at the next reset",
        "reset the GPU; replace it if that does not help",
    ),
    "gpu.ecc_errors": ("its memory had uncorrected errors", "reset the GPU; replace it if that does not help"),
    "gpu.pcie.width": ("data comes to it slower than to the others", "reseat it, or drain the node"),
    "gpu.pcie.gen": ("data comes to it slower than to the others", "reseat it, or drain the node"),
    "gpu.link.up": ("collectives are as slow as the slowest link", "reset the GPUs, or drain the node"),
    "gpu.link.links": ("collectives are as slow as the slowest link", "ask the scheduler for one kind of node"),
    "gpu.p2p": ("GPUs there do not reach each other directly", "look at the topology there"),
    "gpu.throttle": ("its clocks are reduced", "look at cooling and power there"),
    "gpu.power_limit_w": ("it computes slower than the others", "set the same power limit on all"),
    "gpu.clock_max_mhz.sm": ("it computes slower than the others", "set the same clocks on all"),
    "nic": ("the slowest port sets the pace of every collective", "look at ibstat or ethtool there"),
    "memory.limit": ("its cgroup has a lower memory limit", "give all nodes the same limits"),
    "cpu.quota": ("its dataloaders get less time", "give all nodes the same limits"),
    "cpu.allowed": ("its dataloaders get fewer cores", "give all nodes the same limits"),
    "shm": ("dataloader workers may run out of it", "give all containers the same --shm-size"),
    "memory.total": ("it has less memory", "ask the scheduler for one kind of node"),
    "cpu.model": ("its dataloaders may be slower", "ask the scheduler for one kind of node"),
    "gpu.confidential": ("PCIe transfers are encrypted on some nodes only", "set the same mode on all"),
    "gpu.ecc": ("ECC is on for some GPUs only", "set the same mode on all"),
    "gpu.persistence": ("initializing the driver takes seconds there", "keep the driver initialized between jobs"),
    HIDDEN: ("the job may not use it", "ask the scheduler for whole nodes, if it should"),
    "gpu.numa": ("ranks there may be bound far from their GPU", "set the same NUMA mode in the firmware of all"),
    "gpu.cpus": ("ranks there may be bound far from their GPU", "set the same NUMA mode in the firmware of all"),
    "gpu.remapped_rows": ("its memory is wearing out", "watch it"),
    "gpu.retired_pages": ("its memory is wearing out", "watch it"),
    "kernel": ("", "use one image of the system on all nodes"),
    "os": ("", "use one image of the system on all nodes"),
}
"""Why a difference matters and what to do, by field, the most severe first. Fields that are not listed come last.

A vendor has words of its own for some fields, for "link", and for the faults that only it has (:func:`advice`)."""
_MORE_SEVERE_THAN = "gpu.throttle"  # the faults that only one vendor has

_NOT_COMPARED = frozenset({"n", "gpu.bus", "disk.total", "disk.type", "memory.swap", "cpu.freq_max_mhz"})
"""Fields that may differ between equal nodes."""
_PER_GPU = frozenset({"gpu.numa", "gpu.cpus"})
"""Fields that are lists with a value for each GPU; ``None`` for a lost one."""
_Found = tuple[str, Json, list[tuple[str, Json]]]
"""A field, its usual value, and the hosts or GPUs with another one."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A field in which nodes or GPUs differ from the others, or a fault of GPUs.

    Attributes:
        field: dotted name of the field in the document.
        usual: the value of more than half of the nodes; ``None`` if there is none.
        deviating: hosts or GPUs ("host GPU 3") with another value, and that value.
        why: why it matters.
        fix: what to do.
    """

    field: str
    usual: Json
    deviating: tuple[tuple[str, Json], ...]
    why: str
    fix: str

    def __str__(self) -> str:
        shown = ", ".join(f"{name} {shorten(value)}".rstrip() for name, value in self.deviating[:3])
        more = f" and {len(self.deviating) - 3} more" if len(self.deviating) > 3 else ""
        others = f", the others {shorten(self.usual)}" if self.usual is not None else ""
        return f"{self.field}: {shown}{more}{others}" + (f": {self.why}" if self.why else "")

    def to_json(self, limit: int = 10) -> dict[str, Json]:
        """The entry for the document, with at most ``limit`` of the deviating hosts or GPUs."""
        entry = {"field": self.field, "usual": self.usual, "nodes": dict(self.deviating[:limit])}
        more = len(self.deviating) - limit
        return {name: value for name, value in entry.items() if value is not None} | (
            {"more": more} if more > 0 else {}
        )


def differences(document: Mapping[str, Any]) -> tuple[Difference, ...]:
    """All differences between the nodes of a cluster document, and the faults in it, the most severe first.

    Args:
        document: the result of ``compose``, or a tracker's copy of it; parts of another structure are ignored.
    """
    table = advice(_vendors(document))
    found = (
        Difference(name, usual, tuple(deviating), *table.get(name, ("", "")))
        for name, usual, deviating in (*_faults(document), *_class_differences(document))
    )
    severity = {name: place for place, name in enumerate(table)}
    return tuple(sorted(found, key=lambda each: (severity.get(each.field, len(severity)), each.field)))


def advice(vendors: Sequence[GpuVendor]) -> dict[str, Advice]:
    """:data:`ADVICE` in the words of the vendors of a job; of two that differ, in the first one's."""
    table: dict[str, Advice] = {}
    for name, words in ADVICE.items():
        if name == _MORE_SEVERE_THAN:
            table.update({f"gpu.{fault}": own for vendor in vendors for fault, own in vendor.faults.items()})
        for vendor in vendors:
            field = name.replace("gpu.link.", f"gpu.{vendor.link}.")
            table.setdefault(field, vendor.advice.get(name, words))
    return table


def _vendors(document: Mapping[str, Any]) -> list[GpuVendor]:
    gpus = [each.get("gpu") for each in _dicts(document.get("node_classes"))]
    names = [each["vendor"] for each in gpus if isinstance(each, dict) and isinstance(each.get("vendor"), str)]
    found = map(vendor_named, names) if names else [vendor_named(None)]
    return list({vendor.name: vendor for vendor in found}.values())


def _faults(document: Mapping[str, Any]) -> Iterator[_Found]:
    """Missing nodes, lost GPUs, and the faults of the others."""
    found: dict[str, list[tuple[str, Json]]] = {}
    nodes = _dicts(document.get("nodes"))
    for node in nodes:
        host = str(node.get("host", f"node {node.get('node')}"))
        if node.get("missing") and len(nodes) > 1:  # a single late node differs from no other
            found.setdefault(MISSING, []).append((f"node {node.get('node')}", "missing"))
        if node.get("gpu_error"):
            found.setdefault(LIBRARY, []).append((host, node["gpu_error"]))
        for index, error in _items(node.get("bad")):
            found.setdefault(HIDDEN if error == NO_PERMISSION else LOST, []).append((f"{host} GPU {index}", error))
        for field in ("health", "diff"):
            for name, values in _items(node.get(field)):
                dotted = name if name.startswith("gpu.") else f"gpu.{name}"
                for index, value in _items(values):
                    gpu = f"{host} GPU {index}"
                    if value is not None and gpu not in dict(found.get(dotted, ())):
                        found.setdefault(dotted, []).append((gpu, value))
    for name, deviating in found.items():
        yield name, None, deviating


def _class_differences(document: Mapping[str, Any]) -> Iterator[_Found]:
    classes = [dict(_flat(each)) for each in _dicts(document.get("node_classes"))]
    members = _members(document, classes)
    for name in dict.fromkeys(name for each in classes for name in each):
        by_class = [each.get(name) for each in classes]
        by_class = _filled(by_class) if name in _PER_GPU else by_class
        known = [(host, by_class[index], count) for host, index, count in members if by_class[index] is not None]
        counted: Counter[str] = Counter()
        for _, value, count in known:
            counted[_text(value)] += count
        if name in _NOT_COMPARED or len(counted) < 2:
            continue
        most, times = counted.most_common(1)[0]
        usual = next(value for _, value, _ in known if _text(value) == most) if 2 * times > counted.total() else None
        others = [(host, value) for host, value, _ in known if usual is None or _text(value) != most]
        shared = usual if usual is not None else _common([value for _, value in others])
        yield name, usual, [(host, _deviation(value, shared)) for host, value in others]


def _filled(by_class: list[Json]) -> list[Json]:
    """Lists by GPU; a lost GPU of one class gets the value that another class has at its index.

    >>> _filled([[0, 1], [0, None], None])
    [[0, 1], [0, 1], None]
    """
    lists = [value for value in by_class if isinstance(value, list)]

    def filled(value: list[Json]) -> list[Json]:
        columns = ([each[place] for each in (value, *lists) if len(each) > place] for place in range(len(value)))
        return [next((item for item in column if item is not None), None) for column in columns]

    return [filled(value) if isinstance(value, list) else value for value in by_class]


def _common(values: list[Json]) -> Json:
    """The items that all lists contain; ``None`` if a value is not a list."""
    if not all(isinstance(value, list) for value in values):
        return None
    return [item for item in values[0] if all(item in value for value in values)]


def _deviation(value: Json, usual: Json) -> Json:
    """The items of a list that the usual one lacks, else those that it lacks: of nine ports the one that is down."""
    if not (isinstance(value, list) and isinstance(usual, list)):
        return value
    more = [item for item in value if item not in usual]
    return more or [f"no {_text([item])}" for item in usual if item not in value] or value


def _members(document: Mapping[str, Any], classes: list[dict[str, Json]]) -> list[tuple[str, int, int]]:
    """Host, index of its class, and number of nodes (1); one entry per class if the document was truncated."""
    nodes = [node for node in _dicts(document.get("nodes")) if type(node.get("class")) is int]
    if nodes:
        return [(str(node.get("host")), node["class"], 1) for node in nodes if 0 <= node["class"] < len(classes)]
    counts = [each.get("n") for each in classes]
    return [(f"{n} nodes", index, n) for index, n in enumerate(counts) if type(n) is int]


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Json]]:
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item


def shorten(value: Json, limit: int = MAX_CHARACTERS) -> str:
    """A value as text for people, in at most ``limit`` characters."""
    text = _text(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _text(value: Json) -> str:
    """A value as text; of a field that is true, its name.

    >>> _text([{"name": "mlx5_0", "rate_gbps": 400.0, "rdma": True}, {"name": "eth0"}])
    'mlx5_0 400.0 rdma; eth0'
    """
    if isinstance(value, list):
        return "; ".join(map(_text, value))
    if isinstance(value, dict):
        return " ".join(name if part is True else str(part) for name, part in value.items())
    return str(value)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []
