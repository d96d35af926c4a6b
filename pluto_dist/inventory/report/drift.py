"""What differs between nodes that should be alike, and what is wrong with single GPUs; the worst first.

Pure, and read from the cluster document alone, so that the leader's warning, ``cluster.drift`` and
``pluto-dist nodes`` say the same, also of a run of last year. What is unknown differs from nothing.

>>> classes = [{"n": 2, "gpu": {"driver": "550.54"}}, {"n": 1, "gpu": {"driver": "535.1"}}]
>>> nodes = [{"node": n, "host": h, "class": c} for n, h, c in ((0, "a", 0), (1, "b", 1), (2, "c", 0))]
>>> found, = differences({"node_classes": classes, "nodes": nodes})
>>> found.field, found.usual, found.deviating
('gpu.driver', '550.54', (('b', '535.1'),))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pluto_dist.inventory.records import NOT_OURS
from pluto_dist.serialization.codec import Json

MOST_CHARACTERS = 80  # of one value in a warning
MISSING, LOST, LIBRARY, HIDDEN = "node", "gpu.lost", "gpu.library", "gpu.hidden"
SUBJECTS: dict[str, tuple[str, str]] = {
    MISSING: ("it did not report before the run began", "look for its host in the job's output"),
    LIBRARY: ("NVML does not answer, so nothing is known of its GPUs", "run pluto-dist doctor there"),
    LOST: ("the GPU does not answer", "look for Xid errors in dmesg; reset the GPU or drain the node"),
    "gpu.count": ("ranks that expect a GPU will not find one", "run pluto-dist doctor there"),
    "gpu.name": ("the slowest GPU sets the pace of every step", "ask the scheduler for one kind of GPU"),
    "gpu.memory": ("the smallest GPU sets the largest batch", "ask the scheduler for one kind of GPU"),
    "nccl": ("NCCL of two versions may hang or fail", "use one image on all nodes"),
    "torch": ("ranks may compute other values, or fail to agree", "use one image on all nodes"),
    "cuda": ("ranks may compute other values", "use one image on all nodes"),
    "commit": ("the nodes run other code", "check out the same commit on every node"),
    "packages": ("the nodes run other code", "use one image on all nodes"),
    "python": ("pickled objects may not be read by the others", "use one image on all nodes"),
    "cudnn": ("ranks may compute other values", "use one image on all nodes"),
    "gpu.driver": ("speed and errors differ by driver", "upgrade the driver there"),
    "gpu.cuda_driver": ("speed and errors differ by driver", "upgrade the driver there"),
    "env": ("settings of NCCL, CUDA or torch differ", "export the same variables on every node"),
    "gpu.remap_failed": ("its memory has no spare row left", "replace the GPU"),
    "gpu.remap_pending": ("its memory waits for a repair", "reset the GPU; replace it if that does not help"),
    "gpu.ecc_errors": ("its memory lost bits", "reset the GPU; replace it if that does not help"),
    "gpu.pcie.width": ("data comes to it slower than to the others", "reseat it, or drain the node"),
    "gpu.pcie.gen": ("data comes to it slower than to the others", "reseat it, or drain the node"),
    "gpu.nvlink.up": ("collectives are as slow as the slowest link", "reset the GPUs, or drain the node"),
    "gpu.nvlink.links": ("collectives are as slow as the slowest link", "ask the scheduler for one kind of node"),
    "gpu.p2p": ("GPUs there do not reach each other directly", "look at nvidia-smi topo -p2p r there"),
    "gpu.throttle": ("its clocks are held down", "look at cooling and power there"),
    "gpu.power_limit_w": ("it computes slower than the others", "set the same power limit on all"),
    "gpu.clock_max_mhz.sm": ("it computes slower than the others", "set the same clocks on all"),
    "nic": ("the slowest port sets the pace of every collective", "look at ibstat or ethtool there"),
    "memory.limit": ("its cgroup allows it less memory", "give all nodes the same limits"),
    "cpu.quota": ("its dataloaders get less time", "give all nodes the same limits"),
    "cpu.allowed": ("its dataloaders get fewer cores", "give all nodes the same limits"),
    "shm": ("dataloader workers may run out of it", "give all containers the same --shm-size"),
    "memory.total": ("it has less room", "ask the scheduler for one kind of node"),
    "cpu.model": ("its dataloaders may be slower", "ask the scheduler for one kind of node"),
    "gpu.confidential": ("what comes and goes over PCIe is encrypted on some only", "set the same mode on all"),
    "gpu.ecc": ("memory errors are corrected on some only", "set the same mode on all"),
    "gpu.persistence": ("opening the driver takes seconds there", "nvidia-smi -pm 1"),
    HIDDEN: ("the job may not use it", "ask the scheduler for whole nodes, if it should"),
    "gpu.numa": ("ranks there may be bound far from their GPU", "set the same NUMA mode in the firmware of all"),
    "gpu.cpus": ("ranks there may be bound far from their GPU", "set the same NUMA mode in the firmware of all"),
    "gpu.remapped_rows": ("its memory is wearing out", "watch it"),
    "gpu.retired_pages": ("its memory is wearing out", "watch it"),
    "kernel": ("", "use one image of the system on all nodes"),
    "os": ("", "use one image of the system on all nodes"),
}
"""What is compared, the worst first: why it matters, and what to do. Anything else of a class comes last."""

_ALONE = frozenset({"n", "gpu.bus", "disk.total", "disk.type", "memory.swap", "cpu.freq_max_mhz"})
"""What nodes that are alike may have of their own."""
_BY_INDEX = frozenset({"gpu.numa", "gpu.cpus"})
"""Lists with a value for each GPU; ``None`` for one that does not answer."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which nodes or GPUs are not as the others, or not as they should be.

    Attributes:
        field: the dotted name that it has in the document.
        usual: what more than half of the nodes have, or what is best; ``None`` where there is no such value.
        deviating: who has another one, and which: a host, or "host GPU 3".
        why: why it matters.
        fix: what to do.
    """

    field: str
    usual: Json
    deviating: tuple[tuple[str, Json], ...]
    why: str
    fix: str

    def __str__(self) -> str:
        shown = ", ".join(f"{who} {short(value)}".rstrip() for who, value in self.deviating[:3])
        more = f" and {len(self.deviating) - 3} more" if len(self.deviating) > 3 else ""
        others = f", the others {short(self.usual)}" if self.usual is not None else ""
        return f"{self.field}: {shown}{more}{others}" + (f": {self.why}" if self.why else "")

    def to_json(self, most: int = 10) -> dict[str, Json]:
        """What the document keeps of it: at most ``most`` of the deviating."""
        told = {"field": self.field, "usual": self.usual, "nodes": dict(self.deviating[:most])}
        more = len(self.deviating) - most
        return {name: value for name, value in told.items() if value is not None} | ({"more": more} if more > 0 else {})


def differences(document: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Everything in which the nodes of a cluster document differ; the worst first.

    Args:
        document: as ``compose`` makes it, or as a tracker gives it back: what is not of its shape is passed over.
    """
    found = [*_of_single_ones(document), *_between_nodes(document)]
    order = {name: place for place, name in enumerate(SUBJECTS)}
    return tuple(sorted(found, key=lambda each: (order.get(each.field, len(order)), each.field)))


def _of_single_ones(document: Mapping[str, Any]) -> Iterator[Difference]:
    """Missing nodes, GPUs that do not answer, and the faults of those that do."""
    seen: dict[str, list[tuple[str, Json]]] = {}
    nodes = _dicts(document.get("nodes"))
    for node in nodes:
        host = str(node.get("host", f"node {node.get('node')}"))
        if node.get("missing") and len(nodes) > 1:  # an only node that is late is alike to itself
            seen.setdefault(MISSING, []).append((f"node {node.get('node')}", "missing"))
        if node.get("gpu_error"):
            seen.setdefault(LIBRARY, []).append((host, node["gpu_error"]))
        for index, error in _items(node.get("bad")):
            seen.setdefault(HIDDEN if error == NOT_OURS else LOST, []).append((f"{host} GPU {index}", error))
        for field in ("health", "diff"):
            for name, values in _items(node.get(field)):
                dotted = name if name.startswith("gpu.") else f"gpu.{name}"
                for index, value in _items(values):
                    who = (f"{host} GPU {index}", value)
                    if value is not None and who[0] not in dict(seen.get(dotted, ())):
                        seen.setdefault(dotted, []).append(who)
    for name, deviating in seen.items():
        yield _difference(name, None, deviating)


def _between_nodes(document: Mapping[str, Any]) -> Iterator[Difference]:
    classes = [dict(_flat(each)) for each in _dicts(document.get("node_classes"))]
    members = _members(document, classes)
    for name in dict.fromkeys(name for each in classes for name in each):
        of_class = [each.get(name) for each in classes]
        of_class = _filled(of_class) if name in _BY_INDEX else of_class
        known = [(who, of_class[place], count) for who, place, count in members if of_class[place] is not None]
        counted: Counter[str] = Counter()
        for _, value, count in known:
            counted[_text(value)] += count
        if name in _ALONE or len(counted) < 2:
            continue
        most, times = counted.most_common(1)[0]
        usual = next(value for _, value, _ in known if _text(value) == most) if 2 * times > counted.total() else None
        others = [(who, value) for who, value, _ in known if usual is None or _text(value) != most]
        shared = usual if usual is not None else _common([value for _, value in others])
        yield _difference(name, usual, [(who, _unlike(value, shared)) for who, value in others])


def _filled(of_class: list[Json]) -> list[Json]:
    """Values by GPU, where a lost GPU of one class has what that of another one has in its place.

    >>> _filled([[0, 1], [0, None], None])
    [[0, 1], [0, 1], None]
    """
    lists = [value for value in of_class if isinstance(value, list)]

    def filled(value: list[Json]) -> list[Json]:
        columns = ([each[place] for each in (value, *lists) if len(each) > place] for place in range(len(value)))
        return [next((item for item in column if item is not None), None) for column in columns]

    return [filled(value) if isinstance(value, list) else value for value in of_class]


def _common(values: list[Json]) -> Json:
    """What several lists all have; ``None`` where they are no lists."""
    if not all(isinstance(value, list) for value in values):
        return None
    return [item for item in values[0] if all(item in value for value in values)]


def _unlike(value: Json, usual: Json) -> Json:
    """Of a list, what the usual one has not, else what it lacks itself: of nine ports the one that is down."""
    if not (isinstance(value, list) and isinstance(usual, list)):
        return value
    more = [item for item in value if item not in usual]
    return more or [f"no {_text([item])}" for item in usual if item not in value] or value


def _members(document: Mapping[str, Any], classes: list[dict[str, Json]]) -> list[tuple[str, int, int]]:
    """Who is of which class, and for how many nodes it stands; a document that was cut names no nodes."""
    nodes = [node for node in _dicts(document.get("nodes")) if type(node.get("class")) is int]
    if nodes:
        return [(str(node.get("host")), node["class"], 1) for node in nodes if 0 <= node["class"] < len(classes)]
    counts = [each.get("n") for each in classes]
    return [(f"{n} nodes", place, n) for place, n in enumerate(counts) if type(n) is int]


def _difference(name: str, usual: Json, deviating: list[tuple[str, Json]]) -> Difference:
    why, fix = SUBJECTS.get(name, ("", ""))
    return Difference(name, usual, tuple(deviating), why, fix)


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Json]]:
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item


def short(value: Json, most: int = MOST_CHARACTERS) -> str:
    """As a person reads it, in at most so many characters."""
    text = _text(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _text(value: Json) -> str:
    """All of it; of what is true, its name.

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
