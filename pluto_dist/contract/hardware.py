"""The nodes of each attempt of a run, as its documents have them: their hardware, and which of them fell silent.

Pure. The tracker keeps the ``systemMetadata`` of the run's creator for good, so the record of every later attempt has
its own cluster document under ``hardware``: of the nodes only those that differ from the creator's. It is an item of a
list, because the tracker replaces lists as a whole, and makes each key of an object a column of the project. What the
tracker returns is data: what is not of the expected shape is ignored.

>>> first = {"cluster": {"nodes": 2}, "nodes": [{"node": 0, "gpus": ["a"]}, {"node": 1, "gpus": ["b"]}]}
>>> now = {"cluster": {"nodes": 2}, "nodes": [{"node": 0, "gpus": ["a"]}, {"node": 1, "gpus": ["c"]}]}
>>> difference(first, now)
{'cluster': {'nodes': 2}, 'nodes': [{'node': 1, 'gpus': ['c']}]}
>>> restored(first, difference(first, now))["nodes"] == now["nodes"]
True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pluto_dist.contract import attempts
from pluto_dist.contract.validation import Json
from pluto_dist.serialization.text import parse_digits

FIELD, SILENT = "hardware", "silent"
WITHOUT_NODES = 4  # ``cluster.truncated`` of a document without its nodes
_SHARED = ("node_classes", "drift")  # parts that are left out if they are the creator's


@dataclass(frozen=True, slots=True)
class Silence:
    """A node that fell silent while the job went on. Times in ISO 8601; ``back`` is "" while it is silent.

    Attributes:
        node: its name in the launch: its number, or its host if the launcher numbers no nodes.
        host: its host.
        since: its last sign of life before.
        back: its first sign of life after.
    """

    node: str
    host: str
    since: str
    back: str = ""

    def to_json(self) -> dict[str, Json]:
        return {name: value for name, value in asdict(self).items() if value}

    def is_of(self, node: Mapping[str, Any]) -> bool:
        """Whether ``node``, of a cluster document, is this one."""
        if parse_digits(self.node) is not None:
            return str(node.get("node")) == self.node
        return node.get("host") == self.host

    def __str__(self) -> str:
        return f"{self.since}, and again since {self.back}" if self.back else f"silent since {self.since}"


@dataclass(frozen=True, slots=True)
class AttemptHardware:
    """The nodes of one attempt.

    Attributes:
        number: of the attempt; ``None`` if the run has no records of attempts.
        start: when it began, as it is recorded.
        document: its cluster document.
        is_own: whether that describes this attempt; else it was not recorded, and the document is the creator's.
        silent: the nodes that fell silent in it.
    """

    number: int | None
    start: str
    document: dict[str, Json]
    is_own: bool
    silent: tuple[Silence, ...] = ()

    @property
    def note(self) -> str:
        """For a person: that another attempt is shown; "" if not."""
        return "" if self.is_own else "the hardware of this attempt was not recorded; this is that of the first one"

    def silence_of(self, node: Mapping[str, Any]) -> Silence | None:
        """The silence of ``node``; ``None`` if it did not fall silent."""
        return next((each for each in self.silent if each.is_of(node)), None)


def difference(first: Json, document: Mapping[str, Json]) -> dict[str, Json]:
    """What of the cluster ``document`` of an attempt its record needs: ``cluster``, and what differs from ``first``."""
    base = _mapping(first)
    before = _by_number(base)
    changed = {
        "cluster": document.get("cluster"),
        "nodes": [node for number, node in _by_number(document).items() if before.get(number) != node],
    }
    more = {name: document.get(name, []) for name in _SHARED if document.get(name, []) != base.get(name, [])}
    return changed | more


def restored(first: Json, hardware: Mapping[str, Json]) -> dict[str, Json]:
    """The cluster document of which :func:`difference` made ``hardware``."""
    base, cluster = _mapping(first), _mapping(hardware.get("cluster"))
    nodes = _by_number(base) | _by_number(hardware)
    count, truncated = cluster.get("nodes"), cluster.get("truncated")
    if type(truncated) is int and truncated >= WITHOUT_NODES:
        nodes = {}
    kept = [nodes[number] for number in sorted(nodes) if type(count) is int and number < count]
    shared = {name: hardware.get(name, base.get(name, [])) for name in _SHARED}
    hosts = [node.get("host", "(missing)") for node in kept]
    return {"cluster": cluster, "hosts": hosts, "nodes": kept, **shared}


def of_attempt(first: Json, config: Json, number: int | None = None) -> AttemptHardware | None:
    """The nodes of the attempt with that number; of the newest one if ``number`` is ``None``.

    Args:
        first: the run's ``systemMetadata``.
        config: the run's.
        number: of the attempt; of two with the same number, which a split of the nodes may leave, the last one counts.

    Returns:
        ``None`` if there is no such attempt.
    """
    records = attempts.in_order(attempts.recorded(config))
    if not records and number is None:
        return AttemptHardware(None, "", _mapping(first), is_own=True)
    record = next((each for each in reversed(records) if number in (None, each["number"])), None)
    if record is None:
        return None
    own, start = own_document(first, record), record.get("start")
    return AttemptHardware(
        record["number"],
        start if isinstance(start, str) else "",
        _mapping(first) if own is None else own,
        is_own=own is not None,
        silent=silences(record),
    )


def own_document(first: Json, record: Mapping[str, Any]) -> dict[str, Json] | None:
    """The cluster document of the attempt with that record; ``None`` if it was not recorded."""
    stored = record.get(FIELD)
    if isinstance(stored, list) and stored and isinstance(stored[0], dict):
        return restored(first, stored[0])
    return _mapping(first) if record.get("number") == 1 else None


def last_sign(details: Mapping[str, Json]) -> tuple[str, str]:
    """The run's own last sign of life, and what it was: that of every node that is not named as silent.

    >>> last_sign({"status": "RUNNING", "heartbeatAt": "2026-01-01T00:00:10.000Z", "updatedAt": "2026-01-01"})
    ('2026-01-01T00:00:10Z', 'its last heartbeat')
    """
    signs = {
        "heartbeatAt": "its last heartbeat",
        "updatedAt": "its last change, for this tracker shows no heartbeats",
    }
    if details.get("status") != "RUNNING":
        signs = {"statusUpdated": "its end"} | signs
    for name, what in signs.items():
        at = details.get(name)
        if isinstance(at, str) and at:
            return (f"{at[:19]}Z" if at.endswith("Z") else at), what
    return "", ""


def without_hardware(config: Json) -> Json:
    """``config`` without the hardware in the records of attempts, which is shown elsewhere."""
    records = attempts.recorded(config)
    if not isinstance(config, dict) or not records:
        return config
    kept = {
        key: {name: value for name, value in record.items() if name != FIELD} if isinstance(record, dict) else record
        for key, record in records.items()
    }
    return {**config, "pluto_dist": {**_mapping(config.get("pluto_dist")), attempts.FIELD: kept}}


def silences(record: Mapping[str, Any]) -> tuple[Silence, ...]:
    """The nodes that fell silent, in the record of an attempt."""
    stored = record.get(SILENT)
    found = []
    for each in stored if isinstance(stored, list) else ():
        fields = [_mapping(each).get(name, "") for name in ("node", "host", "since", "back")]
        if all(isinstance(value, str) for value in fields) and all(fields[:3]):
            found.append(Silence(*fields))
    return tuple(found)


def _by_number(document: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    nodes = document.get("nodes")
    found = [node for node in nodes if isinstance(node, dict)] if isinstance(nodes, list) else []
    return {node["node"]: node for node in found if type(node.get("node")) is int}


def _mapping(value: Json) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
