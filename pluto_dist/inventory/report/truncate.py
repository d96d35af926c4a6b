"""Reduces a document that is too large: whole parts are removed or shortened, the least informative first.

==== =======================================================================================
step reduction
==== =======================================================================================
1    UUIDs are written as 22 characters of URL-safe base64
2    nodes without a fault (no ``bad``, ``diff``, ``gpu_error``) have a hash of their UUIDs
3    the list of installed packages is removed; ``cluster`` has a hash of it
4    ``nodes`` is removed
5    the rarest classes and the last hosts are removed; ``cluster`` has their original counts
==== =======================================================================================

``cluster.truncated`` is the last step that was taken. No value is cut in the middle; the top level and ``cluster``
always remain.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from typing import Any

from pluto_dist.inventory.probes.packages import fingerprint
from pluto_dist.serialization.codec import Json

Document = dict[str, Json]
FAULTS = ("bad", "diff", "gpu_error", "missing")


def fit(document: Document, max_bytes: int, size: Callable[[Document], int]) -> Document:
    """``document``, or its least reduced form of at most ``max_bytes``; if none is small enough, the most reduced."""
    if size(document) <= max_bytes:
        return document
    for step, smaller in _steps(document, max_bytes, size):
        document = {**smaller, "cluster": {**smaller["cluster"], "truncated": step}}
        if size(document) <= max_bytes:
            break
    return document


def _steps(document: Document, max_bytes: int, size: Callable[[Document], int]) -> Iterator[tuple[int, Document]]:
    document = {**document, "nodes": [_with_short_uuids(node) for node in document["nodes"]]}
    yield 1, document
    document = {**document, "nodes": [_with_hash(node) for node in document["nodes"]]}
    yield 2, document
    document = _without_requirements(document)
    yield 3, document
    document = {name: part for name, part in document.items() if name != "nodes"}
    yield 4, document
    yield 5, _with_fewer(document, max_bytes, size)


def _with_short_uuids(node: dict[str, Any]) -> dict[str, Any]:
    return {**node, "gpus": [_short(uuid) for uuid in node["gpus"]]} if "gpus" in node else node


def _short(uuid: str) -> str:
    """A UUID in 22 characters; any other string is unchanged.

    >>> _short("GPU-5fd4f087-86f3-7a43-b711-4771313afc50"), _short("unknown")
    ('X9Twh4bzekO3EUdxMTr8UA', 'unknown')
    """
    try:
        raw = binascii.unhexlify(uuid.removeprefix("GPU-").replace("-", ""))
    except ValueError:
        return uuid
    return base64.urlsafe_b64encode(raw).decode().rstrip("=") if len(raw) == 16 else uuid


def _with_hash(node: dict[str, Any]) -> dict[str, Any]:
    """The node with one hash of its UUIDs, which shows whether its GPUs changed."""
    ids = [*node.get("gpus", ()), *(str(instance.get("uuid")) for instance in node.get("mig", ()))]
    if not ids or any(name in node for name in FAULTS):
        return node
    kept = {name: value for name, value in node.items() if name not in ("gpus", "mig")}
    return {**kept, "gpus_hash": fingerprint(ids)}


def _without_requirements(document: Document) -> Document:
    if "requirements" not in document:
        return document
    kept = {name: part for name, part in document.items() if name != "requirements"}
    return {**kept, "cluster": {**document["cluster"], "packages": fingerprint(document["requirements"])}}


def _with_fewer(document: Document, max_bytes: int, size: Callable[[Document], int]) -> Document:
    """As many classes as fit in half of the remaining bytes, then as many hosts as fit."""
    bare: Document = {**document, **{name: [] for name in ("node_classes", "hosts") if name in document}}
    bare["cluster"] = {**bare["cluster"], "truncated": 5}
    half = size(bare) + max(0, max_bytes - size(bare)) // 2
    for name, limit in (("node_classes", half), ("hosts", max_bytes)):
        if name not in document:
            continue
        items = document[name]
        low, high = 0, len(items)
        while low < high:
            middle = (low + high + 1) // 2
            if size({**bare, name: items[:middle]}) <= limit:
                low = middle
            else:
                high = middle - 1
        bare[name] = items[:low]
    return bare
