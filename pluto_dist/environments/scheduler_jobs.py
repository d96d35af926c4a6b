"""What names the job that a launch belongs to, and may that name stand for one run over all its launches?

No launcher: nothing here tells a worker its rank. A scheduler or platform is one row of :data:`JOBS`, those that
name no job included. A name can be gone on with (``resume``) only where it is the same on every rank, names one job
alone, and comes back when the job does; all three must be known. Ids of a single rank or pod (SLURM_PROCID,
JOB_COMPLETION_INDEX) therefore stand in no row. Scheduler ids are inherited by whatever is started in an allocation,
so a scope is never enough to tell two launches apart.

>>> scope({"SLURM_CLUSTER_NAME": "lab", "SLURM_JOB_ID": "1042", "SLURM_STEP_ID": "0"}).value
'lab_1042.0'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pluto_dist.environments.context import JobScope
from pluto_dist.environments.variables import seen

Known = Literal["yes", "no", "unknown"]


@dataclass(frozen=True, slots=True)
class JobNaming:
    """How one scheduler, platform or launcher names a job.

    Attributes:
        scheduler: the lower-case word that goes into ids; rows with one word are kinds of one scheduler's jobs.
        title: for people.
        basis: where the row is known from.
        verified: whether that was a run of the real thing, not its source or documentation.
        names: the variables that name the job together, all of them needed; empty where nothing does.
        joined: named behind them where set: a part of the job that is launched by itself.
        joined_unless: where one of these is set, some ranks have ``joined`` and others have not: it is left out.
        beside: must be set too, to tell the row's environment; what they say names nothing.
        shared: whether every rank has the same name.
        unique: whether no other job of the installation (a cluster, a server, an account) has it.
        stable: whether a requeued, retried or recovered job has it again.
        requeues: the variable that counts how often that happened.
        first_attempt: what ``requeues`` says before the first time.
    """

    scheduler: str
    title: str
    basis: str
    verified: bool = False
    names: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()
    joined_unless: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    shared: Known = "unknown"
    unique: Known = "unknown"
    stable: Known = "unknown"
    requeues: str | None = None
    first_attempt: int = 0

    def is_in(self, environ: Mapping[str, str]) -> bool:
        """Whether ``environ`` has a job's name of this row."""
        return bool(self.names) and all(environ.get(name) for name in (*self.names, *self.beside))

    @property
    def names_every_launch(self) -> bool:
        """Whether the name stands for the job, the whole job and nothing but the job, as far as is known."""
        return self.shared == self.unique == self.stable == "yes"


def _slurm(title: str, *names: str) -> JobNaming:
    return JobNaming(
        scheduler="slurm",
        title=title,
        basis="measured, 22.05: sbatch and srun on two nodes, requeued, after which steps count from 0 again. Under "
        "mpirun in a batch script the ranks beside it have no step, those on other nodes have one (Open MPI 4.1, 5.0)",
        verified=True,
        names=("SLURM_CLUSTER_NAME", *names),
        joined=("SLURM_STEP_ID",),
        joined_unless=("OMPI_COMM_WORLD_SIZE",),
        shared="yes",
        unique="yes",
        stable="yes",
        requeues="SLURM_RESTART_COUNT",
    )


JOBS: tuple[JobNaming, ...] = (
    JobNaming(
        scheduler="skypilot",
        title="SkyPilot task",
        basis="its source, 0.14: a time stamp, cluster and job; a managed job's controller makes it once, and its "
        "tests compare it after a recovery",
        names=("SKYPILOT_TASK_ID",),
        shared="yes",
        unique="yes",
        stable="yes",
    ),
    JobNaming(
        scheduler="torchx",
        title="TorchX app",
        basis="its source, 0.7: the app's handle, scheduler://session/app; whether a retry has it again is the "
        "scheduler's affair",
        names=("TORCHX_JOB_ID",),
        shared="yes",
        unique="yes",
    ),
    JobNaming(
        scheduler="konduktor",
        title="Konduktor job",
        basis="the official SDK reads it, the public template (an old one) does not set it; RANK is the node's number",
        names=("KONDUKTOR_JOB_NAME",),
        shared="yes",
    ),
    JobNaming(
        scheduler="sagemaker",
        title="SageMaker training job",
        basis="its documentation; that spot interruptions keep the job, from memory",
        names=("TRAINING_JOB_NAME",),
        beside=("TRAINING_JOB_ARN",),  # the name alone could be anybody's variable
        shared="yes",
        unique="yes",
        stable="yes",
    ),
    JobNaming(
        scheduler="vertex",
        title="Vertex AI custom job",
        basis="its documentation, from memory; its SDK calls it the name given to the training job",
        names=("CLOUD_ML_JOB_ID",),
        shared="yes",
        unique="yes",
        stable="yes",
    ),
    JobNaming(
        scheduler="azureml",
        title="Azure ML run",
        basis="its documentation, from memory",
        names=("AZUREML_RUN_ID",),
        shared="yes",
        unique="yes",
    ),
    JobNaming(
        scheduler="awsbatch",
        title="AWS Batch job on several nodes",
        basis="its documentation, from memory: the id ends with # and the node's number",
        names=("AWS_BATCH_JOB_ID",),
        beside=("AWS_BATCH_JOB_NUM_NODES",),
        shared="no",
        unique="yes",
        stable="yes",
        requeues="AWS_BATCH_JOB_ATTEMPT",
        first_attempt=1,
    ),
    JobNaming(
        scheduler="awsbatch",
        title="AWS Batch job",
        basis="its documentation: one container; a retry is another attempt of the same job, counted from 1",
        names=("AWS_BATCH_JOB_ID",),
        shared="yes",
        unique="yes",
        stable="yes",
        requeues="AWS_BATCH_JOB_ATTEMPT",
        first_attempt=1,
    ),
    JobNaming(
        scheduler="pytorchjob",
        title="Kubeflow PyTorchJob",
        basis="its source: only where elasticPolicy.rdzvId is given, and as often as it is given",
        names=("PET_RDZV_ID",),
        shared="yes",
        unique="no",
        stable="yes",
    ),
    JobNaming(
        scheduler="trainer",
        title="Kubeflow Trainer v2",
        basis="its source: PET_* without PET_RDZV_ID; the job's name is only a part of PET_MASTER_ADDR",
    ),
    JobNaming(
        scheduler="jobset",
        title="Kubernetes JobSet or indexed Job",
        basis="its documentation, from memory: names stand in labels, which reach a pod only if its spec says so",
    ),
    JobNaming(
        scheduler="volcano",
        title="Volcano job",
        basis="its documentation, from memory: VC_* list the hosts of each task and the pod's number",
    ),
    _slurm("Slurm heterogeneous job", "SLURM_JOB_ID_HET_GROUP_0"),
    _slurm("Slurm array task", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"),
    _slurm("Slurm job", "SLURM_JOB_ID"),
    JobNaming(
        scheduler="pbs",
        title="PBS job",
        basis="its documentation, from memory: number and server, of an array task the index too",
        names=("PBS_JOBID",),
        shared="yes",
        unique="yes",
        stable="yes",
    ),
    JobNaming(
        scheduler="lsf",
        title="LSF job",
        basis="its documentation, from memory: the index is 0 where the job is no array",
        names=("LSB_JOBID",),
        joined=("LSB_JOBINDEX",),
        shared="yes",
        unique="yes",
        stable="yes",
    ),
    JobNaming(
        scheduler="flux",
        title="Flux job",
        basis="its documentation, from memory: nothing is requeued; what is submitted again is another job",
        names=("FLUX_JOB_ID",),
        shared="yes",
        unique="yes",
        stable="no",
    ),
    JobNaming(
        scheduler="openmpi",
        title="Open MPI's mpirun",
        basis="measured, 4.1 and 5.0: another one for each mpirun, of its pid or a small number, so it may come back",
        verified=True,
        names=("PMIX_NAMESPACE",),
        beside=("OMPI_COMM_WORLD_SIZE",),
        shared="yes",
        unique="no",
        stable="no",
    ),
    JobNaming(
        scheduler="intelmpi",
        title="Intel MPI's mpirun",
        basis="measured, 2021.18: another one for each mpirun, but one that is started within a rank keeps it",
        verified=True,
        names=("I_MPI_HYDRA_UUID",),
        shared="yes",
        unique="no",
        stable="no",
    ),
    JobNaming("mpich", "MPICH's mpirun", "measured, 4.0 and 5.0: ranks and descriptors, no id", verified=True),
    JobNaming("raytrain", "Ray Train", "its source, 2.60: ranks and MASTER_*, no id"),
    JobNaming("accelerate", "accelerate", "its source, 1.15: torchrun's variables, or ranks and MASTER_* alone"),
    JobNaming("deepspeed", "deepspeed (pdsh)", "its documentation, from memory: ranks and MASTER_*, no id"),
    JobNaming("lightning", "Lightning's subprocess launcher", "its source: ranks and MASTER_*, no id"),
)
"""What is set by whom. The order is the precedence, from what a user asks for a job to what runs it.

A platform that loses a scheduler's job submits another one, and only the platform's own name comes back: so
platforms stand before schedulers. Of one scheduler's jobs the special kinds stand before the plain one, whose id is
another for each part of them. Launchers come last; what they know is of one launch.
"""


def named(environ: Mapping[str, str]) -> tuple[JobNaming, ...]:
    """Who names a job in ``environ``: of each scheduler the first row that is there, in the order of the table."""
    found: dict[str, JobNaming] = {}
    for row in JOBS:
        if row.is_in(environ):
            found.setdefault(row.scheduler, row)
    return tuple(found.values())


def scope(environ: Mapping[str, str]) -> JobScope | None:
    """What names the job of this launch on every rank and over its requeues, or ``None``.

    The first row of the table that can: see :data:`JOBS` for its order.

    >>> scope({"PET_RDZV_ID": "nightly"}), scope({})
    (None, None)
    """
    row = next((row for row in named(environ) if row.names_every_launch), None)
    if row is None:
        return None
    mixed = any(name in environ for name in row.joined_unless)
    joined = () if mixed else tuple(name for name in row.joined if environ.get(name))
    return JobScope(
        scheduler=row.scheduler,
        value=".".join(["_".join(environ[name] for name in row.names), *(environ[name] for name in joined)]),
        variables=seen(environ, *row.names, *joined),
        requeues=_requeues(row, environ),
    )


def _requeues(row: JobNaming, environ: Mapping[str, str]) -> int:
    count = environ.get(row.requeues or "", "")
    # What it says is only told, never reckoned with: nonsense is no requeue.
    return max(0, int(count) - row.first_attempt) if count.isascii() and count.isdigit() and len(count) < 10 else 0
