"""Readers of the variables that more than one launcher uses; each checks what it reads.

RANK and WORLD_SIZE are what torch reads. If one of them contradicts the variables of an MPI, of Flux or of srun, then
those count other processes: one task per node that itself starts the ranks of its node, for example.

>>> place({"PMI_RANK": "1", "PMI_SIZE": "4"}, "PMI_RANK", "PMI_SIZE", start="mpirun")
(1, 4)
>>> place({"PMI_RANK": "1", "PMI_SIZE": "4", "WORLD_SIZE": "32"}, "PMI_RANK", "PMI_SIZE", start="mpirun")
"""

from __future__ import annotations

from collections.abc import Mapping

from pluto_dist.environments.topology import Topology
from pluto_dist.errors import LauncherError
from pluto_dist.serialization.text import parse_digits

NODE_COUNTS = ("NUM_NODES", "NNODES", "PET_NNODES", "SKYPILOT_NUM_NODES", "AWS_BATCH_JOB_NUM_NODES")
_NODE_RANKS = ("NODE_RANK", "PET_NODE_RANK", "SKYPILOT_NODE_RANK", "AWS_BATCH_JOB_NODE_INDEX")


def place(environ: Mapping[str, str], rank_name: str, size_name: str, *, start: str) -> tuple[int, int] | None:
    """Rank and world size in the two variables.

    ``None`` if neither is set, if RANK or WORLD_SIZE contradicts them, and for a world of one: a launcher that starts
    one process was used for an allocation, a shell or a binding, not for ranks.

    Args:
        environ: the worker's environment.
        rank_name: the launcher's variable for the rank.
        size_name: the launcher's variable for the world size.
        start: the command that sets them both, for the error.

    Raises:
        LauncherError: one of them is missing or not a number, or the rank is not below the world size.
    """
    if rank_name not in environ and size_name not in environ:
        return None
    for torchs, own in (("RANK", rank_name), ("WORLD_SIZE", size_name)):
        if torchs in environ and environ[torchs] != environ.get(own):
            return None
    rank, world_size = whole_number(environ, rank_name), whole_number(environ, size_name)
    if rank is None or world_size is None:
        have, lack = (rank_name, size_name) if world_size is None else (size_name, rank_name)
        raise LauncherError(
            f"{have} is set ({environ[have]!r}) but {lack} is not, so this worker's place is unknown.\n"
            f"Pass on all variables that {start} sets, export RANK and WORLD_SIZE, or unset {have} for a single "
            "process."
        )
    if rank >= world_size:
        raise LauncherError(
            f"{rank_name} is {rank} but {size_name} is {world_size}: ranks count from 0 to {size_name} - 1.\n"
            f"Pass {start}'s variables on to the script unchanged, or export RANK and WORLD_SIZE instead."
        )
    return None if world_size == 1 else (rank, world_size)


def on_nodes(
    environ: Mapping[str, str], rank: int, world_size: int, local_rank_name: str, local_size_name: str
) -> Topology:
    """The topology of a rank of an MPI, from the two variables that count within its node.

    No MPI numbers the nodes, and if ranks go round the nodes (``--map-by node``) the number of the node does not
    follow from the rank. So the node is known only if all ranks are on one.

    Raises:
        LauncherError: the local rank is not below the local size, or that is above the world size.
    """
    local_rank, local_world_size = whole_number(environ, local_rank_name), whole_number(environ, local_size_name)
    if local_world_size is not None and not (local_rank or 0) < local_world_size <= world_size:
        raise LauncherError(
            f"{local_rank_name} is {local_rank} and {local_size_name} is {local_world_size}, of {world_size} ranks in "
            "all: they contradict each other.\n"
            "Pass mpirun's variables on to the script unchanged, or unset these two."
        )
    alone = local_world_size == world_size
    return Topology(
        rank,
        world_size,
        local_rank=local_rank,
        local_world_size=local_world_size,
        node_rank=0 if alone else None,
        node_count=1 if alone else None,
    )


def whole_number(environ: Mapping[str, str], name: str) -> int | None:
    """The number in variable ``name``; ``None`` if it is unset.

    Raises:
        LauncherError: the variable holds something else than a number of 0 or more.
    """
    text = environ.get(name)
    if text is None:
        return None
    found = parse_digits(text, most=9)
    if found is None:
        raise LauncherError(
            f"{name} must be a whole number of 0 or more; it is {text[:40]!r}.\n"
            "Pass the launcher's variables on to the script unchanged, or unset this one."
        )
    return found


def several_nodes(environ: Mapping[str, str]) -> str | None:
    """The variable that shows that this node is one of several, with its value; ``None`` if none does.

    Platforms set these for each node (Konduktor, SkyPilot, Kubeflow, AWS Batch), and start no ranks.

    >>> several_nodes({"NUM_NODES": "2"}), several_nodes({"PET_NNODES": "1:4"}), several_nodes({"NODE_RANK": "0"})
    ('NUM_NODES=2', 'PET_NNODES=1:4', None)
    """
    counts = ((name, parse_digits(environ.get(name, "").rpartition(":")[2], most=9) or 0) for name in NODE_COUNTS)
    ranks = ((name, 1 + (parse_digits(environ.get(name, ""), most=9) or 0)) for name in _NODE_RANKS)
    return next((f"{name}={environ[name]}" for name, number in (*counts, *ranks) if number > 1), None)


def rank_and_world(environ: Mapping[str, str]) -> tuple[int, int]:
    """RANK and WORLD_SIZE, which only make sense together.

    Raises:
        LauncherError: one of them is missing or not a number, or the rank is not below the world size.
    """
    rank, world_size = whole_number(environ, "RANK"), whole_number(environ, "WORLD_SIZE")
    if rank is None and world_size is None:
        raise LauncherError(
            "torchrun's variables are set (TORCHELASTIC_RUN_ID), but neither RANK nor WORLD_SIZE is, so this process "
            "is not one of its workers.\n"
            "Pass torchrun's variables on unchanged, or unset TORCHELASTIC_RUN_ID for a single process."
        )
    if rank is None or world_size is None:
        have, lack = ("RANK", "WORLD_SIZE") if world_size is None else ("WORLD_SIZE", "RANK")
        raise LauncherError(
            f"{have} is set ({environ[have]!r}) but {lack} is not, so this worker's place is unknown "
            "(some launchers set RANK to the number of the node).\n"
            f"Start the script with torchrun{_of_nodes(environ)}, export {lack} too, or unset {have} for a single "
            "process."
        )
    if rank >= world_size:
        raise LauncherError(
            f"RANK is {rank} but WORLD_SIZE is {world_size}: ranks count from 0 to WORLD_SIZE - 1.\n"
            "Export the RANK of the process, not of the node, or start the script with torchrun."
        )
    return rank, world_size


def _of_nodes(environ: Mapping[str, str]) -> str:
    """The options of torchrun for a platform that sets RANK to the number of the node."""
    count = next((name for name in NODE_COUNTS if environ.get(name)), None)
    if count is None or "RANK" not in environ:
        return ""
    return f" (--nnodes=${count} --rdzv-backend=c10d --rdzv-endpoint=$MASTER_ADDR:29500)"


def master_address(environ: Mapping[str, str]) -> tuple[str, int] | None:
    """MASTER_ADDR and MASTER_PORT; ``None`` unless both are set.

    Raises:
        LauncherError: MASTER_PORT is not a number.
    """
    host, port = environ.get("MASTER_ADDR"), whole_number(environ, "MASTER_PORT")
    return (host, port) if host and port else None


def seen(environ: Mapping[str, str], *names: str) -> tuple[tuple[str, str], ...]:
    """Those of ``names`` that are set, with their values.

    >>> seen({"A": "1"}, "A", "B")
    (('A', '1'),)
    """
    return tuple((name, environ[name]) for name in names if name in environ)
