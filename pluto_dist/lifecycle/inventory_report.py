"""Each rank's part in the inventory of its node: one worker collects, the others publish which GPUs they see.

torchrun's workers have consecutive ranks and inherit one list of visible devices, so as a rule they need not publish
anything: only if they have lists of their own, or torch has a GPU in use. Other launchers place ranks and GPUs as
they like (``srun --gpus-per-task``, ``--distribution=cyclic``), so there every rank publishes what it sees.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from pluto_dist.background import start_thread
from pluto_dist.errors import ExchangeError, PlutoDistError
from pluto_dist.inventory.gpu import assignment, local_vendor, torch_device, vendor_named
from pluto_dist.inventory.probes.collect import collect
from pluto_dist.inventory.probes.sources import Sources
from pluto_dist.inventory.records import NodeInventory, RankView
from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.log import logger
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import AgreedId
from pluto_dist.rendezvous.torch_guard import torch_call
from pluto_dist.serialization.text import record_text

COLLECT_SECONDS = 1.5  # how long a node's driver may take; less than the owner's wait, or the node is late
VIEW_SECONDS = 1.0  # how long a node waits for its ranks, counted from when it began to collect
AGREED_SECONDS = 60.0  # how long an inventory waits for the run's id
_SLICE = 0.2  # how often the wait for a node's ranks checks whether all ranks of the job have joined


def sources_of(plan: Plan) -> Sources:
    """What the probes of this process may read."""
    return Sources(plan.settings.metadata, plan.environ)


def publish_inventory(membership: Membership, agreed: Future[AgreedId], plan: Plan) -> threading.Thread | None:
    """Contribute to the inventory of this rank's node, once in an attempt.

    The node leader collects in a thread of its own, and publishes the inventory once the run's id is agreed: an owner
    that has all inventories knows that every node agreed on the same run.

    Args:
        membership: this rank in the attempt.
        agreed: the run's id.
        plan: what this rank's ``init()`` decided.

    Returns:
        The thread; ``None`` if this rank is not the node leader, or the system has no thread to give.

    Raises:
        ExchangeError: the store is lost.
    """
    if not membership.is_node_leader:
        if _publishes(plan):
            membership.publish_view(_view(plan).to_json())
        return None
    lost = "the hardware of this node is not recorded"
    return start_thread(_collect_and_publish, "pluto_dist inventory", membership, agreed, plan, lost=lost)


def _collect_and_publish(membership: Membership, agreed: Future[AgreedId], plan: Plan) -> None:
    began = time.monotonic()
    inventory = collect(COLLECT_SECONDS, sources_of(plan))
    try:
        agreed.result(timeout=AGREED_SECONDS)
    except (PlutoDistError, FutureTimeoutError):
        return  # the ranks disagree or have lost each other; the run's thread reports it
    try:
        inventory = _with_ranks(inventory, membership, plan, began + VIEW_SECONDS)
        first_rank = min((each.rank for each in inventory.ranks), default=None)
        membership.publish_inventory(inventory.to_json(), first_rank)
    except ExchangeError as error:
        logger.debug("this node's inventory could not be published: %s", error)


def _publishes(plan: Plan) -> bool:
    """Whether this rank publishes what it sees; each decides for itself, as a rule all alike."""
    topology = plan.topology
    unknown = plan.context.launcher != "torchrun" or plan.cuda_device is not None or _has_own_list(plan)
    return bool(plan.settings.metadata) and topology.world_size > 1 and unknown


def _has_own_list(plan: Plan) -> bool:
    """Whether this worker of torchrun sees fewer GPUs than its node has ranks."""
    listed = local_vendor(plan.environ).visible.count(plan.environ)
    size = plan.topology.local_world_size or 1
    return "gpu" in plan.settings.metadata and listed is not None and listed < size


def _view(plan: Plan) -> RankView:
    topology, device = plan.topology, plan.cuda_device
    uuid = None
    if device is not None:
        with torch_call():
            uuid = torch_device.uuid_in_use(sys.modules["torch"], device, topology.local_rank)
    if "gpu" not in plan.settings.metadata:
        return RankView(topology.rank, uuid=uuid)
    vendor = local_vendor(plan.environ)
    listed, devices = vendor.visible.listed(plan.environ), value_or_none(vendor.openable)
    return RankView(topology.rank, record_text(listed), uuid, devices)


def _views(membership: Membership, plan: Plan, until: float) -> tuple[list[RankView], int]:
    """What the ranks of this node see, and how many ranks there are.

    A worker of torchrun that does not publish anything sees what this one sees. A program of one process uses any GPU.
    """
    context, topology, mine = plan.context, plan.topology, _view(plan)
    if context.launcher == "single":
        return ([] if mine.uuid is None else [mine]), 1
    size = topology.local_world_size
    are_all_here = not _publishes(plan) or _await_views(membership, plan, until)
    views = {}
    if context.launcher == "torchrun" and not _has_own_list(plan):
        first = topology.rank - (topology.local_rank or 0)
        shared = dataclasses.replace(mine, uuid=None)
        views = {rank: dataclasses.replace(shared, rank=rank) for rank in range(first, first + (size or 0))}
    published = [view for document in membership.views() if (view := _read(document)) is not None]
    views.update({view.rank: view for view in (mine, *published)})
    return list(views.values()), size or len(views) + (not are_all_here)


def _await_views(membership: Membership, plan: Plan, until: float) -> bool:
    """Whether every rank of this node that publishes what it sees has done so before ``until``."""
    run, topology = membership.run(plan.nth), plan.topology
    others = (topology.local_world_size or topology.world_size) - 1
    while run.count("joined", 0) < topology.world_size:
        if membership.await_view(others, _SLICE):
            return True
        if time.monotonic() > until:
            return False
    return True


def _read(document: dict[str, Any]) -> RankView | None:
    try:
        return RankView.from_json(document)
    except ValueError as error:
        logger.debug("what a rank of this node published about its GPU cannot be read: %s", error)
        return None


def _with_ranks(inventory: NodeInventory, membership: Membership, plan: Plan, until: float) -> NodeInventory:
    views, size = _views(membership, plan, until)
    gpus = inventory.gpus
    vendor = vendor_named(gpus.vendor)
    if assignment.device_cgroups_differ(gpus, views):
        mine = next(view for view in views if view.rank == plan.topology.rank)
        gpus = assignment.with_hidden_gpus(gpus, mine, views, value_or_none(vendor.kernel_gpus) or ())
    in_bus_order = vendor.visible.in_bus_order(plan.environ)
    found = assignment.gpus_of_ranks(gpus, views, local_world_size=size, in_bus_order=in_bus_order)
    has_one_list = all(each.visible is None for each in found)
    shown = inventory.visible if has_one_list else None
    return dataclasses.replace(inventory, gpus=gpus, ranks=found, visible=shown)
