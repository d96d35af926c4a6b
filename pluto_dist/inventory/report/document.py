"""The document that the tracker stores of a job's hardware and software, within the size of one request.

Pure: it composes inventories into JSON, without clock, files or network. The top level describes the node of the run's
creator in the official SDK's field names, because the Pluto UI parses them strictly; ``cluster``, ``hosts``,
``node_classes`` and ``nodes`` describe the job. Unknown values of the top level are left out, never null.

>>> from pluto_dist.inventory.records import SoftwareReport
>>> one = NodeInventory(hostname="a", software=SoftwareReport(torch="2.4.0"))
>>> document = compose({0: one, 1: None}, owner_node=0, world_size=2, first_ranks={0: 0, 1: 1})
>>> document["cluster"]["nodes"], document["cluster"]["nodes_reported"], document["hosts"]
(2, 1, ['a', '(missing)'])
>>> document["nodes"]
[{'node': 0, 'host': 'a', 'class': 0, 'rank': 0, 'gpus': []}, {'node': 1, 'missing': True}]
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pluto_dist.inventory.records import NO_PERMISSION, Gpu, GpuReport, MigInstance, NodeInventory, Process, RankGpu
from pluto_dist.inventory.report import health, interconnect, sdk_fields, truncate
from pluto_dist.inventory.report.classes import NodeClass, classify, value_or_mixed
from pluto_dist.inventory.report.drift import differences
from pluto_dist.serialization.codec import Json

SCHEMA = 1
BUDGET = 256 * 1024  # bytes of ``to_text``
SLOW_INIT_MS = 1000
MAX_DIFFERENCES = 20


def compose(
    nodes: Mapping[int, NodeInventory | None],
    *,
    owner_node: int,
    world_size: int,
    first_ranks: Mapping[int, int],
    process: Process | None = None,
    max_bytes: int = BUDGET,
) -> dict[str, Json]:
    """The ``systemMetadata`` of a job, as JSON values; the arguments are not modified.

    Args:
        nodes: every node of the job by its number; ``None`` for one that has not reported.
        owner_node: the node that the top level describes; if it has not reported, only ``process`` is described.
        world_size: number of ranks of the job.
        first_ranks: the lowest global rank of each node, as far as it is known.
        process: the process that creates the run, without secrets.
        max_bytes: maximum length of ``to_text`` of the document. A larger document is reduced step by step (see
            ``truncate``), and ``cluster.truncated`` is the last step.
    """
    reported = {node: inventory for node, inventory in sorted(nodes.items()) if inventory is not None}
    classes, class_of = classify(reported)
    owner = reported.get(owner_node)
    document: dict[str, Json] = sdk_fields.top_level(owner or NodeInventory(), process)
    document["cluster"] = _cluster(reported, len(nodes), world_size, len(classes))
    document["hosts"] = [_host(inventory) for _, inventory in sorted(nodes.items())]
    document["node_classes"] = [{"n": each.count, **each.to_json()} for each in classes]
    document["nodes"] = [
        _node(node, inventory, class_of[node], classes, first_ranks.get(node))
        if inventory is not None
        else {"node": node, "missing": True}
        for node, inventory in sorted(nodes.items())
    ]
    if found := differences(document):
        document["cluster"]["drift"] = len(found)
        document["drift"] = [each.to_json() for each in found[:MAX_DIFFERENCES]]
    return truncate.fit(_storable(document), max_bytes, lambda value: len(to_text(value)))


def to_text(document: Mapping[str, Json]) -> str:
    """The document as it is sent, in ASCII without spaces; the budget counts its bytes."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False)


def _cluster(reported: Mapping[int, NodeInventory], nodes: int, world_size: int, classes: int) -> dict[str, Json]:
    """Scalars only, because the tracker flattens and filters them. ``gpu_memory`` is that of the smallest GPU."""
    inventories = list(reported.values())
    gpus = [gpu for inventory in inventories for gpu in inventory.gpus.devices]
    summary = {
        "schema": SCHEMA,
        "nodes": nodes,
        "nodes_reported": len(inventories),
        "world_size": world_size,
        "gpus": sum(inventory.gpus.count or 0 for inventory in inventories),
        "gpus_bad": sum(error != NO_PERMISSION for inventory in inventories for _, error in inventory.gpus.bad),
        "gpu_name": value_or_mixed(gpu.name for gpu in gpus),
        "gpu_memory": min((gpu.memory for gpu in gpus if gpu.memory), default=None),
        "driver": value_or_mixed(inventory.gpus.driver for inventory in inventories),
        "classes": classes,
        "interconnect": interconnect.summarize(inventories),
        "collect_ms": max((inventory.collect_ms or 0 for inventory in inventories), default=None),
    }
    return sdk_fields.without_none(summary)


def _host(inventory: NodeInventory | None) -> str:
    if inventory is None:
        return "(missing)"
    return inventory.hostname or "(unknown)"


def _node(
    node: int, inventory: NodeInventory, class_index: int, classes: list[NodeClass], rank: int | None
) -> dict[str, Json]:
    """One node: its identity, and its deviations from its class. Lost GPUs are in ``bad`` only."""
    gpus = inventory.gpus
    slow = gpus.init_ms if (gpus.init_ms or 0) > SLOW_INIT_MS else None
    identity = {"node": node, "host": _host(inventory), "class": class_index, "rank": rank}
    found: dict[str, Any] = {
        "bad": {str(index): error for index, error in gpus.bad},
        "gpu_error": gpus.error,
        "mig": [_mig(gpu, instance) for gpu in gpus.devices for instance in gpu.mig_instances],
        "diff": classes[class_index].differences(gpus),
        "health": health.node_faults(gpus),
        "hidden": [gpu.index for gpu in gpus.devices if gpu.hidden],
        "fabric": _fabric(gpus),
        "visible": inventory.visible,
        **_ranks(inventory.ranks),
        "init_ms": slow,
        "k8s": sdk_fields.without_none({"pod": inventory.host.k8s_pod, "node": inventory.host.k8s_node}),
    }
    return {
        **sdk_fields.without_none(identity),
        "gpus": [gpu.uuid or "unknown" for gpu in gpus.devices],
        **{name: value for name, value in found.items() if value},
    }


def _ranks(ranks: Sequence[RankGpu]) -> dict[str, list[Any]]:
    """The ranks of a node, if they are not consecutive, and the GPU of each, as far as it is known."""
    numbers = [each.rank for each in ranks]
    columns: dict[str, list[Any]] = {
        "ranks": numbers if numbers != list(range(numbers[0], numbers[0] + len(numbers))) else [],
        "gpu_of_rank": [each.gpu for each in ranks],
        "visible_of_rank": [each.visible for each in ranks],
        "uuid_of_rank": [each.uuid for each in ranks],
    } if numbers else {}  # fmt: skip
    return {name: column for name, column in columns.items() if any(value is not None for value in column)}


def _fabric(gpus: GpuReport) -> dict[str, Json]:
    """The fabric of links that the node is in, if its GPUs have joined the same one."""
    joined = {(gpu.fabric_cluster, gpu.fabric_clique) for gpu in gpus.devices if gpu.fabric_cluster}
    cluster, clique = next(iter(joined)) if len(joined) == 1 else (None, None)
    return sdk_fields.without_none({"cluster": cluster, "clique": clique}) if cluster else {}


def _mig(gpu: Gpu, instance: MigInstance) -> dict[str, Json]:
    profile = (instance.name or "").rpartition(" MIG ")[2] or None
    return sdk_fields.without_none({"gpu": gpu.index, "uuid": instance.uuid, "profile": profile})


def _storable(value: Json) -> Json:
    """A copy of ``value`` without NUL and lone surrogates, which the tracker's database rejects."""
    if isinstance(value, str):
        return value.replace("\x00", "").encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_storable(item) for item in value]
    return value
