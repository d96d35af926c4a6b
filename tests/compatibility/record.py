"""Records what a version of pluto_dist writes: spool, database, state of a node, shared store.

``python tests/compatibility/record.py FOLDER`` writes into FOLDER, with the version that this Python imports::

    spool/           requests of six jobs whose tracker was unreachable, one folder per run
    tracker.db       the embedded tracker's database, and tracker.db.blobs/ with the uploaded files
    answers.json     the embedded tracker's answers about that database, by path; ``{url}`` is its address
    launch_folder/   the files that a node keeps for the next attempt, under torchrun and under `pluto-dist run`
    store.json       keys and values in the store that the ranks share, at five moments
    identities.json  the run id that `pluto-dist explain` derives from each of several environments

Only public interfaces are used: ``init()``, the commands, ``LocalServer``, HTTP, torch's store, files. The same program
therefore records earlier and later versions.

The committed ``written_by_11b8096/`` was made with a clone of commit 11b8096 and this folder in its tests/, as root,
with both host names in /etc/hosts, and with the clone mounted at a neutral path, which appears in the metadata. The
GPUs are those of the fake NVIDIA library in tests/fakenvml::

    unshare --uts --mount sh -c 'hostname node-a && mount --bind CLONE /opt && cd /opt && PYTHONPATH=/opt
        exec .venv/bin/python tests/compatibility/record.py FOLDER --hosts node-a node-b --work /srv/job'
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from by_hand import COMMAND, SECONDS, Launch, SharedStore, Tracker, environment, free_port, wait_until

from pluto_dist.server import LocalServer

KEY = "mlps_key-of-a-database-that-an-earlier-version-wrote"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
SHORT = {"PLUTO_DIST_METADATA": "packages=0,git=0,argv=0"}
ODD_PROJECT = "vision/ü 1"
MOMENTS = ("rank 0 waits", "rank 0 hosts", "rank 1 waits", "attempt failed", "job completed")


# Jobs without a tracker.

OFFLINE = """
import pluto_dist
with pluto_dist.init(name="offline", config={"lr": 0.1, "net": {"layers": 2}}, tags=["a", "b"]) as run:
    run.update_config({"accuracy": 0.9, "net": {"width": 64}})
"""
FORK = """
import pluto_dist
with pluto_dist.init(name="fork", mode="offline", config={"lr": 0.2}, fork_run_id="DIG-1", fork_step=3,
                     inherit_tags=True, logger_settings={"level": "INFO"}):
    pass
"""
NAMED = """
import sys, pluto_dist
with pluto_dist.init(mode="offline", run_id=sys.argv[1], config={"evaluated": sys.argv[1]}):
    pass
"""
UNREACHABLE = """
import pluto_dist
with pluto_dist.init(name="unreachable", run_id="unreachable", config={"lr": 0.3}):
    raise ValueError("boom")
"""
AWAY = {"PLUTO_PROJECT": "digits", "PLUTO_URL_API": "https://tracker.example.com"}
NOBODY = {"PLUTO_PROJECT": "digits", "PLUTO_URL_API": "http://127.0.0.1:9", "PLUTO_API_KEY": KEY}


def offline_jobs(work: Path, launcher: Sequence[str] = TORCHRUN) -> Path:
    """Run five jobs without a tracker; the folder of the spool with their requests."""
    work.mkdir(parents=True, exist_ok=True)
    own = {**SHORT, "PLUTO_DIR": str(work)}
    away = environment(work, AWAY, own)
    run([*launcher, script(work, "offline", OFFLINE)], away, work)
    run([sys.executable, script(work, "fork", FORK)], away, work)
    for name in ("DIG-1", "2"):
        run([sys.executable, script(work, "named", NAMED), name], away, work)
    nobody = environment(work, NOBODY, own, {"PLUTO_DIST_TIMEOUT": "2"})
    run([sys.executable, script(work, "unreachable", UNREACHABLE)], nobody, work, code=1)
    return work / "pluto-dist" / "spool"


OUTAGE = """
import time, pluto_dist
from pathlib import Path
with pluto_dist.init(project="digits", name="outage", run_id="outage", config={"lr": 0.4}) as run:
    Path("joined").touch()
    while not Path("gone").exists():
        time.sleep(0.01)
    run.update_config({"after": "the tracker went away"})
"""


def outage(work: Path, tracker: Tracker, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A job that has joined its run, and continues when the file ``gone`` exists; stop the tracker before that."""
    work.mkdir(parents=True, exist_ok=True)
    more = {"PLUTO_DIR": str(work.parent / "offline"), "PLUTO_DIST_TIMEOUT": "2", "PLUTO_DIST_HEARTBEAT": "600"}
    environ = environment(work, variables, SHORT, more)
    with (work / "outage.log").open("wb") as log:
        command = [sys.executable, script(work, "outage", OUTAGE)]
        process = subprocess.Popen(command, env=environ, cwd=work, stdout=log, stderr=log)
    wait_until((work / "joined").exists, "the job did not join its run")
    wait_until(lambda: tracker.runs("digits")[-1]["heartbeatAt"] is not None, "no heartbeat")
    return process


# Jobs under torchrun and under `pluto-dist run`, and the files that their nodes keep.

PLAIN = """
import pluto_dist
pluto_dist.init().update_config({"accuracy": 0.97})
"""
RESTARTED = """
import os, shutil
from pathlib import Path
import pluto_dist

is_first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
if not is_first:
    shutil.copytree(Path(os.environ["TORCHELASTIC_ERROR_FILE"]).parents[2], "kept_by_torchrun")
with pluto_dist.init(project="digits", name="restarted", config={"lr": 0.1}):
    if is_first:
        raise ValueError("boom")
"""
FAILED = """
import os, shutil, signal, time
from pathlib import Path

folder = Path(os.environ["PLUTO_DIST_LAUNCH_FOLDER"])
if os.environ["RANK"] == "0":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # rank 1 fails; this rank copies the folder before it ends
    Path("ready").touch()
    while not any("failure" in file.name for file in folder.iterdir()):
        time.sleep(0.01)
    shutil.copytree(folder, "kept_by_launcher")
else:
    while not Path("ready").exists():
        time.sleep(0.01)
    raise ValueError("boom")
"""


def completed_job(work: Path, variables: Mapping[str, str]) -> None:
    """Run `python -m pluto_dist` under torchrun, with complete system metadata."""
    work.mkdir(parents=True, exist_ok=True)
    options = ["--project", "digits", "--name", "completed", "--tag", "ddp", "--tag", "group:a", "--config", "lr=0.1"]
    command = [*TORCHRUN, "-m", "pluto_dist", *options, script(work, "train", PLAIN)]
    run(command, environment(work, variables), work)


def restarted_job(work: Path, variables: Mapping[str, str]) -> Path:
    """Run a job under torchrun that fails once; a copy of the agent's folder at the start of the second attempt."""
    work.mkdir(parents=True, exist_ok=True)
    options = ["--max-restarts=1", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--rdzv-id=restarted"]
    command = [*TORCHRUN, "--nproc-per-node=1", *options, script(work, "train", RESTARTED)]
    run(command, environment(work, variables, SHORT), work)
    return work / "kept_by_torchrun"


def failed_job(work: Path, variables: Mapping[str, str]) -> Path:
    """Run a job under `pluto-dist run` that fails; a copy of the launcher's folder after the failure."""
    work.mkdir(parents=True, exist_ok=True)
    options = ["--project=digits", "--name=failed", "--nproc-per-node=2"]
    command = [*COMMAND, "run", *options, script(work, "train", FAILED)]
    run(command, environment(work, variables, SHORT), work, code=1)
    return work / "kept_by_launcher"


def keep_notes(source: Path, target: Path) -> None:
    """Copy the files of pluto_dist from an agent's folder."""
    for file in source.rglob(".pluto_dist_*"):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


# Jobs of two nodes, started by hand.


def moment(
    name: str, work: Path, tracker: Tracker, variables: Mapping[str, str], **launch_options: Any
) -> dict[str, Any]:
    """The content of the store at one of :data:`MOMENTS`, and the run as rank 0 reported it."""
    has_agent = name != "rank 0 hosts"
    store = SharedStore() if has_agent else None
    place, port = work / name.replace(" ", "-"), free_port() if store is None else store.port
    with Launch(place, {**SHORT, **variables}, port, has_agent=has_agent, **launch_options) as launch:
        if name in ("rank 0 waits", "rank 0 hosts"):  # the run exists; rank 1 has not started
            reports = [launch.start(0).report()]
            store = store or SharedStore(port)
        elif name == "rank 1 waits":  # rank 0 has not started; no run exists
            reports = []
            launch.start(1)
            wait_until(lambda: any("/inventories/" in key for key in store.values()), store.values)
        else:
            fails = name == "attempt failed"
            ranks = [launch.start(rank, fails=fails and rank == 1) for rank in (0, 1)]
            reports = [rank.report() for rank in ranks]
            wait_until(lambda: are_attached(tracker.details(reports[0]["id"])), "rank 1 did not attach")
            if fails:
                launch.go(1)
                ranks[1].wait()
                ranks[0].kill()
            else:
                launch.go(0, 1)
                assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].output() + ranks[1].output()
        return {"run": reports[0] if reports else None, "values": store.values()}


def resumed_job(work: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """Run a job of one rank with resume; the run as the rank reported it."""
    store = SharedStore()
    with Launch(work, {**SHORT, **variables, "PLUTO_DIST_RESUME": "1"}, store.port, "resumed") as launch:
        rank = launch.start(0, nodes=1)
        report = rank.report()
        launch.go(0)
        assert rank.wait() == 0, rank.output()
    return report


def are_attached(details: Mapping[str, Any]) -> bool:
    """Whether both ranks have sent their create-run requests, and a heartbeat has arrived."""
    return details["attachCount"] == 2 and details["heartbeatAt"] is not None


# The run id of an environment.

WORKER = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
AGENT = {**WORKER, "GROUP_WORLD_SIZE": "2", "TORCHELASTIC_USE_AGENT_STORE": "True"}
ADDRESS = {"MASTER_ADDR": "node-a", "MASTER_PORT": "29400"}
STEP = {"SLURM_CLUSTER_NAME": "lab", "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0"}
TASK = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NODEID": "0", "SLURM_LOCALID": "1"}
NODES = {"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_TASKS_PER_NODE": "2(x2)"}
ENVIRONMENTS = {
    "torchrun, a rendezvous id": {**AGENT, **ADDRESS, "TORCHELASTIC_RUN_ID": "my job/7"},
    "torchrun, a random id": {**AGENT, **ADDRESS, "TORCHELASTIC_RUN_ID": "cc9f1e1c-3a4b-4a53-9d2e-0d5f0f4f6a10"},
    "torchrun, no id": {**AGENT, **ADDRESS, "TORCHELASTIC_RUN_ID": "none"},
    "torchrun, an id in a Slurm job": {**AGENT, **ADDRESS, **STEP, "TORCHELASTIC_RUN_ID": "7"},
    "srun": {**STEP, **TASK, **NODES},
    "srun, a requeued array": {
        **{**STEP, **TASK, **NODES},
        **{"SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "1"},
    },
    "Open MPI": {
        **{"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMIX_NAMESPACE": "prterun-1@1"},
        **{"OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
    },
    "MPICH": {"PMI_RANK": "1", "PMI_SIZE": "2", "PMI_FD": "7", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"},
    "MPICH, in a Slurm job": {"PMI_RANK": "1", "PMI_SIZE": "2", "PMI_FD": "7", "MPI_LOCALRANKID": "1", **STEP},
    "variables": {"RANK": "1", "WORLD_SIZE": "2", **ADDRESS},
    "one process": {},
    "one process, in a SkyPilot task": {"SKYPILOT_TASK_ID": "sky-2026-11-28-10-00-00-000000_cluster_1"},
    "an id of the user's": {**AGENT, **ADDRESS, "TORCHELASTIC_RUN_ID": "none", "PLUTO_RUN_ID": "ablation-7"},
}


def identities(work: Path) -> dict[str, Any]:
    """Run id, rank and store address for each of :data:`ENVIRONMENTS`, without and with resume."""
    work.mkdir(parents=True, exist_ok=True)
    asked = [(name, resume) for name in ENVIRONMENTS for resume in ("--no-resume", "--resume")]
    with ThreadPoolExecutor(4) as pool:
        told = pool.map(lambda each: _identity(work, ENVIRONMENTS[each[0]], each[1]), asked)
        return {f"{name} {resume}": answer for (name, resume), answer in zip(asked, told, strict=True)}


def _identity(work: Path, variables: Mapping[str, str], resume: str) -> dict[str, Any]:
    lines = "".join(f"{name}={value}\n" for name, value in {"HOME": "/home/a", **variables}.items())
    command = [*COMMAND, "explain", "--env", "-", "--json", resume]
    done = subprocess.run(
        command, input=lines, env=environment(work), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    told = json.loads(done.stdout)
    if "error" in told:
        return {"error": told["error"]}
    address = re.search(r"[\w.-]+:\d+", told["meet"])
    names = ("external_id", "launcher", "rank", "world_size")
    return {**{name: told[name] for name in names}, "store": address and address[0]}


# Requests over HTTP.


def logged(tracker: Tracker, run_id: int) -> None:
    """Send metrics, console lines, data, a file, an alert and a graph, as the official SDK does."""
    header = {"X-Run-Id": str(run_id)}
    at = 1_790_000_000_000
    metrics = [{"time": at + n, "step": n, "data": {"train/loss": 1 / (n + 1), "accuracy": n / 10}} for n in range(8)]
    metrics.append({"time": at + 9, "step": 9, "data": {"train/loss": "NaN"}})
    console = [
        {"time": at, "lineNumber": 1, "logType": "INFO", "message": "epoch 1 — ok"},
        {"time": at + 1, "lineNumber": 1, "logType": "ERROR", "message": "a warning"},
    ]
    table = {"time": at, "step": 1, "dataType": "TABLE", "logName": "eval/confusion", "data": "[[1, 2], [3, 4]]"}
    for path, lines in (("metrics", metrics), ("logs", console), ("data", [table])):
        body = "".join(json.dumps(line) + "\n" for line in lines)
        tracker.post(f"/ingest/{path}", data=body.encode(), headers=header)
    names = {"runId": run_id, "logName": ["train/loss", "accuracy"], "logType": "METRIC"}
    tracker.post("/api/runs/logName/add", names)
    alert = {"timestamp": at, "level": "WARN", "title": "loss", "body": "is NaN"}
    tracker.post("/api/runs/alert", {"runId": run_id, "alert": alert})
    graph = {"format": "torch", "nodes": {"fc": {"type": "Linear"}}}
    tracker.post("/api/runs/modelGraph/create", {"runId": run_id, "graph": graph})
    file = {"fileName": "a.txt", "logName": "model/last", "fileSize": 6, "fileType": "txt", "time": at, "step": 1}
    announced = tracker.post("/files", {"files": [file]}, headers=header)
    tracker.put(announced["model/last"][0]["a.txt"], b"weight")


def odd_runs(tracker: Tracker) -> None:
    """Create a cancelled run and a fork of it, in a project whose name needs escaping."""
    body = {"runName": "ö <b>", "projectName": ODD_PROJECT, "externalId": "exp/1", "tags": ["x y"], "config": "{}"}
    parent = tracker.post("/api/runs/create", body)["runId"]
    tracker.post("/api/runs/status/update", {"runId": parent, "status": "CANCELLED"})
    fork = {"runName": "fork", "projectName": ODD_PROJECT, "forkRunId": parent, "forkStep": 2}
    tracker.post("/api/runs/create", fork | {"createdAt": 1_780_000_000_000})


def answers(tracker: Tracker) -> dict[str, Any]:
    """The tracker's answers about everything in its database, by path."""
    paths = ["/api/runs/projects"]
    for project in tracker.get("/api/runs/projects")["projects"]:
        query = f"projectName={quote(project['name'], safe='')}"
        paths += [f"/api/runs/list?{query}&limit=200", f"/api/runs/metric-names?{query}"]
        listed = tracker.get("/api/runs/list", projectName=project["name"], limit=200)["runs"]
        paths += [f"/api/runs/details/{each['id']}" for each in listed]
    one = "projectName=digits&runId=1"
    paths += [f"/api/runs/{name}?{one}" for name in ("metrics", "logs", "data", "files", "statistics")]
    return {path: without_address(tracker.get(path), tracker.url) for path in paths}


def without_address(value: Any, url: str) -> Any:
    """``value`` with ``{url}`` for the tracker's address, and without the signatures in addresses of files."""
    text = json.dumps(value).replace(url, "{url}")
    return json.loads(re.sub(r"(\{url\}/files/\d+)\?[^\"]*", r"\1", text))


# The whole recording.


def run(command: Sequence[str], environ: Mapping[str, str], folder: Path, code: int = 0) -> str:
    """Run a command to its end; its output."""
    process = subprocess.Popen(
        command, env=environ, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        output = process.communicate(timeout=SECONDS)[0].decode(errors="replace")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == code, output
    return output


def script(folder: Path, name: str, source: str) -> str:
    """The path of a file with ``source`` in it."""
    file = folder / f"{name}.py"
    file.write_text(source)
    return str(file)


def in_one_file(database: Path) -> None:
    """Compact the database, and merge its write-ahead log into it."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA page_size = 1024")
        connection.execute("VACUUM")
        connection.execute("PRAGMA journal_mode = WAL")


def record(target: Path, work: Path, hosts: Sequence[str]) -> None:
    """Record everything in ``target``; the jobs run below ``work``."""
    target.mkdir(parents=True)
    launch_options = two_hosts(work, hosts) if hosts else {}
    database, store = target / "tracker.db", {}
    with LocalServer(db=database, api_key=KEY) as server, closing(Tracker(server.url, KEY)) as tracker:
        variables = server.environ()
        completed_job(work / "completed", variables)
        logged(tracker, 1)
        keep_notes(restarted_job(work / "restarted", variables), target / "launch_folder" / "torchrun")
        keep_notes(failed_job(work / "failed", variables), target / "launch_folder" / "pluto-dist_run")
        for name in MOMENTS:
            store[name] = moment(name, work, tracker, variables, **launch_options)
        resumed_job(work / "resumed", variables)
        odd_runs(tracker)
        spool = offline_jobs(work / "offline")
        cut_off = outage(work / "outage", tracker, variables)
    (work / "outage" / "gone").touch()
    assert cut_off.wait(SECONDS) == 0
    shutil.copytree(spool, target / "spool", ignore=shutil.ignore_patterns(".lock"))
    with LocalServer(db=database, api_key=KEY) as server, closing(Tracker(server.url, KEY)) as tracker:
        write_json(target / "answers.json", answers(tracker))
    write_json(target / "store.json", store)
    write_json(target / "identities.json", identities(work / "identities"))
    in_one_file(database)


def two_hosts(work: Path, hosts: Sequence[str]) -> dict[str, Any]:
    """Options of :class:`Launch`: a host name for each node, and two GPUs each with different drivers."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from fakenvml.build import compile_fake, write_profile
    from fakenvml.build import environ as fake_variables

    library = compile_fake(work / "nvidia")
    drivers = ("550.54.15", "535.104.05")
    variables = {}
    for node, driver in enumerate(drivers):
        uuids = [f"dev.{n}.uuid=GPU-{node}0000000-0000-0000-0000-00000000000{n}" for n in range(2)]
        profile = write_profile(work / f"node{node}.profile", "h100", "count=2", f"driver={driver}", *uuids)
        variables[node] = fake_variables(library, profile, work / "calls.log")
    return {"host_of": dict(enumerate(hosts)), "of_node": variables}


def write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Record what this version of pluto_dist writes.")
    parser.add_argument("folder", type=Path, help="a folder that does not exist")
    parser.add_argument("--hosts", nargs=2, default=(), metavar="HOST", help="names of the two nodes; needs root")
    parser.add_argument("--work", type=Path, help="where the jobs run; must not exist  [default: a temporary folder]")
    asked = parser.parse_args()
    os.environ["RES_OPTIONS"] = "attempts:0"  # see by_hand.environment
    target = asked.folder.absolute()
    work = Path(tempfile.mkdtemp(prefix="record-")) if asked.work is None else asked.work
    work.mkdir(parents=True, exist_ok=True)
    try:
        record(target, work, asked.hosts)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
