"""No launcher: one process, a world of one. Where the environment shows several nodes, that may be a mistake."""

from __future__ import annotations

from collections.abc import Mapping

from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.process_facts import ProcessFacts
from pluto_dist.environments.topology import Topology
from pluto_dist.environments.variables import several_nodes


def detect(environ: Mapping[str, str], _process: ProcessFacts) -> LaunchContext:
    """A world of one, whatever the environment holds."""
    return LaunchContext(
        launcher="single",
        topology=Topology(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, node_count=1),
        several_nodes=several_nodes(environ),
    )
