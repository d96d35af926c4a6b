"""Processes that no launcher describes, but that are in one torch.distributed process group.

``torch.multiprocessing.spawn``, notebook launchers, and scripts that pass rank and world size to
``init_process_group`` themselves. Environment variables are not read: a spawned child inherits its
parent's, and they describe the parent.
"""

from __future__ import annotations

from collections.abc import Mapping

from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.process_facts import ProcessFacts
from pluto_dist.errors import NoSharedRunError


def detect(_environ: Mapping[str, str], process: ProcessFacts) -> LaunchContext | None:
    """The launch that the default process group describes; ``None`` without one.

    Raises:
        NoSharedRunError: this process was spawned as a rank, and has no process group.
    """
    if process.group is not None:
        return LaunchContext(launcher="process_group", topology=process.group)
    if process.spawned:
        raise NoSharedRunError(
            "this process was started by torch.multiprocessing, and torch.distributed is not initialised in it, so "
            "it is unknown which ranks belong together (a spawned process inherits its parent's variables).\n"
            "Call pluto_dist.init() after torch.distributed.init_process_group(), or start the script with "
            "torchrun."
        )
    return None
