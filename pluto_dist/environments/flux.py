"""``flux run`` and ``flux submit``: the variables that Flux sets for each task of a job.

Never run with a real Flux: the names are those of flux-environment(7), section "Job environment" (doc/man7 of
flux-framework/flux-core at 0a619ef). By that page FLUX_JOB_NNODES counts the nodes that have tasks of the job, no
variable numbers the nodes, and the node does not follow from the rank (``--taskmap``). The initial program of an
instance (the script of ``flux batch``, the shell of ``flux alloc``) has none of these variables, no PMI_* and no
SLURM_*: it is a single process.
"""

from __future__ import annotations

from collections.abc import Mapping

from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.process_facts import ProcessFacts
from pluto_dist.environments.topology import Topology, node_place
from pluto_dist.environments.variables import master_address, place, seen, whole_number


def detect(environ: Mapping[str, str], process: ProcessFacts) -> LaunchContext | None:
    """The launch that Flux's variables describe; ``None`` for a job of one task.

    >>> detect({"FLUX_TASK_RANK": "1", "FLUX_JOB_SIZE": "2"}, ProcessFacts()).topology.rank
    1

    Raises:
        LauncherError: the variables contradict each other.
    """
    if process.spawned:
        return None
    found = place(environ, "FLUX_TASK_RANK", "FLUX_JOB_SIZE", start="flux run")
    if found is None:
        return None
    rank, world_size = found
    node_rank, node_count = node_place(None, whole_number(environ, "FLUX_JOB_NNODES"))
    return LaunchContext(
        launcher="flux",
        topology=Topology(
            rank,
            world_size,
            local_rank=whole_number(environ, "FLUX_TASK_LOCAL_ID"),
            local_world_size=world_size if node_count == 1 else None,
            node_rank=node_rank,
            node_count=node_count,
        ),
        hosted_address=master_address(environ),
        # The job too: in an instance within a job, the process that starts the tasks may have the outer job's rank.
        worker_marks=("FLUX_TASK_RANK", "FLUX_JOB_ID"),
        variables=seen(environ, "FLUX_JOB_ID"),
    )
