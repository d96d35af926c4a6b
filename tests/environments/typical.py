"""Typical environments of workers: eight for ``explain``, shortened to the variables that matter, and two to modify."""

from __future__ import annotations

from types import MappingProxyType

from environments.recorded import recorded

TORCHRUN = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "8",
    "GROUP_RANK": "0",
    "GROUP_WORLD_SIZE": "1",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "40001",
    "TORCHELASTIC_RUN_ID": "cc9f1e1c-3a4b-4a53-9d2e-0d5f0f4f6a10",
    "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_MAX_RESTARTS": "3",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
NODES = {"WORLD_SIZE": "64", "GROUP_WORLD_SIZE": "8", "MASTER_ADDR": "node-0", "MASTER_PORT": "29400"}
SLURM_JOB = {"SLURM_JOB_ID": "4711", "SLURM_CLUSTER_NAME": "hpc"}
SRUN = {
    **SLURM_JOB,
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_NTASKS": "16",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
    "SLURM_STEP_NODELIST": "node[0-1]",
}
MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "0",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}

EIGHT = {
    "`torchrun train.py` on one node": TORCHRUN,
    "`torchrun --rdzv-backend=c10d --rdzv-id=123`, 8 nodes": TORCHRUN | NODES | {"TORCHELASTIC_RUN_ID": "123"},
    "torchrun without an id, 8 nodes (Kubeflow Trainer v2)": TORCHRUN | NODES | {"TORCHELASTIC_RUN_ID": "none"},
    "the same in a Slurm job, with `PLUTO_DIST_RESUME=1`": (
        TORCHRUN | NODES | SLURM_JOB | {"TORCHELASTIC_RUN_ID": "none", "PLUTO_DIST_RESUME": "1"}
    ),
    "`srun -n 16 python train.py`, 2 nodes": SRUN,
    "`mpirun -n 4 python train.py`": MPIRUN,
    "RANK, WORLD_SIZE, MASTER_* alone (DeepSpeed, Ray Train)": {
        "RANK": "0",
        "WORLD_SIZE": "16",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "29500",
    },
    "`python train.py` with `PLUTO_RUN_ID=ablation-7`": {"PLUTO_RUN_ID": "ablation-7"},
}

UUID = "cc9f1e1c-3a4b-4a53-9d2e-0d5f0f4f6a10"
UUID_AS_INT = "271920368236409116923454098231104537824"

# What a worker of `torchrun --nproc-per-node=2` has in its environment (torch 2.13).
WORKER = MappingProxyType(
    {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "GROUP_WORLD_SIZE": "1",
        "ROLE_NAME": "default",
        "ROLE_RANK": "1",
        "ROLE_WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "40001",
        "TORCHELASTIC_RUN_ID": UUID,
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_ERROR_FILE": f"/var/log/job/{UUID}_x7/attempt_0/1/error.json",
        "OMP_NUM_THREADS": "1",
    }
)
TASK = MappingProxyType(recorded("slurm_two_nodes")[0])


def worker(**changes: str | None) -> dict[str, str]:
    """A worker of torchrun with changes; ``None`` removes a variable."""
    merged = {**WORKER, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def task(**changes: str | None) -> dict[str, str]:
    """Rank 0 of ``srun -N2 -n4`` with changes; ``None`` removes a variable."""
    return {name: value for name, value in {**TASK, **changes}.items() if value is not None}
