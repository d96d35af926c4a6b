"""What a launcher tells a worker, in one record; and how its variables are read.

One file beside this one per launcher that starts ranks: each has ``detect(environ, process)``, which answers
a :class:`LaunchContext`, or ``None`` where its launcher did not start this worker. What only names a job (a
scheduler, a platform) is a row of ``jobs``.
"""

from __future__ import annotations

from dataclasses import dataclass

from pluto_dist.environments.topology import Topology


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
