"""The training frameworks, each with its ways of starting: the command, and what the tracker is to have in the end."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

COMPLETED, FAILED, TERMINATED = ("COMPLETED", None), ("FAILED", "rank 1 fails"), ("TERMINATED", None)
HOWS = ("succeeds", "raises", "stops")
EVERY_END = {"succeeds": COMPLETED, "raises": FAILED, "stops": TERMINATED}


@dataclass(frozen=True)
class Way:
    """One way of starting one framework.

    Attributes:
        environment: the key of ``framework_venv.PACKAGES``.
        script: in the folder ``scripts``.
        command: after the interpreter; ``{script}``, ``{port}`` and ``{bin}`` (of the environment) are filled in.
        ranks: that report, and that attach to the runs, in all.
        runs: how many the job has.
        ends: for each way to end, the status of the last run and a part of its reason.
        in_ci: the ways to end that the default suite tries.
        signalled: "leader", the process that was started, which passes the signal on; "group", every process of the
            job, as the end of a container or a batch job does, where the leader passes nothing on.
        environ: further variables.
        is_chatty: whether the launcher's own lines differ from one start to the next.
    """

    environment: str
    script: str
    command: tuple[str, ...]
    ranks: int = 2
    runs: int = 1
    ends: dict[str, tuple[str, str | None]] = field(default_factory=lambda: EVERY_END)
    in_ci: tuple[str, ...] = ()
    signalled: str = "leader"
    environ: dict[str, str] = field(default_factory=dict)
    is_chatty: bool = False


TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node=2", "{script}")
OWN = ("{script}",)
OURS = (
    "-c",
    "from pluto_dist.cli import main; main()",
    "run",
    "--project=frameworks",
    "--nproc-per-node=2",
    "{script}",
)

WAYS = {
    # The default suite tries one of each kind: a parent that is rank 0 and starts other ranks (Lightning), functions
    # in forked children without an agent (debug_launcher) and with torch's (notebook_launcher), trials of a sweep, and
    # jobs one after the other in one process (Hydra).
    # All else is exhaustive: torchrun starts it, or it is one of these again.
    "lightning, own launcher": Way("lightning", "lightning_ddp.py", (*OWN, "ddp", "top"), in_ci=("stops",)),
    "lightning, own launcher, init() in a hook": Way("lightning", "lightning_ddp.py", (*OWN, "ddp", "hook")),
    "lightning, torchrun": Way("lightning", "lightning_ddp.py", (*TORCHRUN, "ddp", "top")),
    "lightning, ddp_fork": Way("lightning", "lightning_ddp.py", (*OWN, "ddp_fork", "hook"), signalled="group"),
    "lightning, ddp_spawn": Way("lightning", "lightning_ddp.py", (*OWN, "ddp_spawn", "hook"), signalled="group"),
    "fabric, own launcher": Way("lightning", "lightning_fabric.py", OWN, signalled="group"),
    "fabric run": Way(
        "lightning",
        "lightning_fabric.py",
        (
            "{bin}/fabric",
            "run",
            "--accelerator=cpu",
            "--devices=2",
            "--strategy=ddp",
            "--main-port={port}",
            "{script}",
            "cli",
        ),
    ),
    "accelerate launch": Way(
        "lightning",
        "accelerate_loop.py",
        ("{bin}/accelerate", "launch", "--multi_gpu", "--num_processes=2", "--main_process_port={port}", "{script}"),
    ),
    "accelerate debug_launcher": Way(
        "lightning", "accelerate_loop.py", (*OWN, "debug"), in_ci=("raises",), signalled="group"
    ),
    "accelerate notebook_launcher": Way(
        "lightning", "accelerate_loop.py", (*OWN, "notebook", "{port}"), in_ci=("succeeds",), signalled="group"
    ),
    "transformers Trainer, torchrun": Way("transformers", "transformers_trainer.py", TORCHRUN),
    "transformers Trainer, accelerate launch": Way(
        "transformers",
        "transformers_trainer.py",
        ("{bin}/accelerate", "launch", "--multi_gpu", "--num_processes=2", "--main_process_port={port}", "{script}"),
    ),
    "ray train": Way(
        "ray",
        "ray_train.py",
        OWN,
        # Ray catches the exception; before Python 3.12 only the function that it left is seen. The workers of a Ray
        # that is stopped get no signal: their C++ part exits, as after SIGKILL.
        ends={
            "succeeds": COMPLETED,
            "raises": FAILED if sys.version_info >= (3, 12) else ("FAILED", "exception left train()"),
        },
        is_chatty=True,
    ),
    "ignite, torchrun": Way("ignite", "ignite_parallel.py", TORCHRUN),
    "ignite, spawn": Way("ignite", "ignite_parallel.py", (*OWN, "{port}"), signalled="group"),
    "hydra": Way("hydra", "hydra_main.py", (*OWN, "+lr=1", "hydra.run.dir={reports}/out"), ranks=1),
    "hydra, multirun": Way(
        "hydra",
        "hydra_main.py",
        (*OWN, "--multirun", "+lr=1,2", "hydra.sweep.dir={reports}/out"),
        ranks=2,
        runs=2,
        ends={"succeeds": COMPLETED},
        in_ci=("succeeds",),
    ),
    "hydra, torchrun": Way("hydra", "hydra_main.py", (*TORCHRUN, "+lr=1", "hydra.run.dir={reports}/out")),
    "torchx": Way(
        "torchx",
        "plain_loop.py",
        ("{bin}/torchx", "run", "--scheduler=local_cwd", "--wait", "dist.ddp", "-j=1x2", "--script={script}"),
        ends={"succeeds": COMPLETED, "raises": FAILED},
        is_chatty=True,
    ),
    "deepspeed": Way(
        "deepspeed",
        "plain_loop.py",
        ("{bin}/deepspeed", "--num_accelerators=2", "--master_port={port}", "{script}"),
        signalled="group",
        environ={"DS_ACCELERATOR": "cpu"},
    ),
    "joblib": Way(
        "sweeps",
        "sweep.py",
        (*OWN, "joblib"),
        runs=2,
        ends={"succeeds": COMPLETED, "stops": TERMINATED},  # of a trial that raises it kills the others, at any moment
        in_ci=("succeeds",),
        signalled="group",
    ),
    "ProcessPoolExecutor": Way("sweeps", "sweep.py", (*OWN, "futures"), runs=2, signalled="group"),
    "multiprocessing.Process": Way("sweeps", "sweep.py", (*OWN, "processes"), runs=2, signalled="group"),
    "torch alone, pluto-dist run": Way("sweeps", "plain_loop.py", OURS),
}
