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
from pluto_dist.environments.process_facts import ProcessFacts, place_of

__all__ = ["PRECEDENCE", "JobScope", "LaunchContext", "ProcessFacts", "detect", "detectors"]

Detect = Callable[[Mapping[str, str], ProcessFacts], LaunchContext | None]

PRECEDENCE: tuple[str | Detect, ...] = (  # modules of this package, each imported when its turn comes; or functions
    "torchrun",  # first: its agent hosts a store, whatever started the agent
    "openmpi",  # in an allocation srun starts only mpirun's daemons: srun's tasks are nodes, mpirun's the ranks
    "mvapich",
    "jsm",
    "flux",  # before mpich: it sets PMI_RANK and PMI_SIZE too, and its own variables give more
    "mpich",  # before slurm, as openmpi; srun sets PMI_RANK too (--mpi=pmi2), and is left to the next
    "slurm",
    "horovod",  # after what its MPI controller starts the ranks with
    "lightning",  # before env_vars, which WORLD_SIZE without RANK contradicts
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
    if facts.is_importing or (facts.began_alone and _is_lightnings(environ)):
        context = replace(single(environ), has_part=not facts.is_importing)
    elif facts.spawned and facts.group is None and not facts.starts_ranks:
        context = _recognise(environ, replace(facts, spawned=False))  # the parent's launch, if it has one
        context = replace(context, has_part=context.launcher == "single")
    else:
        context = _recognise(environ, facts)
    if facts.parent is not None and context.parent_store is None and not _is_own_launch(context, environ, facts):
        context = replace(context, has_part=False)
    return replace(context, scope=scheduler_jobs.scope(environ))


def single(environ: Mapping[str, str]) -> LaunchContext:
    """This process as a world of one."""
    from pluto_dist.environments import single_process

    return replace(single_process.detect(environ, ProcessFacts()), scope=scheduler_jobs.scope(environ))


def _recognise(environ: Mapping[str, str], facts: ProcessFacts) -> LaunchContext:
    found = (recognise(environ, facts) for recognise in detectors())
    context = next(context for context in found if context)
    if context.launcher != "torchrun" and context.parent_store is None and _contradicts(context, facts):
        from pluto_dist.environments import process_group

        # The variables describe another process: a parent, or the ranks of a world that the script has divided.
        context = process_group.detect(environ, facts) or context
    return context


def _is_lightnings(environ: Mapping[str, str]) -> bool:
    from pluto_dist.environments import lightning

    return lightning.has_variables(environ)


def _is_own_launch(context: LaunchContext, environ: Mapping[str, str], facts: ProcessFacts) -> bool:
    """Whether a child of a process with an open run is a rank of another launch, which it or its parent started."""
    if facts.group is not None and facts.group.world_size > 1:
        return True
    is_alone = context.launcher == "single" or (context.launcher == "environment" and context.topology.world_size == 1)
    parent = () if facts.parent is None else facts.parent.place
    is_alone = is_alone or context.launcher == "lightning"  # started by a process that has no part itself
    return not (is_alone or facts.spawned) and place_of(environ) != parent


def _contradicts(context: LaunchContext, facts: ProcessFacts) -> bool:
    group, mine = facts.group, context.topology
    return group is not None and (group.rank, group.world_size) != (mine.rank, mine.world_size)
