"""horovodrun: the variables that it sets for each rank with its gloo controller.

Never run with a real Horovod: the names are those that its launcher sets (``create_slot_env_vars`` and
``gloo_run.py`` of horovod/horovod). HOROVOD_CROSS_RANK counts the nodes that have the same local rank, not the nodes.
With its MPI controller the ranks have the variables of that MPI.
"""

from __future__ import annotations

from collections.abc import Mapping

from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.process_facts import ProcessFacts
from pluto_dist.environments.variables import master_address, on_nodes, place, seen


def detect(environ: Mapping[str, str], process: ProcessFacts) -> LaunchContext | None:
    """The launch that horovodrun's variables describe; ``None`` for one rank.

    >>> detect({"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2"}, ProcessFacts()).topology.rank
    1

    Raises:
        LauncherError: the variables contradict each other.
    """
    if process.spawned:
        return None
    found = place(environ, "HOROVOD_RANK", "HOROVOD_SIZE", start="horovodrun")
    if found is None:
        return None
    return LaunchContext(
        launcher="horovod",
        topology=on_nodes(environ, *found, "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE"),
        hosted_address=master_address(environ),
        worker_marks=("HOROVOD_RANK", "HOROVOD_GLOO_RENDEZVOUS_PORT"),
        variables=seen(environ, "HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT"),
    )
