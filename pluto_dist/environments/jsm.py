"""jsrun, IBM's job step manager (LSF on Summit and Sierra): the variables that it sets for each rank.

Never run with a real jsrun: the names are those that MPI programs read from it (JSM_NAMESPACE_RANK and _SIZE,
_LOCAL_RANK and _LOCAL_SIZE, as in Open MPI's and prrte's tests). With Spectrum MPI a rank has Open MPI's variables as
well.
"""

from __future__ import annotations

from collections.abc import Mapping

from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.process_facts import ProcessFacts
from pluto_dist.environments.variables import master_address, on_nodes, place


def detect(environ: Mapping[str, str], process: ProcessFacts) -> LaunchContext | None:
    """The launch that jsrun's variables describe; ``None`` for one rank.

    >>> detect({"JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_SIZE": "2"}, ProcessFacts()).topology.rank
    1

    Raises:
        LauncherError: the variables contradict each other.
    """
    if process.spawned:
        return None
    found = place(environ, "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE", start="jsrun")
    if found is None:
        return None
    return LaunchContext(
        launcher="jsm",
        topology=on_nodes(environ, *found, "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_LOCAL_SIZE"),
        hosted_address=master_address(environ),
        worker_marks=("JSM_NAMESPACE_RANK",),
    )
