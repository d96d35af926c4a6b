"""Names of scheduler jobs: which variables hold them, and whether a name identifies one run over all launches of a job.

Nothing here gives a worker its rank. Each scheduler or platform is one row of :data:`JOBS`, including those that name
no job. ``resume`` can use a name only if it is the same on every rank, belongs to one job alone, and is kept when the
job is requeued; all three must be known. Ids of a single rank or pod (SLURM_PROCID, JOB_COMPLETION_INDEX) therefore
are in no row. Every process that is started in an allocation inherits the scheduler's ids, so a scope is never enough
to distinguish two launches.

>>> scope({"SLURM_CLUSTER_NAME": "lab", "SLURM_JOB_ID": "1042", "SLURM_STEP_ID": "0"}).value
'lab_1042.0'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pluto_dist.environments.context import JobScope
from pluto_dist.environments.variables import seen
from pluto_dist.serialization.text import parse_digits

Known = Literal["yes", "no", "unknown"]


@dataclass(frozen=True, slots=True)
class JobNaming:
    """How one scheduler, platform or launcher names a job.

    Attributes:
        scheduler: the lower-case word that goes into ids; rows with one word are kinds of one scheduler's jobs.
        title: the name for people.
        basis: the source of the row.
        verified: whether that was a run of the real thing, not its source or documentation.
        names: the variables that name the job together, all of them needed; empty if nothing does.
        joined: appended to them if set: a part of the job that is launched by itself.
        joined_unless: if one of these is set, some ranks have ``joined`` and others have not: it is left out.
        beside: variables that must be set too, to recognise the row's environment; their values name nothing.
        shared: whether every rank has the same name.
        unique: whether no other job of the installation (a cluster, a server, an account) has it.
        stable: whether a requeued, retried or recovered job has it again.
        requeues: the variable that counts the requeues.
        first_attempt: the value of ``requeues`` before the first requeue.
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
        """Whether ``environ`` holds the name of a job of this row."""
        return bool(self.names) and all(environ.get(name) for name in (*self.names, *self.beside))

    @property
    def names_every_launch(self) -> bool:
        """Whether the name is known to be shared by all ranks, unique and stable."""
        return self.shared == self.unique == self.stable == "yes"


def _slurm(title: str, *names: str) -> JobNaming:
    return JobNaming(
        scheduler="slurm",
        title=title,
        basis="measured, 22.05: sbatch and srun on two nodes, requeued, after which steps count from 0 again. With "
        "mpirun in a batch script the ranks on its node have no step, those on others have one (Open MPI 4.1, 5.0)",
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
        basis="its source, 0.7: the app's handle, scheduler://session/app; whether a retry has it again depends on the "
        "scheduler",
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
        beside=("TRAINING_JOB_ARN",),  # the name alone is too general
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
        basis="its source: only if elasticPolicy.rdzvId is given; several jobs may be given the same",
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
        basis="its documentation, from memory: names are labels, which reach a pod only if its spec asks for them",
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
        basis="its documentation, from memory: the index is 0 if the job is not an array",
        names=("LSB_JOBID",),
        joined=("LSB_JOBINDEX",),
        shared="yes",
        unique="yes",
        stable="yes",
    ),
    JobNaming(
        scheduler="flux",
        title="Flux job",
        basis="its documentation, from memory: nothing is requeued; a job that is submitted again is another job",
        names=("FLUX_JOB_ID",),
        shared="yes",
        unique="yes",
        stable="no",
    ),
    JobNaming(
        scheduler="openmpi",
        title="Open MPI's mpirun",
        basis="measured, 4.1 and 5.0: another one for each mpirun, of its pid or a small number, so it may recur",
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
        basis="measured, 2021.18: another one for each mpirun, but an mpirun that a rank starts keeps it",
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
"""The order is the precedence, from the platform that a user submits to down to what starts the processes.

A platform that loses a scheduler's job submits another one, and only the platform's own name is kept: so platforms
come before schedulers. Of one scheduler's jobs the special kinds come before the plain one, whose id differs in each
part of them. Launchers come last: they know one launch only.
"""


def named(environ: Mapping[str, str]) -> tuple[JobNaming, ...]:
    """The rows that name a job in ``environ``: of each scheduler the first that applies, in the order of the table."""
    found: dict[str, JobNaming] = {}
    for row in JOBS:
        if row.is_in(environ):
            found.setdefault(row.scheduler, row)
    return tuple(found.values())


def scope(environ: Mapping[str, str]) -> JobScope | None:
    """The name of this launch's job on every rank and over its requeues, or ``None``.

    It comes from the first row of :data:`JOBS` that has such a name.

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
    # Only shown, never part of a decision: a value that is not a number counts as no requeue.
    return max(0, (parse_digits(environ.get(row.requeues or "", ""), most=9) or 0) - row.first_attempt)
