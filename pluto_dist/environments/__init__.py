"""Who started this worker, and what did they tell it?

Pure: a Mapping and :class:`ProcessFacts` in, a :class:`LaunchContext` out. A new launcher is a file in
this folder and a place in :data:`PRECEDENCE`; a new scheduler is a row of :data:`jobs.JOBS`.

>>> detect({}).launcher
'single'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from pluto_dist.environments import (
    env_vars,
    mpich,
    openmpi,
    process_group,
    scheduler_jobs,
    single_process,
    slurm,
    torchrun,
)
from pluto_dist.environments.context import JobScope, LaunchContext, ProcessFacts

__all__ = ["PRECEDENCE", "JobScope", "LaunchContext", "ProcessFacts", "detect"]

PRECEDENCE: tuple[Callable[[Mapping[str, str], ProcessFacts], LaunchContext | None], ...] = (
    torchrun.detect,  # its agent gives a store, so it beats whatever started the agent
    openmpi.detect,  # in an allocation srun starts only mpirun's daemons: srun's tasks are nodes, mpirun's the ranks
    mpich.detect,  # the same; srun speaks its protocol too (--mpi=pmi2), and is left to the next
    slurm.detect,  # of these three each gives way to a RANK or WORLD_SIZE that says something else than it does
    env_vars.detect,  # after them: they tell more, and scripts export WORLD_SIZE and leave RANK to srun
    process_group.detect,  # the ranks as torch itself has them, where the environment describes nobody
    single_process.detect,
)


def detect(environ: Mapping[str, str], process: ProcessFacts | None = None) -> LaunchContext:
    """The first launcher that recognises its own variables, and the scheduler job around it.

    Raises:
        LaunchError: the variables contradict each other, or ranks could not be told apart.
    """
    facts = process or ProcessFacts()
    found = (recognise(environ, facts) for recognise in PRECEDENCE)
    context = next(context for context in found if context)
    if context.launcher not in ("torchrun", "process_group") and _contradicts(context, facts):
        # The variables describe somebody else: a parent, or a world that the script has divided.
        context = process_group.detect(environ, facts) or context
    return replace(context, scope=scheduler_jobs.scope(environ))


def _contradicts(context: LaunchContext, facts: ProcessFacts) -> bool:
    group, mine = facts.group, context.topology
    return group is not None and (group.rank, group.world_size) != (mine.rank, mine.world_size)
