"""Who started this worker, and what did they tell it?

Pure: a Mapping and :class:`ProcessFacts` in, a :class:`LaunchContext` out. A new launcher is a file in
this folder and a place in :data:`PRECEDENCE`.

>>> detect({}).launcher
'single'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pluto_dist.launchers import environment, process_group, single, torchrun
from pluto_dist.launchers.context import LaunchContext, ProcessFacts

__all__ = ["PRECEDENCE", "LaunchContext", "ProcessFacts", "detect"]

PRECEDENCE: tuple[Callable[[Mapping[str, str], ProcessFacts], LaunchContext | None], ...] = (
    torchrun.detect,  # its agent gives a store, so it beats whatever started the agent
    process_group.detect,  # the ranks as torch itself has them, where the environment describes somebody else
    environment.detect,  # RANK and WORLD_SIZE alone: a place, but nowhere to meet
    single.detect,
)


def detect(environ: Mapping[str, str], process: ProcessFacts | None = None) -> LaunchContext:
    """The first launcher that recognises its own variables.

    Raises:
        LaunchError: the variables contradict each other, or ranks could not be told apart.
    """
    facts = process or ProcessFacts()
    found = (recognise(environ, facts) for recognise in PRECEDENCE)
    return next(context for context in found if context)
