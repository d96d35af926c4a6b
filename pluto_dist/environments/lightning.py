"""Lightning's and Fabric's own launchers: a script that starts the other ranks of its node itself.

``python train.py`` with several devices: the process becomes rank 0 when it calls ``fit()`` or ``launch()``, and starts
the script again for each other rank of its node. The variables are those that Lightning 2.6 sets, in the parent and in
the children (``_SubprocessScriptLauncher._call_children_scripts``): WORLD_SIZE, LOCAL_RANK, NODE_RANK, MASTER_ADDR,
MASTER_PORT and no RANK. How many ranks a node has is not among them, so on a node other than the first the rank is
known only to the process group.

The parent may have a run by then, which began as that of one process. It hands that run to the ranks that it starts.
"""

from __future__ import annotations

from collections.abc import Mapping

from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.process_facts import ProcessFacts
from pluto_dist.environments.topology import Topology
from pluto_dist.environments.variables import master_address, whole_number
from pluto_dist.errors import LauncherError

_NAMES = ("WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")


def detect(environ: Mapping[str, str], process: ProcessFacts) -> LaunchContext | None:
    """The launch that Lightning's variables describe; ``None`` if there is a process group, which gives more.

    >>> place = {"WORLD_SIZE": "2", "LOCAL_RANK": "1", "NODE_RANK": "0"}
    >>> detect({**place, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}, ProcessFacts()).topology.rank
    1

    Raises:
        LauncherError: the rank is not known, or the variables contradict each other.
    """
    if process.spawned or not has_variables(environ):
        return None
    if process.parent is not None and starts_rank(environ, process):
        return _joined(environ, process)
    if process.group is not None:
        return None
    if (node_rank := whole_number(environ, "NODE_RANK")) != 0:
        raise LauncherError(
            f"NODE_RANK is {node_rank}, LOCAL_RANK is {environ['LOCAL_RANK']!r} and RANK is not set, as Lightning's "
            "own launcher has it: the rank is not known before there is a process group.\n"
            "Call pluto_dist.init() after the process group is initialised (in a callback's setup(), after "
            "fabric.launch()), or start the script with torchrun."
        )
    topology = Topology(
        rank=whole_number(environ, "LOCAL_RANK") or 0,
        world_size=whole_number(environ, "WORLD_SIZE") or 0,
        local_rank=whole_number(environ, "LOCAL_RANK"),
    )
    return LaunchContext(launcher="lightning", topology=topology, hosted_address=master_address(environ))


def has_variables(environ: Mapping[str, str]) -> bool:
    """Whether the environment is that of a rank that Lightning's own launcher started, or of the launcher's process."""
    return "RANK" not in environ and all(environ.get(name) for name in _NAMES)


def starts_rank(environ: Mapping[str, str], process: ProcessFacts) -> bool:
    """Whether this process's parent has a run that began as that of one process, and started this one as a rank."""
    parent = process.parent
    is_rank = has_variables(environ) and environ["LOCAL_RANK"] != "0"
    return is_rank and not process.spawned and parent is not None and parent.is_direct and parent.store != ""


def _joined(environ: Mapping[str, str], process: ProcessFacts) -> LaunchContext:
    """A rank in its parent's run; on a node other than the first that is the run of the node, and ranks count in it."""
    local_rank, world_size = whole_number(environ, "LOCAL_RANK") or 0, whole_number(environ, "WORLD_SIZE") or 0
    return LaunchContext(
        launcher="lightning",
        topology=Topology(local_rank, world_size, local_rank=local_rank, node_rank=0, node_count=1),
        parent_store=None if process.parent is None else process.parent.store,
    )
