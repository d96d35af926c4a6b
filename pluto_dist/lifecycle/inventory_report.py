"""What every rank says of its hardware: one worker of a node collects for all, and asks the others for their GPUs.

What a node is made of is ``inventory``; what the leader makes of all nodes is ``gathering``. torchrun's workers have
consecutive ranks and inherit one CUDA_VISIBLE_DEVICES, so as a rule they need not be asked: only where they have lists
of their own, or where torch has CUDA up. Other launchers place ranks and GPUs as they like (``srun --gpus-per-task``,
``--distribution=cyclic``), so there every rank says which it is and what it sees.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from pluto_dist.errors import ExchangeError, PlutoDistError
from pluto_dist.inventory.gpu import assignment, hidden, nvidia_proc, torch_device
from pluto_dist.inventory.probes.collect import collect
from pluto_dist.inventory.probes.sources import Sources
from pluto_dist.inventory.ranks import RankView
from pluto_dist.inventory.records import NodeInventory
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.log import logger
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import AgreedId
from pluto_dist.rendezvous.torch_guard import torch_call
from pluto_dist.serialization.text import clean_text

COLLECT_SECONDS = 1.5  # how long a node's driver may take; within the leader's wait, or the node is late
VIEW_SECONDS = 1.0  # how long a node waits for its ranks, counted from when it began to collect
AGREED_SECONDS = 60.0  # how long an inventory waits for the id
_SLICE = 0.2  # how often one who waits for its node's ranks looks whether all of the job have spoken that will


def sources_of(plan: Plan) -> Sources:
    """What the probes of this process may look at."""
    return Sources(plan.settings.metadata, plan.environ)


def report(exchange: Membership, agreed: Future[AgreedId], plan: Plan) -> threading.Thread | None:
    """Do this rank's part for its node's inventory, once in an attempt.

    The one that collects does so in a thread of its own, and hands the inventory to the leader once the id is
    agreed; so a leader that has all inventories knows that every node names the same run.

    Args:
        exchange: this rank's place; its node leader collects.
        agreed: the run's id.
        plan: what this rank set out to do.

    Returns:
        The thread, where there is one.

    Raises:
        ExchangeError: the store is lost.
    """
    if not exchange.is_node_leader:
        if _speaks(plan):
            exchange.tell_view(_view(plan).to_json())
        return None
    thread = threading.Thread(
        target=_collect_and_publish, args=(exchange, agreed, plan), name="pluto_dist inventory", daemon=True
    )
    thread.start()
    return thread


def _collect_and_publish(exchange: Membership, agreed: Future[AgreedId], plan: Plan) -> None:
    began = time.monotonic()
    inventory = collect(COLLECT_SECONDS, sources_of(plan))
    try:
        agreed.result(timeout=AGREED_SECONDS)
    except (PlutoDistError, FutureTimeoutError):
        return  # the ranks disagree or have lost each other, and the run's thread says so
    try:
        inventory = _with_ranks(inventory, exchange, plan, began + VIEW_SECONDS)
        first_rank = min((each.rank for each in inventory.ranks), default=None)
        exchange.publish_inventory(inventory.to_json(), first_rank)
    except ExchangeError as error:
        logger.debug("this node's inventory could not be handed to the leader: %s", error)


def _speaks(plan: Plan) -> bool:
    """Whether this rank tells its node what it sees; each decides for itself, as a rule all alike."""
    topology = plan.context.topology
    untold = plan.context.launcher != "torchrun" or plan.cuda_device is not None or _has_own_list(plan)
    return bool(plan.settings.metadata) and topology.world_size > 1 and untold


def _has_own_list(plan: Plan) -> bool:
    """Whether this worker of torchrun sees fewer GPUs than its node has ranks."""
    listed, size = assignment.entries(plan.environ), plan.context.topology.local_world_size or 1
    return "gpu" in plan.settings.metadata and listed is not None and listed < size


def _view(plan: Plan) -> RankView:
    topology, device = plan.context.topology, plan.cuda_device
    listed = plan.environ.get(assignment.VISIBLE) if "gpu" in plan.settings.metadata else None
    uuid = None
    if device is not None:
        with torch_call():
            uuid = torch_device.uuid_in_use(sys.modules["torch"], device, topology.local_rank)
    devices = nvidia_proc.openable() if "gpu" in plan.settings.metadata else None
    return RankView(topology.rank, clean_text(listed), uuid, devices)


def _views(exchange: Membership, plan: Plan, until: float) -> tuple[list[RankView], int]:
    """What the ranks of this node see, and how many they are.

    A worker of torchrun that does not speak sees what this one sees. A program of one process uses what it likes.
    """
    context, topology, mine = plan.context, plan.context.topology, _view(plan)
    if context.launcher == "single":
        return ([] if mine.uuid is None else [mine]), 1
    size = topology.local_world_size
    are_all_here = not _speaks(plan) or _await_views(exchange, plan, until)
    views = {}
    if context.launcher == "torchrun" and not _has_own_list(plan):
        first = topology.rank - (topology.local_rank or 0)
        silent = dataclasses.replace(mine, uuid=None)
        views = {rank: dataclasses.replace(silent, rank=rank) for rank in range(first, first + (size or 0))}
    told = [view for document in exchange.views() if (view := _read(document)) is not None]
    views.update({view.rank: view for view in (mine, *told)})
    return list(views.values()), size or len(views) + (not are_all_here)


def _await_views(exchange: Membership, plan: Plan, until: float) -> bool:
    """Whether every rank of this node that speaks has spoken before ``until``."""
    run, topology = exchange.run(plan.nth), plan.context.topology
    others = (topology.local_world_size or topology.world_size) - 1
    while run.count("joined", 0) < topology.world_size:
        if exchange.await_view(others, _SLICE):
            return True
        if time.monotonic() > until:
            return False
    return True


def _read(document: dict[str, Any]) -> RankView | None:
    try:
        return RankView.from_json(document)
    except ValueError as error:
        logger.debug("what a rank of this node told of its GPU is garbled: %s", error)
        return None


def _with_ranks(inventory: NodeInventory, exchange: Membership, plan: Plan, until: float) -> NodeInventory:
    views, size = _views(exchange, plan, until)
    gpus = inventory.gpus
    if hidden.differs(gpus, views):
        mine = next(view for view in views if view.rank == plan.context.topology.rank)
        gpus = hidden.revealed(gpus, mine, views, nvidia_proc.present())
    in_bus_order = plan.environ.get(assignment.ORDER) == "PCI_BUS_ID"
    found = assignment.of_ranks(gpus, views, size=size, in_bus_order=in_bus_order)
    has_one_list = all(each.visible is None for each in found)
    shown = inventory.visible if has_one_list else None
    return dataclasses.replace(inventory, gpus=gpus, ranks=found, visible=shown)
