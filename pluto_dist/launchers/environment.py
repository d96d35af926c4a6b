"""Bare processes that carry RANK and WORLD_SIZE, set by hand or by a launcher that tells no more.

No agent hosts a store for them and nothing names their job; they meet in torch.distributed's default
process group, if they have one.
"""

from __future__ import annotations

from collections.abc import Mapping

from pluto_dist.launchers.context import LaunchContext, ProcessFacts, rank_and_world, whole_number
from pluto_dist.topology import Topology


def detect(environ: Mapping[str, str], process: ProcessFacts) -> LaunchContext | None:
    """The launch that RANK and WORLD_SIZE describe.

    >>> detect({"RANK": "1", "WORLD_SIZE": "4"}, ProcessFacts()).topology.rank
    1
    """
    if process.spawned or process.group or not {"RANK", "WORLD_SIZE"} & environ.keys():
        return None
    rank, world_size = rank_and_world(environ)
    topology = Topology(
        rank,
        world_size,
        local_rank=whole_number(environ, "LOCAL_RANK"),
        local_world_size=whole_number(environ, "LOCAL_WORLD_SIZE"),
    )
    return LaunchContext(launcher="environment", topology=topology)
