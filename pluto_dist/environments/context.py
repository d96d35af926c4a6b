"""The records that describe a launch: one worker's view of it, and the scheduler job around it.

Each launcher has one module beside this one, with ``detect(environ, process)``: it returns a :class:`LaunchContext`,
or ``None`` if its launcher did not start this worker. Schedulers and platforms that only name a job are rows of
``scheduler_jobs``.
"""

from __future__ import annotations

from dataclasses import dataclass

from pluto_dist.environments.topology import Topology


@dataclass(frozen=True, slots=True)
class JobScope:
    """The name of one scheduler job: equal on every rank and after a requeue; never the name of a single launch.

    Attributes:
        scheduler: a lower-case word, such as ``slurm``.
        value: the names that the scheduler gave, joined.
        variables: the variables that held them: names and values.
        requeues: how often the job was requeued before this launch; 0 if the scheduler does not count it.
    """

    scheduler: str
    value: str
    variables: tuple[tuple[str, str], ...]
    requeues: int = 0


@dataclass(frozen=True, slots=True)
class LaunchContext:
    """One worker's view of its launch.

    Attributes:
        launcher: the launcher's name, one lower-case word. Generated external ids begin with it and stored configs
            hold it, so it outlives the name of its module: ``hydra`` is ``mpich``, ``environment`` is ``env_vars``,
            ``single`` is ``single_process``.
        topology: the place of this worker.
        rendezvous_id: torchrun's, or ``None`` for "none", "" and absent.
        rendezvous_is_random: whether torchrun made that id up (or it looks exactly like such an id).
        chosen_id: an id that the user gave and torchrun dropped; equal on all ranks.
        scope: the scheduler job that the launch belongs to, or ``None``.
        store_address: host and port of the agent's store, or ``None`` if no agent hosts one.
        hosted_address: host and port at which rank 0 may host a store for all ranks, or ``None``.
        parent_store: the file by which this process joins the run of the process that started it, or ``None``.
        has_part: False for a child of a rank, which inherits the rank's variables and takes no part in its run.
        attempt_folder: a folder that the agent makes anew for every attempt; its node's workers share it.
        launch_folder: a folder that `pluto-dist run` made for this node's workers.
        supervisor: names the process of `pluto-dist run` above this worker, see ``node_state.is_supervised``.
        supervisor_tracker: origin of the tracker that this process reports to, "" for none; ``None`` if not known.
        worker_marks: variables that every worker of this launch has, and its agent (the process that started the
            node's workers) has not, or not with these values; empty if no process belongs to this launch alone.
        restart_count: of this node's agent alone (no two agents need agree), or ``None``.
        max_restarts: of this node's agent, or ``None``.
        several_nodes: the variable that shows several nodes although no launcher started this process, or ``None``.
        variables: the variables that name the launch, with their values; errors show them when ranks disagree.
    """

    launcher: str
    topology: Topology
    rendezvous_id: str | None = None
    rendezvous_is_random: bool = False
    chosen_id: str | None = None
    scope: JobScope | None = None
    store_address: tuple[str, int] | None = None
    hosted_address: tuple[str, int] | None = None
    parent_store: str | None = None
    has_part: bool = True
    attempt_folder: str | None = None
    launch_folder: str | None = None
    supervisor: str | None = None
    supervisor_tracker: str | None = None
    worker_marks: tuple[str, ...] = ()
    restart_count: int | None = None
    max_restarts: int | None = None
    several_nodes: str | None = None
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def restarts_left(self) -> int:
        """How often the agent of this node may still restart its workers."""
        return max(0, (self.max_restarts or 0) - (self.restart_count or 0))

    @property
    def is_on_one_node(self) -> bool:
        """Whether the launcher gives every rank a place on this node."""
        topology = self.topology
        return topology.node_count == 1 or topology.local_world_size == topology.world_size
