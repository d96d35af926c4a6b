"""`pluto-dist sync`: many jobs, several senders, a tracker that flaps; and outages that end, or do not, in mid-run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from cluster import Cluster
from faults import FaultyTracker, faulty_tracker
from offline import SYNC, ended, kept, spool_of, start_sync, sync
from running import Torchrun, Tracker
from two_hosts import Host, ask

from hosted.columns import TrackerClass

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers]

JOBS = """
import os, signal, sys, pluto_dist
first, count = int(sys.argv[1]), int(sys.argv[2])
for n in range(first, first + count):
    how = ("COMPLETED", "FAILED", "none")[n % 3]
    try:
        with pluto_dist.init(project="kept", name=f"job {n}", run_id=f"job-{n}", config={"n": n, "first": True}) as run:
            run.update_config({"first": False})
            if how == "FAILED":
                raise ValueError(f"job {n} failed")
            if how == "none" and n + 1 == first + count:
                os.kill(os.getpid(), signal.SIGKILL)
    except ValueError:
        pass
"""


@pytest.fixture
def tracker(tracker_class: TrackerClass) -> Iterator[FaultyTracker]:
    with faulty_tracker(tracker_class) as faulty:
        yield faulty


@pytest.fixture
def environ(tracker: FaultyTracker, tmp_path: Path) -> dict[str, str]:
    return {**tracker.environ(tmp_path / "authority.pem"), "PLUTO_DIR": str(tmp_path / "state")}


def all_runs(tracker: FaultyTracker, project: str) -> list[dict[str, Any]]:
    """Every run of a project, whole."""
    key = {"Authorization": f"Bearer {tracker.behind.api_key}"}

    def get(path: str, **params: Any) -> dict[str, Any]:
        answer = requests.get(tracker.behind.url + path, params=params, headers=key, timeout=60)
        answer.raise_for_status()
        return dict(answer.json())

    listed: list[dict[str, Any]] = []
    while True:
        page = get("/api/runs/list", projectName=project, limit=200, offset=len(listed))
        listed += page["runs"]
        if len(listed) >= page["total"]:
            return [Tracker(tracker.behind).run(run["id"]) for run in listed]


@pytest.mark.parametrize("jobs", [24, pytest.param(200, marks=pytest.mark.exhaustive)])
@pytest.mark.timeout(400)
def test_many_jobs_and_four_senders(tracker: FaultyTracker, environ: dict[str, str], tmp_path: Path, jobs: int):
    """Every job is one run with its config and its end; none is there twice; one sender is killed on the way."""
    script, each = tmp_path / "jobs.py", jobs // 4
    script.write_text(JOBS)
    offline = {**os.environ, **environ, "PLUTO_DIST_MODE": "offline"}
    makers = [
        subprocess.Popen(
            [sys.executable, str(script), str(n * each), str(each)], env=offline, stderr=subprocess.DEVNULL
        )
        for n in range(4)
    ]
    for maker in makers:
        maker.wait(300)
    assert len(list(spool_of(tmp_path / "state").iterdir())) == jobs
    tracker.fault = "flapping"
    senders = [start_sync(environ, tmp_path / f"sync{n}.log") for n in range(4)]
    until = time.monotonic() + 200
    while len(list(spool_of(tmp_path / "state").iterdir())) > jobs * 3 / 4 and time.monotonic() < until:
        time.sleep(0.02)
    senders[0].send_signal(signal.SIGKILL)
    codes = [sender.wait(300) for sender in senders]
    tracker.fault = ""
    last = sync(environ)
    logs = "\n".join((tmp_path / f"sync{n}.log").read_text() for n in range(4)) + last.stdout + last.stderr
    assert (codes[0], last.returncode) == (-9, 0), logs
    assert kept(tmp_path / "state") == []

    runs = all_runs(tracker, "kept")
    assert Counter(run["externalId"] for run in runs) == Counter(f"job-{n}" for n in range(jobs))
    assert sorted(run["number"] for run in runs) == list(range(1, jobs + 1))
    for run in runs:
        n = run["config"]["n"]
        killed = n % 3 == 2 and (n + 1) % each == 0
        wanted = "RUNNING" if killed else ("COMPLETED", "FAILED", "COMPLETED")[n % 3]
        assert (run["name"], run["config"]["first"], run["status"]) == (f"job {n}", False, wanted), run
        assert len(run["config"]["pluto_dist"]["attempts"]) == 1
    assert tracker.behind.api_key not in logs
    sent = logs.count(": sent as ")
    print(logs)
    print(f"{jobs} jobs: {len(runs)} runs; {sent} sent lines, {Counter(run['status'] for run in runs)}; {codes}")


def offline_job(environ: dict[str, str], folder: Path, **variables: str) -> None:
    """One run that no tracker hears of."""
    source = "import pluto_dist\nwith pluto_dist.init(project='one', name='n', config={'a': 1}): pass\n"
    merged = {**os.environ, **environ, "PLUTO_DIST_MODE": "offline", **variables}
    subprocess.run([sys.executable, "-c", source], env=merged, cwd=folder, check=True, capture_output=True, timeout=60)


def test_a_dry_run_asks_nobody(tracker: FaultyTracker, environ: dict[str, str], tmp_path: Path):
    """It names every run, its requests and its end, and leaves them where they are."""
    offline_job(environ, tmp_path)
    before = kept(tmp_path / "state")
    shown = sync(environ, "--dry-run")
    assert shown.returncode == 0
    assert "one/" in shown.stdout
    assert "2 requests, COMPLETED" in shown.stdout
    assert (kept(tmp_path / "state"), tracker.asked) == (before, 0)


def test_a_key_of_another_tracker_is_not_sent(tracker: FaultyTracker, environ: dict[str, str], tmp_path: Path):
    """A run for one tracker stays where it is while the environment names another; --to says otherwise."""
    offline_job(environ, tmp_path, PLUTO_URL_API="http://127.0.0.1:9")
    refused = sync(environ)
    assert refused.returncode == 1
    assert "no key of one tracker goes to another" in refused.stderr
    assert (len(kept(tmp_path / "state")), tracker.asked) == (2, 0)
    moved = sync(environ, "--to", tracker.url)
    assert moved.returncode == 0, moved.stderr
    (run,) = all_runs(tracker, "one")
    assert ended(run) == ["RUNNING", "COMPLETED"]


def test_sync_without_a_key(environ: dict[str, str], tmp_path: Path):
    offline_job(environ, tmp_path)
    done = sync({**environ, "PLUTO_API_KEY": ""})
    assert done.returncode == 1
    assert "no API key" in done.stderr


def test_nothing_is_kept(environ: dict[str, str]):
    done = sync(environ)
    assert (done.returncode, done.stdout.strip()) == (0, "nothing is kept")


def test_a_wrong_key_keeps_everything(environ: dict[str, str], tmp_path: Path):
    """Nothing is lost over a key that is refused; with the right one it is sent."""
    offline_job(environ, tmp_path)
    wrong = sync({**environ, "PLUTO_API_KEY": "mlps_wrong"})
    assert wrong.returncode == 1
    assert "refused the API key" in wrong.stderr
    assert "mlps_wrong" not in wrong.stdout + wrong.stderr
    assert sync(environ).returncode == 0


def test_a_request_that_is_refused_is_set_aside(tracker: FaultyTracker, environ: dict[str, str], tmp_path: Path):
    """What the tracker will never take is put aside with its reason; it does not hold up the rest."""
    offline_job(environ, tmp_path)
    files = kept(tmp_path / "state")
    create = next(file for file in files if '"kind": "create"' in file.read_text())
    create.write_text(create.read_text().replace('"runName": "n"', '"runName": "n", "tags": ["group:a", "group:b"]'))
    offline_job(environ, tmp_path)
    done = sync(environ)
    assert done.returncode == 1
    assert "at most one group:* tag" in done.stdout + done.stderr
    assert [run["status"] for run in all_runs(tracker, "one")] == ["COMPLETED"]
    assert any("set-aside" in str(file) for file in spool_of(tmp_path / "state").rglob("*.json"))


def test_an_interrupted_sync(tracker: FaultyTracker, environ: dict[str, str], tmp_path: Path):
    """Ctrl-C ends it within 5 s, also while the tracker stalls; nothing is lost."""
    offline_job(environ, tmp_path)
    tracker.fault = "accepts and stalls"
    process = subprocess.Popen(SYNC, env={**os.environ, **environ}, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    until = time.monotonic() + 30
    while tracker.asked == 0 and time.monotonic() < until:
        time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    tracker.fault = ""
    assert len(kept(tmp_path / "state")) == 2
    assert sync(environ).returncode == 0


LONG = """
import os, pathlib, time, torch, torch.distributed as dist, pluto_dist
from reporting import report
here = pathlib.Path(os.environ["REPORTS"])
dist.init_process_group("gloo")
run = pluto_dist.init(project="away", name="ddp", config={"lr": 0.1})
(here / "joined").touch()
steps, total = torch.zeros(1), torch.ones(1)
while not (here / "done").exists() or steps < 200:
    dist.all_reduce(total, op=dist.ReduceOp.MAX)
    steps += 1
    if steps % 50 == 0 and steps <= 500:
        run.update_config({"steps": {str(int(steps)): True}})
    time.sleep(0.01)
    more = torch.tensor([float(not (here / "done").exists())])
    dist.all_reduce(more, op=dist.ReduceOp.MAX)
    if not more and steps >= 200:
        break
until = time.monotonic() + 30
while run.mode != "online" and time.monotonic() < until:  # two ranks may both keep the run, and take turns
    time.sleep(0.1)
report(run, steps=steps.item())
run.finish()
dist.destroy_process_group()
"""


def wait_for(file: Path) -> None:
    until = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < until, file
        time.sleep(0.02)


@pytest.mark.parametrize("seconds", [4, pytest.param(120, marks=pytest.mark.exhaustive)])
@pytest.mark.timeout(300)
def test_a_tracker_that_is_away_for_a_while(
    torchrun: Torchrun, tracker: FaultyTracker, environ: dict[str, str], tmp_path: Path, seconds: int
):
    """It dies in mid-run and comes back: the run is whole at the end of the job, without a sync."""
    process = torchrun.start(LONG, environ={**environ, "PLUTO_DIST_HEARTBEAT": "0.5"})
    wait_for(torchrun.folder / "reports0" / "joined")
    tracker.fault = "refuses"
    time.sleep(seconds)
    tracker.fault = ""
    time.sleep(2)
    (torchrun.folder / "reports0" / "done").touch()
    job = torchrun.finish(process)
    assert job.returncode == 0, job.output
    (run,) = Tracker(tracker.behind).runs("away")
    assert ended(run) == ["RUNNING", "COMPLETED"]
    steps = int(job.reports[0]["steps"])
    assert set(run["config"]["steps"]) == {str(n) for n in range(50, min(steps, 500) + 1, 50)}
    assert kept(tmp_path / "state") == []
    print(f"away for {seconds} s of {steps} steps: {len(run['config']['steps'])} changes of the config, {ended(run)}")


@pytest.mark.parametrize("launcher", ["torchrun", "pluto-dist run"])
@pytest.mark.exhaustive
def test_a_tracker_that_appears_after_the_job_started(
    torchrun: Torchrun, tracker: FaultyTracker, environ: dict[str, str], tmp_path: Path, launcher: str
):
    """The job begins offline and is in its run soon after the tracker is there; all ranks attach."""
    tracker.fault = "refuses"
    quick = {**environ, "PLUTO_DIST_TIMEOUT": "5", "PLUTO_DIST_HEARTBEAT": "0.5"}
    if launcher == "torchrun":
        process = torchrun.start(LONG, environ=quick)
    else:
        cli = [
            sys.executable,
            "-c",
            "from pluto_dist.cli import main; main()",
            "run",
            "--project=away",
            "--nproc-per-node=2",
        ]
        process = torchrun.start_command([*cli, torchrun.write(LONG)], quick)
    wait_for(torchrun.folder / "reports0" / "joined")
    tracker.fault = ""
    until = time.monotonic() + 60
    while True:
        runs = Tracker(tracker.behind).runs("away")
        if runs and len({each["userAgent"] for each in runs[0]["attaches"]}) == 2 and runs[0]["heartbeatAt"]:
            break
        assert time.monotonic() < until, runs
        time.sleep(0.2)
    (torchrun.folder / "reports0" / "done").touch()
    job = torchrun.finish(process)
    assert job.returncode == 0, job.output
    assert {report["mode"] for report in job.reports} == {"online"}
    assert len({report["id"] for report in job.reports}) == 1
    (run,) = Tracker(tracker.behind).runs("away")
    assert ended(run) == ["RUNNING", "COMPLETED"]
    assert run["systemMetadata"]["cluster"]["world_size"] == 2
    assert kept(tmp_path / "state") == []
    assert job.output.count("the tracker answers") == 1


@pytest.mark.parametrize("launcher", ["torchrun", "pluto-dist run"])
@pytest.mark.parametrize("how", ["ends", "fails"])
@pytest.mark.exhaustive
def test_a_tracker_that_never_appears(
    torchrun: Torchrun, tracker: FaultyTracker, environ: dict[str, str], tmp_path: Path, launcher: str, how: str
):
    """After `sync` the run is there with the inventory, the attempts and the end that the job had."""
    tracker.fault = "refuses"
    patient = {**environ, "PLUTO_DIST_TIMEOUT": "30"}  # a rank that is not connected by then may end the run first
    fail = "import os\nif os.environ['RANK'] == '1': raise ValueError('boom')\n"
    script = f"import pluto_dist\nrun = pluto_dist.init(project='never', name='n')\n{fail if how == 'fails' else ''}"
    if launcher == "torchrun":
        job = torchrun(script, environ=patient)
    else:
        cli = [
            sys.executable,
            "-c",
            "from pluto_dist.cli import main; main()",
            "run",
            "--project=never",
            "--nproc-per-node=2",
        ]
        job = torchrun.finish(torchrun.start_command([*cli, torchrun.write(script)], patient))
    assert (job.returncode == 0) == (how == "ends"), job.output
    assert kept(tmp_path / "state"), job.output
    tracker.fault = ""
    done = sync(environ)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = Tracker(tracker.behind).runs("never")
    assert ended(run) == ["RUNNING", "COMPLETED" if how == "ends" else "FAILED"]
    assert run["systemMetadata"]["cluster"]["world_size"] == 2
    if how == "fails":
        assert "boom" in run["statusMetadata"]["reason"]
        assert run["statusMetadata"]["rank"] == 1
    assert run["createdAt"] < run["statusUpdated"]


REACHES = """
import os, socket, time, pluto_dist
from reporting import report
run = pluto_dist.init(project="half", timeout=12)
report(run, host=socket.gethostname(), leader=run.is_leader)
time.sleep(3)
run.finish()
"""


@pytest.mark.parametrize(
    "leader", [pytest.param(0, marks=pytest.mark.exhaustive), 1], ids=["the leader reaches it", "the leader does not"]
)
@pytest.mark.timeout(240)
def test_two_hosts_of_which_one_reaches_the_tracker(hosts: tuple[Host, Host], tmp_path: Path, leader: int):
    """One run, and all ranks agree that they are in it: the node that reaches the tracker creates it."""
    subprocess.run(
        ["ip", "-n", hosts[0].namespace, "addr", "add", "10.99.0.1/32", "dev", "lo"], check=True, timeout=10
    )  # the other host has no route to it
    key = "mlps_" + "h" * 32
    (tmp_path / "key").write_text(key)
    server = [sys.executable, "-c", "from pluto_dist.cli import main; main()", "server", "--host", "10.99.0.1"]
    server += ["--port", "8000", "--db", str(tmp_path / "tracker.db"), "--api-key-file", str(tmp_path / "key")]
    with (tmp_path / "tracker.log").open("w") as log:
        process = hosts[0].start(server, dict(os.environ), tmp_path, output=log)
    environ = {"PLUTO_API_KEY": key, "PLUTO_URL_API": "http://10.99.0.1:8000", "PLUTO_DIR": str(tmp_path / "state")}
    try:
        cluster = Cluster("half", hosts, tmp_path, {**environ, "PLUTO_DIST_HEARTBEAT": "0.5"}, REACHES)
        for host in (0, 1):
            rank = 0 if host == leader else 1
            where = f"--master-addr={hosts[leader].name}"
            cluster.start(host, "--nnodes=2", f"--node-rank={rank}", where, "--master-port=29500")
        assert cluster.done() == [0, 0], cluster.logs()
        reports = cluster.reports()
        assert len(reports) == 4
        assert {report["mode"] for report in reports} == {"online"}, cluster.logs()
        assert {report["host"] for report in reports if report["leader"]} == {hosts[leader].name}
        (listed,) = ask(hosts[0], environ, "/api/runs/list?projectName=half")["runs"]
        run = ask(hosts[0], environ, f"/api/runs/details/{listed['id']}")
        assert {report["id"] for report in reports} == {run["id"]}
        assert ended(run) == ["RUNNING", "COMPLETED"]
        assert sorted(run["systemMetadata"]["hosts"]) == ["node-a", "node-b"]
        assert kept(tmp_path / "state") == []
    finally:
        process.kill()
        process.wait(10)
