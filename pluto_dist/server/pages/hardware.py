"""Nodes and GPUs for the run's page, read from ``systemMetadata`` and the records of attempts in the config.

Clients may send any document. Values of an unexpected shape are ignored, so that no document breaks the
page. Two shapes are supported: the one that this package writes (``nodes``, ``node_classes``, ``cluster``,
``hosts``) and the official SDK's, which describes only the node that created the run.

>>> table = read_hardware({"nodes": [{"host": "a", "class": 0, "gpus": ["GPU-1", "GPU-2"]}],
...                   "node_classes": [{"gpu": {"name": "H100", "count": 2}}]})
>>> [(node.host, node.gpus, node.gpu_name) for node in table.nodes]
[('a', '2', 'H100')]
>>> read_hardware(["an unexpected", {"shape": 1}]).nodes
()
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pluto_dist.contract import attempts, hardware
from pluto_dist.contract.validation import Json

_SUMMARY = {
    "nodes": "nodes",
    "nodes_reported": "nodes reported",
    "world_size": "world size",
    "gpus": "GPUs",
    "gpus_bad": "GPUs that failed",
    "gpu_name": "GPU",
    "driver": "driver",
    "interconnect": "interconnect",
    "classes": "kinds of node",
}


@dataclass(frozen=True, slots=True)
class Node:
    """A row of the table of nodes. Strings are texts to show; ``node_class`` is the number of its class."""

    node: str
    host: str
    rank: str
    node_class: str
    gpus: str
    gpu_name: str
    ids: tuple[str, ...]
    remarks: tuple[str, ...]
    missing: bool
    sign: str


@dataclass(frozen=True, slots=True)
class NodeClass:
    """Hardware and software that several nodes share, as pairs of label and value."""

    title: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Hardware:
    """Facts about all nodes together, about each class of nodes, and about each node.

    Attributes:
        attempt: number of the attempt that is described; ``None`` if the run has no records of attempts.
        attempts: the numbers of all attempts, the oldest first.
        note: that the attempt's own hardware is not known; "" if it is.
        silent: the nodes that fell silent, and when.
    """

    summary: tuple[tuple[str, str], ...]
    drift: tuple[str, ...]
    classes: tuple[NodeClass, ...]
    nodes: tuple[Node, ...]
    attempt: int | None = None
    attempts: tuple[int, ...] = ()
    note: str = ""
    silent: tuple[str, ...] = ()


def read_run(details: dict[str, Json], attempt: int | None = None) -> Hardware:
    """The hardware of one attempt of a run: of the newest, if ``attempt`` is ``None`` or no attempt's number.

    Args:
        details: as ``GET /api/runs/details`` returns them.
        attempt: its number.
    """
    metadata, config = details.get("systemMetadata"), details.get("config")
    numbers = tuple(record["number"] for record in attempts.in_order(attempts.recorded(config)))
    chosen = hardware.of_attempt(metadata, config, attempt if attempt in numbers else None)
    if chosen is None:
        return read_hardware(metadata)
    sign = hardware.last_sign(details)[0] if chosen.number == (numbers or (None,))[-1] else ""
    found = read_hardware(chosen.document)
    return replace(
        found,
        nodes=tuple(replace(node, sign=str(_silence(chosen, node) or sign)) for node in found.nodes),
        attempt=chosen.number,
        attempts=tuple(dict.fromkeys(numbers)),
        note=chosen.note,
        silent=tuple(f"{each.host}: {each}" for each in chosen.silent),
    )


def _silence(chosen: hardware.AttemptHardware, node: Node) -> hardware.Silence | None:
    return chosen.silence_of({"node": node.node, "host": node.host})


def read_hardware(metadata: Json) -> Hardware:
    """The hardware that ``metadata`` describes; empty if it describes none."""
    top = _mapping(metadata)
    cluster = _mapping(top.get("cluster"))
    classes = [_mapping(each) for each in _sequence(top.get("node_classes"))]
    nodes = tuple(_node(_mapping(each), classes) for each in _sequence(top.get("nodes")))
    node_classes = tuple(_node_class(index, each) for index, each in enumerate(classes))
    if not nodes:
        nodes, node_classes = _read_sdk_metadata(top)
    if not nodes:
        nodes = tuple(_node({"node": n, "host": h}, []) for n, h in enumerate(_sequence(top.get("hosts"))))
    summary = tuple((label, text(cluster[key])) for key, label in _SUMMARY.items() if text(cluster.get(key)))
    drift = tuple(_difference(_mapping(each)) for each in _sequence(top.get("drift")))
    return Hardware(summary, drift, node_classes, nodes)


def _difference(found: dict[str, Json]) -> str:
    """One line of text for a difference between nodes or a fault of a GPU.

    >>> _difference({"field": "gpu.driver", "usual": "550.54", "nodes": {"b": "535.1"}, "more": 2})
    'gpu.driver: b 535.1 and 2 more, usually 550.54'
    """
    deviating = ", ".join(f"{host} {text(value)}".rstrip() for host, value in _mapping(found.get("nodes")).items())
    more = f" and {text(found['more'])} more" if found.get("more") else ""
    usual = f", usually {text(found['usual'])}" if found.get("usual") is not None else ""
    return f"{text(found.get('field'))}: {deviating}{more}{usual}"


def text(value: Json) -> str:
    """A value as text: empty for null, JSON for lists and objects."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def size(value: Json) -> str:
    """A number of bytes in binary units; any other value as :func:`text`.

    >>> size(85899345920), size(1536), size("a lot")
    ('80 GiB', '1.5 KiB', 'a lot')
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        return text(value)
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            return f"{amount:.4g} {unit}"
        amount /= 1024
    return text(value)


def _node(node: dict[str, Json], classes: list[dict[str, Json]]) -> Node:
    number = node.get("class")
    gpu: dict[str, Json] = {}
    if type(number) is int and 0 <= number < len(classes):
        gpu = _mapping(classes[number].get("gpu"))
    ids = _sequence(node.get("gpus"))
    count = text(gpu.get("count")) or (str(len(ids)) if ids else "")
    return Node(
        node=text(node.get("node")),
        host=text(node.get("host")),
        rank=text(node.get("rank")),
        node_class=text(number),
        gpus=count,
        gpu_name=text(gpu.get("name")),
        ids=tuple(_ids(node)),
        remarks=_remarks(node),
        missing=node.get("missing") is True,
        sign="",
    )


def _ids(node: dict[str, Json]) -> Iterator[str]:
    """The node's working GPUs, each with the ranks that use it; then GPUs that only a rank's torch reported.

    >>> node = {"gpus": ["GPU-a", "GPU-c"], "bad": {"1": "GpuIsLost"}, "rank": 8, "gpu_of_rank": [0, 2]}
    >>> list(_ids(node))
    ['GPU-a, rank 8', 'GPU-c, rank 9']
    """
    uuids, bad = _sequence(node.get("gpus")), _mapping(node.get("bad"))
    numbers = [number for number in range(len(uuids) + len(bad)) if str(number) not in bad]
    used = _by_rank(node, "gpu_of_rank")
    for number, uuid in zip(numbers, uuids, strict=False):
        ranks = ", ".join(f"rank {text(rank)}" for rank, gpu in used if gpu == number)
        yield ", ".join(filter(None, (text(uuid), ranks)))
    yield from (f"{text(uuid)}, rank {text(rank)}" for rank, uuid in _by_rank(node, "uuid_of_rank") if uuid is not None)


def _by_rank(node: dict[str, Json], name: str) -> list[tuple[Json, Json]]:
    """The list ``name`` of ``node``, which has one value for each of its ranks, as pairs of rank and value."""
    first, values = node.get("rank"), _sequence(node.get(name))
    ranks = _sequence(node.get("ranks")) or ([first + n for n in range(len(values))] if type(first) is int else [])
    return list(zip(ranks, values, strict=False))


def _remarks(node: dict[str, Json]) -> tuple[str, ...]:
    found = []
    if node.get("missing") is True:
        found.append("did not report")
    found.extend(f"GPU {index}: {text(error)}" for index, error in _mapping(node.get("bad")).items())
    for key, values in _mapping(node.get("diff")).items():
        each = _mapping(values)
        found.extend(f"GPU {index}: {key} = {text(value)}" for index, value in each.items())
        if not each:
            found.append(f"{key} = {text(values)}")
    if hidden := _sequence(node.get("hidden")):
        found.append(f"a cgroup hides GPU {', '.join(map(text, hidden))}")
    if node.get("gpu_error"):
        found.append(f"GPUs could not be read: {text(node['gpu_error'])}")
    return tuple(found)


def _node_class(index: int, facts: dict[str, Json]) -> NodeClass:
    gpu, cpu, memory = (_mapping(facts.get(name)) for name in ("gpu", "cpu", "memory"))
    rows = {
        "GPU": " x ".join(filter(None, (text(gpu.get("count")), text(gpu.get("name"))))),
        "GPU memory": size(gpu.get("memory")),
        "driver": text(gpu.get("driver")),
        **_vendor_rows(gpu),
        "power limit": f"{text(gpu['power_limit_w'])} W" if gpu.get("power_limit_w") else "",
        "network": ", ".join(_nics(_sequence(facts.get("nic")))),
        "CPU": text(cpu.get("model")),
        "cores": text(cpu.get("physical")) or text(cpu.get("logical")),
        "memory": size(memory.get("total")),
        "memory limit": size(memory.get("limit")),
        **{name: text(facts.get(name)) for name in ("os", "kernel", "virt", "container", "image")},
        **{name: text(facts.get(name)) for name in ("python", "torch", "cuda", "cudnn", "nccl", "packages", "commit")},
    }
    title = f"Kind {index}" + (f", {text(facts['n'])} nodes" if facts.get("n") else "")
    return NodeClass(title, tuple((label, value) for label, value in rows.items() if value))


def _vendor_rows(gpu: dict[str, Json]) -> dict[str, str]:
    """Versions and links in the words of the vendor of the GPUs.

    >>> _vendor_rows({"driver": "550.54", "cuda_driver": "12.4", "nvlink": {"up": 17, "links": 18}})
    {'CUDA driver': '12.4', 'NVLink': '17 of 18'}
    """
    versions = {
        f"{name.removesuffix('_driver').upper()} driver": text(value)
        for name, value in gpu.items()
        if name.endswith("_driver")
    }
    links = {
        f"{name.removesuffix('link').upper()}Link": " of ".join(filter(None, map(text, map(each.get, ("up", "links")))))
        for name, each in ((name, _mapping(value)) for name, value in gpu.items())
        if {"up", "links"} & each.keys()
    }
    return versions | links


def _nics(nics: list[Json]) -> list[str]:
    rates: dict[str, int] = {}
    for nic in map(_mapping, nics):
        name = " ".join(filter(None, (text(nic.get("layer")), text(nic.get("rate_gbps")))))
        rates[name] = rates.get(name, 0) + 1
    return [f"{count} x {name} Gb/s" for name, count in rates.items() if name]


def _read_sdk_metadata(top: dict[str, Json]) -> tuple[tuple[Node, ...], tuple[NodeClass, ...]]:
    """The official SDK's metadata: top-level fields about the node that created the run."""
    cards = [_mapping(card) for card in _mapping(top.get("gpu")).values()]  # by vendor, of which a node has one
    card = next((each for each in cards if _sequence(each.get("devices"))), {})
    devices = [_mapping(each) for each in _sequence(card.get("devices"))]
    if not devices:
        return (), ()
    first = devices[0]
    gpu = {
        "count": card.get("count"),
        "name": first.get("name"),
        "memory": _mapping(first.get("memory")).get("total"),
        "driver": card.get("driver"),
    }
    cpu = _mapping(top.get("cpu"))
    facts = {"gpu": gpu, "cpu": cpu, "memory": {"total": _mapping(top.get("memory")).get("virt")}}
    host = _mapping(top.get("platform")).get("hostname") or top.get("hostname")
    node = {"node": 0, "host": host, "class": 0, "gpus": [each.get("uuid") for each in devices]}
    return (_node(node, [facts]),), (_node_class(0, facts),)


def _mapping(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def _sequence(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []
