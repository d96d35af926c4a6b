"""Open MPI's mpirun: the variables that it sets for each rank.

The names are those that Open MPI 4.1.4 and 5.0.11 set (a rank's environment compared with mpirun's), on one node
and on two. OMPI_COMM_WORLD_NODE_RANK is not among them: it numbers the ranks within a node, not the nodes.
"""

from __future__ import annotations

from collections.abc import Mapping

from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.process_facts import ProcessFacts
from pluto_dist.environments.variables import master_address, on_nodes, place, seen


def detect(environ: Mapping[str, str], process: ProcessFacts) -> LaunchContext | None:
    """The launch that mpirun's variables describe; ``None`` for ``mpirun -n 1``.

    >>> detect({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, ProcessFacts()).topology.rank
    1

    Raises:
        LauncherError: the variables contradict each other.
    """
    if process.spawned:
        return None
    found = place(environ, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", start="mpirun")
    if found is None:
        return None
    return LaunchContext(
        launcher="openmpi",
        topology=on_nodes(environ, *found, "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
        hosted_address=master_address(environ),
        # The namespace too: within a rank of another mpirun, the inner mpirun has that rank's number in its
        # environment, and the rank of the same number would take it for one of its own (Open MPI 5; 4 refuses).
        worker_marks=("OMPI_COMM_WORLD_RANK", "PMIX_NAMESPACE"),
        variables=seen(environ, "PMIX_NAMESPACE"),
    )
