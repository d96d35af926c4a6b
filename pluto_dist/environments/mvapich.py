"""MVAPICH2's mpirun_rsh: the variables that it sets for each rank.

Never run with a real MVAPICH2: the names are those that its launcher sets (mpispawn.c of mvapich2: MV2_COMM_WORLD_RANK,
MV2_COMM_WORLD_SIZE, MV2_COMM_WORLD_LOCAL_RANK, MV2_COMM_WORLD_LOCAL_SIZE, and PMI_ID, not PMI_RANK). Its mpiexec is
hydra, whose ranks ``mpich`` knows.
"""

from __future__ import annotations

from collections.abc import Mapping

from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.process_facts import ProcessFacts
from pluto_dist.environments.variables import master_address, on_nodes, place, seen


def detect(environ: Mapping[str, str], process: ProcessFacts) -> LaunchContext | None:
    """The launch that mpirun_rsh's variables describe; ``None`` for one rank.

    >>> detect({"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "2"}, ProcessFacts()).topology.rank
    1

    Raises:
        LauncherError: the variables contradict each other.
    """
    if process.spawned:
        return None
    found = place(environ, "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", start="mpirun_rsh")
    if found is None:
        return None
    return LaunchContext(
        launcher="mvapich",
        topology=on_nodes(environ, *found, "MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"),
        hosted_address=master_address(environ),
        worker_marks=("MV2_COMM_WORLD_RANK", "PMI_PORT"),
        variables=seen(environ, "PMI_PORT"),
    )
