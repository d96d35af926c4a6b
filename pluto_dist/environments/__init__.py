"""Detection of the launcher that started this process, and of the topology that its variables describe.

Pure: a Mapping and :class:`ProcessFacts` in, a :class:`LaunchContext` out. A new launcher is a module in this folder
(``openmpi`` is a short one) and a line of :data:`PRECEDENCE`; a new scheduler is a row of :data:`scheduler_jobs.JOBS`.
A launcher outside of this package goes in front before ``init()`` is called::

    environments.PRECEDENCE = (my_launcher.detect, *environments.PRECEDENCE)

>>> detect({}).launcher
'single'
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module

from pluto_dist.environments import scheduler_jobs
from pluto_dist.environments.context import JobScope, LaunchContext
from pluto_dist.environments.process_facts import ProcessFacts

__all__ = ["PRECEDENCE", "JobScope", "LaunchContext", "ProcessFacts", "detect", "detectors"]

Detect = Callable[[Mapping[str, str], ProcessFacts], LaunchContext | None]

PRECEDENCE: tuple[str | Detect, ...] = (  # modules of this package, each imported when its turn comes; or functions
    "torchrun",  # first: its agent hosts a store, whatever started the agent
    "openmpi",  # in an allocation srun starts only mpirun's daemons: srun's tasks are nodes, mpirun's the ranks
    "flux",  # before mpich: it sets PMI_RANK and PMI_SIZE too, and its own variables give more
    "mpich",  # before slurm, as openmpi; srun sets PMI_RANK too (--mpi=pmi2), and is left to the next
    "slurm",
    "env_vars",  # after them: they give more, give way to another RANK, and scripts export WORLD_SIZE alone
    "process_group",  # the ranks as torch itself has them, if the environment describes none
    "single_process",  # last: it never returns None
)


def detectors() -> Iterator[Detect]:
    """The functions of :data:`PRECEDENCE`, in order."""
    for entry in PRECEDENCE:
        yield entry if callable(entry) else import_module(f"{__name__}.{entry}").detect


def detect(environ: Mapping[str, str], process: ProcessFacts | None = None) -> LaunchContext:
    """The context from the first launcher that recognises its variables, with the scheduler job around it.

    Raises:
        LaunchError: the variables contradict each other, or the ranks cannot be identified.
    """
    facts = process or ProcessFacts()
    found = (recognise(environ, facts) for recognise in detectors())
    context = next(context for context in found if context)
    if context.launcher != "torchrun" and _contradicts(context, facts):
        from pluto_dist.environments import process_group

        # The variables describe another process: a parent, or the ranks of a world that the script has divided.
        context = process_group.detect(environ, facts) or context
    return replace(context, scope=scheduler_jobs.scope(environ))


def _contradicts(context: LaunchContext, facts: ProcessFacts) -> bool:
    group, mine = facts.group, context.topology
    return group is not None and (group.rank, group.world_size) != (mine.rank, mine.world_size)
