"""How large the document of a job's hardware is, and how long it takes to compose: 1 to 1,000 nodes of 8 GPUs.

Nodes as in the tests (H100, 9 network ports each), the creator with 300 packages; one node of 100 has lost a GPU
and another one is throttled, so that the ladder keeps their UUIDs.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import time
from pathlib import Path

from measuring import Report, console, load, middle, ms
from rich.table import Table

from pluto_dist.inventory.records import NodeInventory
from pluto_dist.inventory.report.document import BUDGET, compose, to_text

sys.path.append(str(Path(__file__).parents[2] / "tests" / "inventory"))
from inventories import creator, h100_node

SIZES = (1, 8, 64, 256, 1000)
STEPS = ("whole", "short UUIDs", "hashes of UUIDs", "no requirements", "no nodes", "fewer classes")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="compositions of each size (default 5)")


def run(report: Report, rounds: int = 5) -> None:
    table = Table("nodes", "in full", "as sent", "gzip", "step of the ladder", "ms", "ms to read the nodes' JSON")
    for count in SIZES:
        nodes = _job(count)
        sent = [node.to_json() for node in nodes.values()]
        reading = middle(_seconds(lambda sent=sent: [NodeInventory.from_json(each) for each in sent], rounds))
        composing = middle(_seconds(lambda nodes=nodes: _composed(nodes), rounds))
        whole, document = to_text(_composed(nodes, sys.maxsize)), _composed(nodes)
        text = to_text(document)
        step = document["cluster"].get("truncated", 0)
        packed = len(gzip.compress(text.encode()))
        sizes = (f"{len(each):,}" for each in (whole, text))
        table.add_row(str(count), *sizes, f"{packed:,}", f"{step} {STEPS[step]}", ms(composing), ms(reading))
        report.at_most(f"document of {count} nodes", len(text), BUDGET, "bytes")
    table.title = f"the document, bytes; medians of {rounds}, load {load()}"
    console.print(table)


def _job(count: int) -> dict[int, NodeInventory]:
    nodes = {n: h100_node(f"gpu-node-{n:04}") for n in range(count)}
    nodes |= {n: h100_node(f"gpu-node-{n:04}", lost=(3,)) for n in range(7, count, 100)}
    return nodes | {n: h100_node(f"gpu-node-{n:04}", power_w={5: 450}) for n in range(9, count, 100)}


def _composed(nodes: dict[int, NodeInventory], max_bytes: int = BUDGET) -> dict[str, object]:
    ranks = {node: 8 * node for node in nodes}
    return compose(
        nodes, owner_node=0, world_size=8 * len(nodes), first_ranks=ranks, process=creator(), max_bytes=max_bytes
    )


def _seconds(work: object, rounds: int) -> list[float]:
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()  # type: ignore[operator]
        taken.append(time.perf_counter() - began)
    return taken
