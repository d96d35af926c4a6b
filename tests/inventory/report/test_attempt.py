"""The record of a later attempt's hardware keeps to its budget, however many attempts there are."""

from __future__ import annotations

import dataclasses
import json

from inventory.documents import compose_job
from inventory.inventories import h100_node
from pluto_dist.contract.hardware import FIELD, restored
from pluto_dist.inventory.report.attempt import hardware
from pluto_dist.inventory.report.document import BUDGET

NODE = h100_node("x")


def job(nodes: int, driver: str = "550.54.15", odd: int | None = None):
    """A job whose nodes have other GPUs and names per ``driver``; with ``odd``, that one node alone differs."""

    def made(n: int):
        name = driver if odd in (None, n) else "550.54.15"
        devices = [dataclasses.replace(gpu, uuid=f"GPU-{name}-{n}-{gpu.index}") for gpu in NODE.gpus.devices]
        gpus = dataclasses.replace(NODE.gpus, devices=tuple(devices), driver=name)
        return dataclasses.replace(NODE, hostname=f"node-{name}-{n}", gpus=gpus)

    return compose_job({n: made(n) for n in range(nodes)})


def test_a_restart_on_the_same_hardware_costs_little():
    first = job(200)
    assert len(json.dumps(hardware(first, first, {}))) < 1000


def test_one_other_node_of_many():
    """It costs that node and the kinds of nodes, and the whole is restored."""
    first, second = job(200), job(200, "535.1", odd=150)
    (stored,) = hardware(second, first, {})
    assert [node["node"] for node in stored["nodes"]] == [150]
    assert restored(first, stored)["nodes"] == second["nodes"]


def test_many_attempts_on_other_hardware_keep_to_the_budget():
    """Each has at most half of what is left; the last ones have their summary at least."""
    first, records = job(300), {}
    for n in range(20):
        records[str(n)] = {FIELD: hardware(job(300, f"5{n}.1"), first, records)}
    sizes = [len(json.dumps(record[FIELD], separators=(",", ":"))) for record in records.values()]
    assert max(sizes) <= BUDGET / 2 + 2
    assert sum(sizes) < BUDGET * 1.05
    assert all(record[FIELD][0]["cluster"]["nodes"] == 300 for record in records.values())
    assert restored(first, records["0"][FIELD][0])["nodes"][7]["host"] == "node-50.1-7"
