"""Eight environments as workers find them, for ``explain``: shortened to what tells anything."""

from __future__ import annotations

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
