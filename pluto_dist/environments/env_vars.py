"""Processes with RANK and WORLD_SIZE, set by hand or by a launcher that sets little else.

accelerate without torchrun, DeepSpeed's pdsh launcher, Ray Train and Lightning's subprocess launcher. Nothing names
their job and no agent hosts a store for them. If MASTER_ADDR and MASTER_PORT are set, torch's own store is going to
be there, and rank 0 may host it early (torch 2.4 on shares one server among the stores that a process opens on one
port).
"""

from __future__ import annotations

from collections.abc import Mapping

from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.process_facts import ProcessFacts
from pluto_dist.environments.topology import Topology
from pluto_dist.environments.variables import NODE_COUNTS, master_address, rank_and_world, whole_number


def detect(environ: Mapping[str, str], process: ProcessFacts) -> LaunchContext | None:
    """The launch that RANK and WORLD_SIZE describe; ``None`` if the process group has other numbers.

    >>> detect({"RANK": "1", "WORLD_SIZE": "4"}, ProcessFacts()).topology.rank
    1

    Raises:
        LauncherError: the variables contradict each other.
    """
    if process.spawned or not {"RANK", "WORLD_SIZE"} & environ.keys():
        return None
    if process.group and (environ.get("RANK"), environ.get("WORLD_SIZE")) != _as_variables(process.group):
        return None  # they describe a parent, or a world that the script has divided
    if environ.get("RANK") == "0" and "WORLD_SIZE" not in environ and _is_one_node(environ):
        return None  # Konduktor: RANK is the number of the node
    rank, world_size = rank_and_world(environ)
    topology = Topology(
        rank,
        world_size,
        local_rank=whole_number(environ, "LOCAL_RANK"),
        local_world_size=whole_number(environ, "LOCAL_WORLD_SIZE"),
    )
    return LaunchContext(launcher="environment", topology=topology, hosted_address=master_address(environ))


def _is_one_node(environ: Mapping[str, str]) -> bool:
    counts = {environ[name] for name in NODE_COUNTS if name in environ}
    return counts == {"1"}


def _as_variables(group: Topology) -> tuple[str, str]:
    return str(group.rank), str(group.world_size)
