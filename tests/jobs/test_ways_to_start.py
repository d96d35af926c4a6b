"""Every way of starting a job on one machine: one run, the same on every rank, or the error that says what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import distribution
from pathlib import Path

import pytest
import requests
from running import RANDOM_ID, TORCH, free_port, wait_for

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers]

REPORT = """
import sys, pluto_dist
from reporting import report
run = pluto_dist.init(project="ways")
report(run, argv=sys.argv[1:])
"""
C10D = ("--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0")


# How it is started: options, environment, the beginning of the external id, what its source says.
RANDOM, NONE = "a random rendezvous id + a token", "it has no rendezvous id"
PLAIN = RANDOM if RANDOM_ID else NONE
TORCHRUN = {
    "torchrun": ((), {}, "torchrun-", PLAIN),
    "an id that torchrun drops": (("--rdzv-id=JOB7",), {}, "torchrun-", RANDOM if RANDOM_ID else "'JOB7' + a token"),
    "standalone": (("--standalone",), {}, "torchrun-", RANDOM),
    "PET_RDZV_ID alone": ((), {"PET_RDZV_ID": "PETJOB"}, "torchrun-PETJOB-", "'PETJOB' + a token"),
    "a plain MASTER_PORT": ((), {"MASTER_PORT": "29523"}, "torchrun-", PLAIN),
    "c10d with an id": ((*C10D, "--rdzv-id=JOB7"), {}, "torchrun-JOB7-", "'JOB7' + a token"),
    "c10d without an id": (C10D, {}, "torchrun-", NONE),
    "c10d with an empty id": ((*C10D, "--rdzv-id="), {}, "torchrun-", RANDOM),
    "static without an id": (("--master-port={port}",), {}, "torchrun-", NONE),
    "static with an id": (("--master-port={port}", "--rdzv-id=JOB7"), {}, "torchrun-JOB7-", "'JOB7' + a token"),
    "the PET variables": (
        (),
        {"PET_RDZV_ID": "PETJOB", "PET_RDZV_BACKEND": "c10d", "PET_RDZV_ENDPOINT": "localhost:0"},
        "torchrun-PETJOB-",
        "'PETJOB' + a token",
    ),
    "an id with a blank": ((*C10D, "--rdzv-id=team a"), {}, "torchrun-team-a-", "'team a' + a token"),
    "virtual local ranks": (("--virtual-local-rank",), {}, "torchrun-", PLAIN),
    "no log folder": (("--log-dir=/dev/null",), {}, "torchrun-", PLAIN),
}


def check_one_run(tracker, job, ranks: int = 2) -> dict:
    """The job's one run: all ranks saw the same, and the tracker saw one call of each."""
    assert job.returncode == 0, job.output
    assert [report["rank"] for report in job.reports] == list(range(ranks))
    seen = {(r["id"], r["run_id"], r["number"], r["mode"], r["run_id_source"]) for r in job.reports}
    assert len(seen) == 1, job.reports
    (run,) = tracker.runs("ways")
    assert (run["status"], len(run["attaches"])) == ("COMPLETED", ranks)
    assert job.reports[0]["id"] == run["id"]
    saw = f"all {ranks} saw {run['displayId']} {job.reports[0]['mode']}"
    print(f"WAY | {run['externalId']} | {job.reports[0]['run_id_source']} | 1 run | {saw}")  # shown by pytest -rP
    return run


TORCHRUNS_TEXT = Path(str(distribution("torch").locate_file("torch/distributed/run.py"))).read_text(encoding="utf-8")
ALWAYS = {"torchrun"}
MODES = [
    pytest.param(*mode, id=name, marks=() if name in ALWAYS else pytest.mark.exhaustive)
    for name, mode in TORCHRUN.items()
    if name != "virtual local ranks" or "virtual-local-rank" in TORCHRUNS_TEXT
]


@pytest.mark.parametrize(("options", "variables", "prefix", "source"), MODES)
def test_torchrun(tracker, torchrun, options, variables, prefix, source):
    """Whatever torchrun makes of its options, its ranks are in one run, whose id tells where it is from."""
    options = [option.format(port=free_port()) for option in options]
    patient = {"PLUTO_DIST_TIMEOUT": "120"}  # torch is imported meanwhile
    job = torchrun(REPORT, *options, environ=tracker.environ() | patient | variables)
    run = check_one_run(tracker, job)
    assert run["externalId"].startswith(prefix)
    assert source in job.reports[0]["run_id_source"]


def run_python(torchrun, command: list[str], environ: dict[str, str], seconds: float = 120):
    """``command`` as a user would type it, without torchrun."""
    return torchrun.finish(torchrun.start_command(command, environ), seconds)


@pytest.mark.exhaustive
def test_launch_of_old(tracker, torchrun):
    """torch.distributed.launch passes --local-rank to the script; init() does not mind."""
    script = torchrun.write(REPORT)
    command = [sys.executable, "-m", "torch.distributed.launch", "--nproc-per-node=2", script]
    job = run_python(torchrun, command, tracker.environ())
    check_one_run(tracker, job)
    assert job.reports[1]["argv"] == ["--local-rank=1"]


@pytest.mark.exhaustive
def test_through_a_shell(tracker, torchrun):
    """A script that torchrun starts through sh -c is its worker all the same."""
    script = torchrun.write(REPORT)
    shell = f"true && {sys.executable} {script}; exit $?"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--no-python", "sh", "-c", shell]
    check_one_run(tracker, run_python(torchrun, command, tracker.environ()))


@pytest.mark.exhaustive
def test_python_minus_c(tracker, torchrun):
    """python -c is one process: a run of its own."""
    run = check_one_run(tracker, run_python(torchrun, [sys.executable, "-c", REPORT], tracker.environ()), ranks=1)
    assert run["externalId"].startswith("single-")


def test_a_thread(tracker, torchrun):
    """init() and finish() in a thread that is not the main one."""
    script = "import threading\ndef work():\n" + "".join(f"    {line}\n" for line in REPORT.splitlines())
    script += "    run.finish()\nthread = threading.Thread(target=work)\nthread.start()\nthread.join()\n"
    check_one_run(tracker, torchrun(script, environ=tracker.environ()))


SPAWN = """
import os, sys
import torch.distributed as dist, torch.multiprocessing as mp
import pluto_dist
from reporting import report

def work(rank, world_size, port, with_group):
    if with_group:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)
    try:
        with pluto_dist.init(project="ways") as run:
            os.environ["RANK"] = str(rank)  # for the report
            report(run)
    except pluto_dist.errors.NoSharedRunError as error:
        os.environ["RANK"] = str(rank)
        report(error=str(error))
    if with_group:
        dist.destroy_process_group()

if __name__ == "__main__":
    mp.spawn(work, args=(2, int(sys.argv[1]), sys.argv[2] == "group"), nprocs=2)
"""


def test_spawn(tracker, torchrun):
    """torch.multiprocessing.spawn with a process group: its ranks are in one run."""
    script = torchrun.write(SPAWN)
    job = run_python(torchrun, [sys.executable, script, str(free_port()), "group"], tracker.environ())
    assert check_one_run(tracker, job)["externalId"].startswith("process-group-")


@pytest.mark.exhaustive
def test_spawn_without_a_group(tracker, torchrun):
    """Spawned processes that nothing joins: each gets the error that says what to do, and no run of its own."""
    script = torchrun.write(SPAWN)
    job = run_python(torchrun, [sys.executable, script, str(free_port()), "none"], tracker.environ())
    assert all("init_process_group" in report["error"] for report in job.reports)
    assert len(job.reports) == 2
    assert tracker.log() == []


BARE = """
import sys, torch.distributed as dist, pluto_dist
from reporting import report
if sys.argv[1] == "after":
    dist.init_process_group("gloo")
with pluto_dist.init(project="ways") as run:
    report(run)
    if sys.argv[1] == "before":
        dist.init_process_group("gloo")  # on the port where our store already is
    dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.parametrize("where", ["before", pytest.param("after", marks=pytest.mark.exhaustive)])
def test_bare_processes(tracker, torchrun, where):
    """RANK, WORLD_SIZE and MASTER_* by hand: one run, before and after init_process_group."""
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    loop = f'for RANK in 0 1; do RANK=$RANK "{sys.executable}" {torchrun.write(BARE)} {where} & done; wait'
    job = run_python(torchrun, ["sh", "-c", loop], tracker.environ() | place)
    assert check_one_run(tracker, job)["externalId"].startswith("environment-")


@pytest.mark.exhaustive
def test_pytest_itself(tracker, torchrun):
    """A test that calls init() has a run, and pytest ends as it would have."""
    body = "".join(f"    {line}\n" for line in REPORT.splitlines())
    script = torchrun.write(f"def test_train():\n{body}    run.finish()\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", script]
    check_one_run(tracker, run_python(torchrun, command, tracker.environ()), ranks=1)


def test_a_notebook(tracker, torchrun, tmp_path):
    """A real notebook, executed headless: the run ends with its kernel, and a failing cell ends nothing."""
    cells = [REPORT, "1 / 0", "run.update_config({'after': run.finished})", "run.finish()"]
    notebook = {
        "cells": [
            {"cell_type": "code", "id": f"c{n}", "metadata": {}, "execution_count": None, "outputs": [], "source": cell}
            for n, cell in enumerate(cells)
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path = tmp_path / "train.ipynb"
    path.write_text(json.dumps(notebook))
    command = [sys.executable, "-m", "jupyter", "execute", "--allow-errors", str(path)]
    kernels = {"JUPYTER_PATH": str(Path(sys.prefix) / "share" / "jupyter"), "HOME": str(tmp_path)}
    job = run_python(torchrun, command, tracker.environ() | kernels)
    run = check_one_run(tracker, job, ranks=1)
    assert run["config"]["after"] is False


CHILDREN = """
import os, sys, threading
import torch
from torch.utils.data import DataLoader, Dataset
import pluto_dist
from reporting import report

class Data(Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, n):
        return n, threading.active_count()

if __name__ == "__main__":
    run = pluto_dist.init(project="ways")
    loader = DataLoader(Data(), num_workers=2, multiprocessing_context=sys.argv[1])
    assert sorted(int(n) for batch, _ in loader for n in batch) == list(range(8))
    report(run, argv=[])
    pid = os.fork()
    if pid == 0:
        child = pluto_dist.init(project="ways")
        sys.exit(0 if child.mode == "disabled" else 7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.exhaustive)])
def test_children_have_no_part_in_the_run(tracker, torchrun, method):
    """Dataloader workers and forked children neither end the run, nor attach, nor run our hooks."""
    script = torchrun.write(CHILDREN)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", script, method]
    run = check_one_run(tracker, run_python(torchrun, command, tracker.environ()))
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "COMPLETED"]


@pytest.mark.skipif(TORCH < (2, 7), reason="FSDP2 of torch 2.6 fails on CPU without this package too")
def test_beside_fsdp_and_tensor_parallel(tracker, torchrun):
    """A device mesh, FSDP2 and tensor parallel sub-groups keep working around init()."""
    script = """
import torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
import pluto_dist
from reporting import report
dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
with pluto_dist.init(project="ways") as run:
    model = torch.nn.Sequential(torch.nn.Linear(8, 8))
    parallelize_module(model, mesh["tp"], {"0": ColwiseParallel()})
    fully_shard(model, mesh=mesh["dp"])
    model(torch.ones(2, 8)).sum().backward()
    report(run)
dist.destroy_process_group()
"""
    check_one_run(tracker, torchrun(script, nproc=4, environ=tracker.environ()), ranks=4)


@pytest.mark.exhaustive
def test_two_jobs_side_by_side_in_one_shell(tracker, torchrun):
    """Two torchruns that inherit one environment are two runs, whatever ids it holds."""
    script = torchrun.write(REPORT)
    start = f'"{sys.executable}" -m torch.distributed.run --nproc-per-node=1 {script}'
    job = run_python(torchrun, ["sh", "-c", f"{start} & {start} & wait"], tracker.environ() | {"SLURM_JOB_ID": "7"})
    assert len({report["run_id"] for report in job.reports}) == 2
    assert len(tracker.runs("ways")) == 2


def test_the_table_of_launch_modes_is_torchs():
    """Every launch mode below is one that this torch still offers."""
    shown = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--help"], capture_output=True, text=True, check=True
    )
    for option in {option.split("=")[0] for options, *_ in TORCHRUN.values() for option in options}:
        assert option in shown.stdout or option.replace("-", "_") in shown.stdout, option


def two_agents(torchrun, script: str, environ: dict[str, str], first: list[str], second: list[str]):
    """Two torchruns that are the two nodes of one static rendezvous, on one machine."""
    port, path = free_port(), torchrun.write(script)
    start = f'"{sys.executable}" -m torch.distributed.run --nnodes=2 --master-addr=127.0.0.1 --master-port={port}'
    lines = [f"{start} --node-rank={n} {' '.join(ids)} {path}" for n, ids in enumerate((first, second))]
    return run_python(torchrun, ["sh", "-c", f"{lines[0]} & {lines[1]}; wait"], environ)


@pytest.mark.exhaustive
def test_two_agents_without_an_id(tracker, torchrun):
    """The nodes of a static rendezvous, both "none", are in one run."""
    run = check_one_run(tracker, two_agents(torchrun, REPORT, tracker.environ(), [], []))
    assert run["systemMetadata"]["cluster"]["nodes_reported"] == 2


@pytest.mark.skipif(TORCH < (2, 6), reason="torch's own agents then wait for each other for ever")
def test_two_agents_with_different_ids(tracker, torchrun):
    """Where torch lets nodes of one launch have two rendezvous ids, all ranks get one error that names the variable."""
    script = (
        "import pluto_dist\nfrom reporting import report\n"
        "try:\n    pluto_dist.init(project='ways')\n"
        "except pluto_dist.errors.RunIdMismatchError as error:\n    report(error=str(error))\n    raise\n"
    )
    environ = tracker.environ() | {"TORCH_ELASTIC_WORKER_IDENTICAL": "1"}
    job = two_agents(torchrun, script, environ, ["--rdzv-id=AAA"], ["--rdzv-id=BBB"])
    assert [report["rank"] for report in job.reports] == [0, 1], job.output
    assert len({report["error"] for report in job.reports}) == 1
    assert "TORCHELASTIC_RUN_ID is " in job.reports[0]["error"]
    assert tracker.runs("ways") == []


# What Lightning's and Fabric's own launchers do (Lightning 2.6.6, _SubprocessScriptLauncher._call_children_scripts).
OWN_LAUNCHER = """
import os, subprocess, sys
import torch, torch.distributed as dist
import pluto_dist
from reporting import report

def launch(port):
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0", "WORLD_SIZE": "2"}
    if os.environ.get("LOCAL_RANK") is None:
        os.environ.update(place, LOCAL_RANK="0")
        return subprocess.Popen([sys.executable, *sys.argv], env={**os.environ, "LOCAL_RANK": "1"})

WHERE, PORT, WHAT = sys.argv[1:]
if WHERE == "top":
    run = pluto_dist.init(project="ways", config={"lr": 1})
child = launch(PORT)
rank = int(os.environ["LOCAL_RANK"])
if WHERE == "before":
    run = pluto_dist.init(project="ways", config={"lr": 1})
dist.init_process_group("gloo", rank=rank, world_size=2)
run = pluto_dist.init(project="ways", config={"lr": 1})
os.environ["RANK"] = str(rank)  # for the report
report(run, argv=[])
if WHAT == "raise" and rank == 1:
    raise ValueError("boom")
dist.barrier()
run.finish()
sys.exit(child.wait() if child else 0)
"""


@pytest.mark.parametrize(
    ("where", "what", "prefix"),
    [
        pytest.param("top", "succeed", "single-", marks=pytest.mark.exhaustive),
        ("top", "raise", "single-"),
        pytest.param("before", "succeed", "lightning-", marks=pytest.mark.exhaustive),
        pytest.param("after", "succeed", "process-group-", marks=pytest.mark.exhaustive),
    ],
)
def test_a_script_that_starts_the_other_ranks_itself(tracker, torchrun, where, what, prefix):
    """The children that a script starts as Lightning does are in its run, wherever init() stands; a failure is told."""
    script = torchrun.write(OWN_LAUNCHER)
    job = run_python(torchrun, [sys.executable, script, where, str(free_port()), what], tracker.environ())
    (run,) = tracker.runs("ways")
    assert run["externalId"].startswith(prefix)
    assert [(report["rank"], report["id"]) for report in job.reports] == [(0, run["id"]), (1, run["id"])]
    assert (len(run["attaches"]), run["config"]["lr"]) == (2, 1)
    if what == "succeed":
        assert (job.returncode, run["status"]) == (0, "COMPLETED"), job.output
        assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "COMPLETED"]
    else:
        assert (run["status"], run["statusMetadata"]["rank"]) == ("FAILED", 1), job.output
        assert run["statusMetadata"]["reason"] == "ValueError: boom"


# accelerate 1.15, debug_launcher and PrepareForLaunch: forked, WORLD_SIZE from the parent, the ranks in a FileStore.
DEBUG_LAUNCHER = """
import os, sys
import torch.distributed as dist
from torch.multiprocessing import start_processes
import pluto_dist
from reporting import report

def train(rank, file):
    dist.init_process_group("gloo", rank=rank, store=dist.FileStore(file, 2), world_size=2)
    with pluto_dist.init(project="ways") as run:
        os.environ["RANK"] = str(rank)  # for the report
        report(run, argv=[])
        dist.barrier()
    dist.destroy_process_group()

if __name__ == "__main__":
    os.environ.update(WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    start_processes(train, args=(sys.argv[1],), nprocs=2, start_method="fork")
"""


def test_ranks_that_see_different_launchers(tracker, torchrun, tmp_path):
    """Rank 0 takes its parent's RANK for its own, rank 1 knows the process group alone: one run all the same."""
    command = [sys.executable, torchrun.write(DEBUG_LAUNCHER), str(tmp_path / "store")]
    run = check_one_run(tracker, run_python(torchrun, command, tracker.environ() | {"RANK": "0"}))
    assert run["externalId"].startswith(("environment-", "process-group-"))


@pytest.mark.exhaustive
def test_several_nodes_without_a_launcher(tracker, torchrun):
    """A process of a platform that counts nodes alone has its run, and a warning says what to do."""
    job = run_python(torchrun, [sys.executable, torchrun.write(REPORT)], tracker.environ() | {"NUM_NODES": "2"})
    check_one_run(tracker, job, ranks=1)
    assert job.output.count("NUM_NODES=2, but no launcher started this process") == 1


@pytest.fixture
def etcd(tmp_path) -> Iterator[str]:
    """The address of a real etcd with its v2 interface, which torch uses."""
    found = shutil.which("etcd")
    if found is None:
        pytest.skip("needs etcd: apt-get install etcd-server")
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    command = [found, "--enable-v2", f"--data-dir={tmp_path / 'etcd'}", f"--listen-client-urls={client}"]
    command += [f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}"]
    command += [f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"]
    with (tmp_path / "etcd.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    address = client.removeprefix("http://")
    session = requests.Session()
    session.trust_env = False

    def answers() -> bool:
        with suppress(requests.ConnectionError):
            return session.get(f"{client}/version", timeout=5).ok
        return False

    wait_for(answers, "etcd does not answer", 60)
    yield address
    process.terminate()
    process.wait(30)


@pytest.mark.parametrize("backend", [pytest.param("etcd", marks=pytest.mark.exhaustive), "etcd-v2"])
def test_etcd(tracker, torchrun, etcd, backend):
    """A rendezvous through etcd, where rank 0 hosts the ranks' store: one run."""
    options = (f"--rdzv-backend={backend}", f"--rdzv-endpoint={etcd}", "--rdzv-id=JOB7", "--nnodes=1:1")
    environ = tracker.environ() | {"NO_PROXY": "127.0.0.1"}
    run = check_one_run(tracker, torchrun(REPORT, *options, environ=environ))
    assert run["externalId"].startswith("torchrun-JOB7-")
