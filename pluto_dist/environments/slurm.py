"""srun: the variables that Slurm sets for each task of a step.

The names are those that Slurm 22.05 sets: tasks of srun on one node and on two, in batch scripts, arrays,
heterogeneous jobs and salloc shells, compared with each other.

Only a step has tasks. What runs in an allocation outside of a step (a batch script, salloc's shell if the site gives
it no step) is a single process, however many tasks SLURM_NTASKS has; SLURM_PROCID is set there too, SLURM_STEP_ID is
not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.process_facts import ProcessFacts
from pluto_dist.environments.topology import Topology, node_place
from pluto_dist.environments.variables import master_address, place, seen, whole_number
from pluto_dist.errors import LauncherError
from pluto_dist.serialization.text import parse_digits

_TASKS = re.compile(r"([0-9]{1,9})(?:\(x([0-9]{1,9})\))?")
_FIRST_HOST = re.compile(r"(?:[^][,]|\[[^][]+\])+")
_FIRST_OF_RANGE = re.compile(r"\[([0-9]+)[^][]*\]")
_PORTS = range(25_000, 30_000)


def detect(environ: Mapping[str, str], process: ProcessFacts) -> LaunchContext | None:
    """The launch that srun's variables describe; ``None`` outside a step, and for a step of one task.

    >>> task = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "8"}
    >>> detect(task, ProcessFacts()).topology.rank
    1

    Raises:
        LauncherError: the variables contradict each other.
    """
    if process.spawned or "SLURM_STEP_ID" not in environ or "SLURM_PROCID" not in environ:
        return None
    size_name = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS"
    found = place(environ, "SLURM_PROCID", size_name, start="srun")
    if found is None:
        return None
    return LaunchContext(
        launcher="slurm",
        topology=_topology(environ, *found),
        hosted_address=master_address(environ) or _derived_address(environ),
        # The step, not the task: a batch script has SLURM_PROCID 0 as well, and these two are equal on all ranks,
        # so that all find the same ancestor, slurmstepd, which has neither (or is root's, and cannot be read).
        worker_marks=("SLURM_JOB_ID", "SLURM_STEP_ID"),
        variables=seen(environ, "SLURM_JOB_ID", "SLURM_STEP_ID"),
    )


def _topology(environ: Mapping[str, str], rank: int, world_size: int) -> Topology:
    local_rank, nodes = whole_number(environ, "SLURM_LOCALID"), whole_number(environ, "SLURM_STEP_NUM_NODES")
    node_rank, node_count = node_place(whole_number(environ, "SLURM_NODEID"), nodes)
    layout = None if _is_heterogeneous(environ) else tasks_per_node(environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    local_world_size = None if layout is None or node_rank is None else _tasks_on(node_rank, layout)
    outside = [
        node_rank is not None and node_count is not None and node_rank >= node_count,
        layout is not None and sum(tasks * count for tasks, count in layout) != world_size,
        layout is not None and nodes is not None and sum(count for _, count in layout) != nodes,
        local_rank is not None and local_world_size is not None and local_rank >= local_world_size,
    ]
    if any(outside):
        names = ("SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_NUM_NODES", "SLURM_STEP_TASKS_PER_NODE")
        values = ", ".join(f"{name} is {value[:40]!r}" for name, value in seen(environ, *names))
        raise LauncherError(
            f"srun's variables contradict each other: rank {rank} of {world_size}, but {values}.\n"
            "Pass srun's variables on to the script unchanged, or unset SLURM_STEP_TASKS_PER_NODE, SLURM_NODEID "
            "and SLURM_LOCALID."
        )
    return Topology(rank, world_size, local_rank, local_world_size, node_rank, node_count)


def tasks_per_node(text: str) -> tuple[tuple[int, int], ...] | None:
    """SLURM_STEP_TASKS_PER_NODE as pairs: tasks on each of so many nodes in a row; ``None`` if it cannot be read.

    >>> tasks_per_node("2(x3),1")
    ((2, 3), (1, 1))
    """
    matches = [_TASKS.fullmatch(entry) for entry in text.split(",")]
    found = [(int(match[1]), int(match[2] or 1)) for match in matches if match]
    return tuple(found) if len(found) == len(matches) else None


def first_host(node_list: str) -> str | None:
    """The first host of a list in Slurm's notation; ``None`` if it is empty or cannot be read.

    >>> first_host("node[01-04,07],gpu3"), first_host("rack[2-3]n[0,4]")
    ('node01', 'rack2n0')
    """
    match = _FIRST_HOST.match(node_list)
    if match is None or node_list[match.end() : match.end() + 1] not in ("", ","):
        return None
    host = _FIRST_OF_RANGE.sub(r"\1", match[0])
    return None if "[" in host else host


def _tasks_on(node: int, layout: tuple[tuple[int, int], ...]) -> int | None:
    for tasks, nodes in layout:
        if node < nodes:
            return tasks
        node -= nodes
    return None


def _derived_address(environ: Mapping[str, str]) -> tuple[str, int] | None:
    """The address at which rank 0 of a step on several nodes may host a store, if MASTER_* do not give it.

    The host is MASTER_ADDR if that is set, else the step's first node: rank 0 is there under the distributions
    block, cyclic and plane, but not under arbitrary, and not always in a heterogeneous job (both observed). The port
    is MASTER_PORT if that is set, else 25000 + (job id + 1009 x step id) mod 5000: jobs that run at the same time
    have ids close to each other, and so different ports. The range is below Linux's ephemeral ports (32768 on) and
    above the ports that scripts derive from a job id (15000 + its last four digits).
    """
    if whole_number(environ, "SLURM_STEP_NUM_NODES") in (None, 1):
        return None
    first = first_host(environ.get("SLURM_STEP_NODELIST", ""))
    unknown = environ.get("SLURM_DISTRIBUTION", "").startswith("arbitrary") or _is_heterogeneous(environ)
    host = environ.get("MASTER_ADDR") or (None if unknown else first)
    job, step = (parse_digits(environ.get(name, ""), most=10) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    port = whole_number(environ, "MASTER_PORT")
    if port is None and job is not None and step is not None:
        port = _PORTS[(job + 1009 * step) % len(_PORTS)]
    return (host, port) if host and port else None


def _is_heterogeneous(environ: Mapping[str, str]) -> bool:
    # The lists of its step are in the order of the nodes' names, but its nodes are numbered component by component.
    return "SLURM_HET_SIZE" in environ
