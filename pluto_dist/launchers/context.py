"""What a launcher tells a worker, in one record; and how its variables are read.

One file beside this one per launcher that starts ranks: each has ``detect(environ, process)``, which answers
a :class:`LaunchContext`, or ``None`` where its launcher did not start this worker. What only names a job (a
scheduler, a platform) is a row of ``jobs``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pluto_dist.errors import LauncherError
from pluto_dist.topology import Topology


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What no environment variable tells about this process; gathered once, by ``api``.

    Attributes:
        group: this process in torch.distributed's default process group, or ``None`` where there is none.
        spawned: whether ``multiprocessing`` started this process and the launcher's variables in its
            environment are its parent's (torch.multiprocessing.spawn inside a worker, say).
    """

    group: Topology | None = None
    spawned: bool = False


@dataclass(frozen=True, slots=True)
class JobScope:
    """What names one scheduler job on every rank, and again after a requeue; never one launch of it.

    Attributes:
        scheduler: a lower-case word, such as ``slurm``.
        value: the names that the scheduler gave, joined.
        variables: where they stood: names and values.
        requeues: how often the job was requeued before this launch, where the scheduler counts it.
    """

    scheduler: str
    value: str
    variables: tuple[tuple[str, str], ...]
    requeues: int = 0


@dataclass(frozen=True, slots=True)
class LaunchContext:
    """One worker's view of its launch.

    Attributes:
        launcher: the name of the file in this folder that recognised the launch.
        topology: where this worker stands.
        rendezvous_id: torchrun's, where it says anything; ``None`` for "none", "" and absent.
        rendezvous_is_random: whether that id was made up by torchrun (or looks exactly like it).
        chosen_id: an id that the user gave and torchrun dropped; equal on all ranks.
        scope: the scheduler job that the launch belongs to, or ``None``.
        store_address: host and port of the agent's store, or ``None`` where no agent hosts one.
        hosted_address: host and port where rank 0 may host a store for all ranks, or ``None``.
        attempt_folder: a folder that the agent makes anew for every attempt; its node's workers share it.
        launch_folder: a folder that `pluto-dist run` made for this node's workers.
        supervisor: names the process of `pluto-dist run` above this worker, see ``launch_folder``.
        worker_marks: variables that each worker of this launch has, and its agent (the process that started the
            node's workers) has not, or not with these values; empty where no process belongs to this launch alone.
        restart_count: of this node's agent alone (no two agents need agree), or ``None``.
        max_restarts: of this node's agent, or ``None``.
        variables: those that name the launch, with their values; where ranks disagree, one of them is why.
    """

    launcher: str
    topology: Topology
    rendezvous_id: str | None = None
    rendezvous_is_random: bool = False
    chosen_id: str | None = None
    scope: JobScope | None = None
    store_address: tuple[str, int] | None = None
    hosted_address: tuple[str, int] | None = None
    attempt_folder: str | None = None
    launch_folder: str | None = None
    supervisor: str | None = None
    worker_marks: tuple[str, ...] = ()
    restart_count: int | None = None
    max_restarts: int | None = None
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def restarts_left(self) -> int:
        """How often the agent of this node would still start its workers again."""
        return max(0, (self.max_restarts or 0) - (self.restart_count or 0))

    @property
    def is_on_one_node(self) -> bool:
        """Whether the launcher says that every rank is on this node."""
        topology = self.topology
        return topology.node_count == 1 or topology.local_world_size == topology.world_size


def whole_number(environ: Mapping[str, str], name: str) -> int | None:
    """The number in variable ``name``; ``None`` where it is unset.

    Raises:
        LauncherError: the variable holds something else than a number of 0 or more.
    """
    text = environ.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise LauncherError(
            f"{name} must be a whole number of 0 or more; it is {text[:40]!r}.\n"
            "Pass the launcher's variables on to the script unchanged, or unset this one."
        )
    return int(text)


def rank_and_world(environ: Mapping[str, str]) -> tuple[int, int]:
    """RANK and WORLD_SIZE, which only make sense together.

    Raises:
        LauncherError: one of them is missing, or the rank is not below the world size.
    """
    rank, world_size = whole_number(environ, "RANK"), whole_number(environ, "WORLD_SIZE")
    if rank is None and world_size is None:
        raise LauncherError(
            "torchrun's variables are there, but neither RANK nor WORLD_SIZE is, so this is none of its workers.\n"
            "Pass torchrun's variables on unchanged, or unset TORCHELASTIC_RUN_ID for a single process."
        )
    if rank is None or world_size is None:
        have, lack = ("RANK", "WORLD_SIZE") if world_size is None else ("WORLD_SIZE", "RANK")
        raise LauncherError(
            f"{have} is set ({environ[have]!r}) but {lack} is not, so this worker's place is unknown "
            "(some launchers set RANK to the number of the node).\n"
            f"Start the script with torchrun, export {lack} too, or unset {have} for a single process."
        )
    if rank >= world_size:
        raise LauncherError(
            f"RANK is {rank} but WORLD_SIZE is {world_size}: ranks count from 0 to WORLD_SIZE - 1.\n"
            "Export the RANK of the process, not of the node, or start the script with torchrun."
        )
    return rank, world_size


def master_address(environ: Mapping[str, str]) -> tuple[str, int] | None:
    """MASTER_ADDR and MASTER_PORT; ``None`` unless both are set.

    Raises:
        LauncherError: MASTER_PORT is no number.
    """
    host, port = environ.get("MASTER_ADDR"), whole_number(environ, "MASTER_PORT")
    return (host, port) if host and port else None


def seen(environ: Mapping[str, str], *names: str) -> tuple[tuple[str, str], ...]:
    """Those of ``names`` that are set, with their values.

    >>> seen({"A": "1"}, "A", "B")
    (('A', '1'),)
    """
    return tuple((name, environ[name]) for name in names if name in environ)
