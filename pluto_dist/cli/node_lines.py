"""The nodes of a run as lines of text: what differs first, then a paragraph for each kind of node. Pure.

Lines fit into ``width`` characters, but names of hosts and ids of GPUs are never cut: a list of hosts is written as
Slurm writes one, ``node-[00-31,33]``, and broken at its commas.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pluto_dist.contract.hardware import AttemptHardware
from pluto_dist.inventory.report.drift import Difference, shorten
from pluto_dist.serialization.text import parse_digits

SUMMARY_FIELDS = ("nodes", "nodes_reported", "world_size", "gpus", "gpus_bad", "classes", "interconnect")
VALUE_WIDTH = 60  # characters of one value
WORST = 12  # differences that are shown whole
SAME_VALUE = 4  # hosts from which on those with one value are shown as a list
LIST_LINES = 6  # of a list of hosts
LOST = "lost: "
_NUMBERED = re.compile(r"([^.]*?)([0-9]+)([^0-9.]*(?:\..*)?)")  # the last number of the name, not of its domain


@dataclass(frozen=True, slots=True)
class BadGpu:
    """A GPU that does not answer, and the ranks that sit on it."""

    node: int | None
    host: str
    gpu: str
    error: str
    ranks: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {"node": self.node, "host": self.host, "gpu": self.gpu, "error": self.error, "ranks": list(self.ranks)}


def overview(chosen: AttemptHardware, found: Sequence[Difference], sign: str, width: int) -> Iterator[str]:
    """One screen: the whole, what differs, and the kinds of node."""
    document, nodes = chosen.document, nodes_of(chosen.document)
    cluster = document["cluster"]
    summary = "  ".join(f"{name} {cluster[name]}" for name in SUMMARY_FIELDS if cluster.get(name) is not None)
    yield from textwrap.wrap(summary, width)
    yield from _differing(chosen, found, width)
    yield ""
    yield "kinds of node"
    yield from _kinds(document, nodes, width)
    if sign:
        yield f"last sign: {sign}; a node that fell silent is named above"
    if len(nodes) > 1 or cluster.get("gpus"):
        yield "more: --bad, --host NAME, --rank N, --gpu UUID, --all"


def _differing(chosen: AttemptHardware, found: Sequence[Difference], width: int) -> Iterator[str]:
    bad = bad_gpus(chosen.document)
    if not (found or bad or chosen.silent):
        yield "the nodes are alike"
        return
    yield ""
    yield "what differs, the worst first"
    for each in chosen.silent:
        yield f"  silent: node {each.node} {each.host}: {each}"
    on_bad = {f"{each.host} GPU {each.gpu}": each.ranks for each in bad}
    for difference in found[:WORST]:
        yield from _difference(difference, on_bad, width)
    if len(found) > WORST:
        yield f"  and {len(found) - WORST} more: --json"


def _difference(difference: Difference, on_bad: Mapping[str, Sequence[int]], width: int) -> Iterator[str]:
    """Field, who has which value, the usual one, and what to do."""
    usual = "" if difference.usual is None else f" (the others: {shorten(difference.usual, VALUE_WIDTH)})"
    yield f"  {difference.field}{usual}"
    by_value: dict[str, list[str]] = {}
    for name, value in difference.deviating:
        by_value.setdefault("" if value is None else shorten(value, VALUE_WIDTH), []).append(name)
    for value, names in by_value.items():
        shown = f": {value}" if value else ""
        if any(name in on_bad for name in names):
            for name in names:
                yield f"    {name}{shown}{_ranks_on(on_bad.get(name, ()))}"
        elif len(names) < SAME_VALUE:
            yield from _wrapped(", ".join(names) + shown, width, "    ")
        else:
            yield f"    {len(names)} of them{shown}"
            yield from _hosts(names, width)
    if advice := "; ".join(filter(None, [difference.why, difference.fix])):
        yield from _wrapped(f"-> {advice}", width, "    ")


def _ranks_on(ranks: Sequence[int]) -> str:
    if not ranks:
        return ""
    return f", with rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))} on it"


def _kinds(document: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]], width: int) -> Iterator[str]:
    classes = _dicts(document.get("node_classes"))
    if not nodes:
        hosts = document.get("hosts")
        yield from _hosts(list(map(str, hosts if isinstance(hosts, list) else [])), width)
    for index, kind in enumerate(classes):
        members = [node for node in nodes if node.get("class") == index]
        if members:
            many = f"{len(members)} node{'s' * (len(members) > 1)}"
            yield from _wrapped(f"{many}: {', '.join(of_class(kind))}", width, "  ")
            yield from _hosts([str(node.get("host")) for node in members], width)
    missing = [node for node in nodes if not isinstance(node.get("class"), int)]
    if missing:
        yield f"  {len(missing)} without a report"
        yield from _hosts([_name(node) for node in missing], width)


def of_class(kind: Mapping[str, Any]) -> list[str]:
    """The GPUs and the software of a kind of node, in words."""
    gpu = kind.get("gpu")
    gpu = gpu if isinstance(gpu, dict) else {}
    gpus = f"{gpu['count']} x {gpu.get('name', '?')}" if gpu.get("count") else "no GPUs"
    named = {"driver": gpu.get("driver")} | {name: kind.get(name) for name in ("torch", "nccl", "kernel")}
    return [gpus, *(f"{name} {value}" for name, value in named.items() if value is not None)]


@dataclass(frozen=True, slots=True)
class Shown:
    """What of a node is shown, beside its name, place and kind.

    Attributes:
        found: the differences of which the node's own are shown.
        sign: the run's own last sign of life; "" if it is not known.
        width: characters of a line.
        gpus: ids of the GPUs that are shown; ``None`` for all.
        ranks: ranks whose GPUs are shown.
    """

    found: Sequence[Difference]
    sign: str
    width: int
    gpus: Sequence[str] | None = None
    ranks: Sequence[int] = ()


def detail(chosen: AttemptHardware, node: Mapping[str, Any], shown: Shown) -> Iterator[str]:
    """A node with what differs in it, and its GPUs."""
    classes = _dicts(chosen.document.get("node_classes"))
    index, silence = node.get("class"), chosen.silence_of(node)
    yield f"node {node.get('node')}  {_name(node)}  {_spans(ranks_of_node(node, chosen.document))}".rstrip()
    if isinstance(index, int) and 0 <= index < len(classes):
        yield from _wrapped(", ".join(of_class(classes[index])), shown.width, "  ")
    if silence or shown.sign:
        yield f"  last sign: {silence or shown.sign}"
    for note in _notes(node):
        yield f"  {note}"
    for difference in shown.found:
        for name, value in difference.deviating:
            if _is_of(name, node):
                text = "" if value is None else shorten(value, VALUE_WIDTH)
                usual = "" if difference.usual is None else f" (the others: {shorten(difference.usual, VALUE_WIDTH)})"
                gpu = name.removeprefix(_name(node))
                yield from _wrapped(f"{difference.field}{gpu}: {text}{usual}", shown.width, "  ")
    for number, uuid, ranks in rows_of_gpus(node):
        if shown.gpus is None or uuid in shown.gpus or set(ranks) & set(shown.ranks) or uuid.startswith(LOST):
            yield f"  GPU {number:3} {uuid}{_ranks_of(ranks)}"


def _spans(ranks: Sequence[int]) -> str:
    """
    >>> _spans([8, 9, 10]), _spans([1, 3]), _spans([])
    ('ranks 8-10', 'ranks 1,3', '')
    """
    if not ranks:
        return ""
    return f"rank{'s' * (len(ranks) > 1)} {_ranges(('', '', 0), list(ranks)).strip('[]')}"


def _is_of(name: str, node: Mapping[str, Any]) -> bool:
    """Whether ``name``, in a difference, is the node or a GPU of it."""
    return name == _name(node) or name.startswith(f"{_name(node)} GPU ")


def rows_of_gpus(node: Mapping[str, Any]) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Index, UUID or error, and ranks of each GPU of a node; last those that only torch on a rank reported."""
    used = _by_rank(node, "gpu_of_rank")
    uuids, bad = node.get("gpus"), _mapping(node.get("bad"))
    uuids = uuids if isinstance(uuids, list) else []
    rest = iter(uuids)
    for number in range(len(uuids) + len(bad)):
        ranks = tuple(rank for rank, gpu in used if gpu == number)
        if str(number) in bad:
            yield str(number), f"{LOST}{bad[str(number)]}", ranks
        else:
            yield str(number), str(next(rest, "?")), ranks
    yield from (("?", str(uuid), (rank,)) for rank, uuid in _by_rank(node, "uuid_of_rank") if uuid is not None)


def bad_gpus(document: Mapping[str, Any]) -> list[BadGpu]:
    """The GPUs that do not answer."""
    found = []
    for node in nodes_of(document):
        used, number = _by_rank(node, "gpu_of_rank"), node.get("node")
        for gpu, error in _mapping(node.get("bad")).items():
            ranks = tuple(rank for rank, index in used if str(index) == gpu)
            found.append(BadGpu(number if isinstance(number, int) else None, _name(node), gpu, str(error), ranks))
    return found


def nodes_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The nodes of a cluster document."""
    return _dicts(document.get("nodes"))


def ranks_of_node(node: Mapping[str, Any], document: Mapping[str, Any]) -> list[int]:
    """The ranks of ``node``: those that are listed, else from its first up to the next node's first."""
    listed, first = node.get("ranks"), node.get("rank")
    if isinstance(listed, list):
        return [rank for rank in listed if isinstance(rank, int)]
    if not isinstance(first, int):
        return []
    world = document["cluster"].get("world_size")
    firsts = [each["rank"] for each in nodes_of(document) if isinstance(each.get("rank"), int)]
    end = min((rank for rank in firsts if rank > first), default=world if isinstance(world, int) else first + 1)
    return list(range(first, end))


def is_bad(node: Mapping[str, Any], chosen: AttemptHardware, found: Sequence[Difference]) -> bool:
    """Whether something of ``node`` is lost, missing, silent, or differs from the others."""
    deviates = any(_is_of(name, node) for each in found for name, _ in each.deviating)
    return bool(node.get("bad") or node.get("missing") or node.get("gpu_error") or deviates or chosen.silence_of(node))


def host_list(names: Iterable[str]) -> str:
    """Host names as Slurm writes a list of them; numbers keep their zeros.

    >>> host_list(["n01", "n02", "n03", "n07", "login", "n11"])
    'n[01-03,07,11], login'
    """
    groups: dict[tuple[str, str, int], list[int]] = {}
    order: list[str | tuple[str, str, int]] = []
    for name in names:
        match = _NUMBERED.fullmatch(name)
        digits = None if match is None else parse_digits(match[2], most=15)
        if match is None or digits is None:
            order.append(name)
            continue
        key = (match[1], match[3], len(match[2]) if match[2].startswith("0") else 0)
        key = next((k for k in groups if k[:2] == key[:2] and len(match[2]) == k[2]), key)
        if key not in groups:
            order.append(key)
        groups.setdefault(key, []).append(digits)
    return ", ".join(each if isinstance(each, str) else _ranges(each, groups[each]) for each in order)


def _ranges(key: tuple[str, str, int], numbers: list[int]) -> str:
    before, after, size = key
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    parts = [f"{a:0{size}d}" if a == b else f"{a:0{size}d}-{b:0{size}d}" for a, b in spans]
    inner = parts[0] if len(numbers) == 1 else f"[{','.join(parts)}]"
    return f"{before}{inner}{after}"


def _hosts(names: Sequence[str], width: int) -> list[str]:
    """A list of hosts, in at most :data:`LIST_LINES` lines."""
    lines = _wrapped(host_list(names), width, "      ")
    if len(lines) <= LIST_LINES:
        return lines
    return [*lines[: LIST_LINES - 1], "      ... all of them: --json"]


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    """``text`` in lines of at most ``width``, broken at blanks and, in a list of hosts, at commas."""
    spaced = re.sub(r",(?=\d)", ",\u200b", text).replace("\u200b", " \u200b")
    lines = textwrap.wrap(
        spaced, width, initial_indent=indent, subsequent_indent=f"{indent}  ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    return [line.replace(" \u200b", "").replace("\u200b", "") for line in lines]


def _name(node: Mapping[str, Any]) -> str:
    host = node.get("host")
    return host if isinstance(host, str) else f"(node {node.get('node')})"


def _ranks_of(ranks: Sequence[int]) -> str:
    return f"  rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}" if ranks else ""


def _by_rank(node: Mapping[str, Any], name: str) -> list[tuple[int, Any]]:
    """Each rank of ``node`` with its item of the list ``name``."""
    first, values, ranks = node.get("rank"), node.get(name), node.get("ranks")
    if not isinstance(first, int) or not isinstance(values, list):
        return []
    return list(zip(ranks if isinstance(ranks, list) else range(first, first + len(values)), values, strict=False))


def _notes(node: Mapping[str, Any]) -> list[str]:
    hidden = f"a cgroup hides {len(node['hidden'])} GPUs" if isinstance(node.get("hidden"), list) else None
    error = node.get("gpu_error")
    notes = (str(error) if error else None, "missing: it did not report" if node.get("missing") else None, hidden)
    return [note for note in notes if note]


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
