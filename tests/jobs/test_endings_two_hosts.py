"""Two launchers, one truth: how a job on two hosts ended, told once and alike on both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import C10D, Cluster
from two_hosts import ask

from hosted.tracker import HostedTracker

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers, pytest.mark.timeout(300)]

LAUNCHER = (sys.executable, "-c", "from pluto_dist.cli import main; main()", "run", "--project=hosts")
WORKER = """
import os, signal, socket, time
from pathlib import Path
from reporting import report

folder = Path(os.environ["REPORTS"])
host, rank, attempt = socket.gethostname(), int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
report(host=host, attempt=attempt, world_size=os.environ["WORLD_SIZE"])
def told(what):
    return (folder / (what + "-" + host + "-" + os.environ["LOCAL_RANK"])).exists()
while not (folder / "done").exists():
    if told("raise"):
        raise ValueError("the cause")
    if told("follow"):
        time.sleep(1)
        raise RuntimeError("Connection closed by peer")
    if told("kill"):
        (folder / ("kill-" + host + "-" + os.environ["LOCAL_RANK"])).unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
"""


TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
INIT = "import pluto_dist\npluto_dist.init(project='hosts')\n"


@pytest.fixture
def cluster(request: pytest.FixtureRequest, hosts, tracker_on_host, tmp_path) -> Iterator[Cluster]:
    """Two hosts whose agents are our launchers, or torchrun where the test asks for `init` or `-m`."""
    way = getattr(request, "param", "run")
    environ = tracker_on_host | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "PLUTO_DIST_HEARTBEAT": "1"}
    worker = INIT + WORKER if way == "init" else WORKER
    made = Cluster(request.node.name, hosts, tmp_path, environ, worker, LAUNCHER if way == "run" else TORCHRUN)
    made.wrapper = ("-m", "pluto_dist", "--project=hosts") if way == "-m" else ()
    yield made
    for agent in made.agents:
        agent.kill()
        agent.wait(10)


def the_run(cluster: Cluster, codes: list[int], seconds: float) -> dict[str, Any]:
    """The job's one run; its row is printed."""
    (listed,) = ask(cluster.hosts[0], cluster.environ, "/api/runs/list?projectName=hosts")["runs"]
    run = cluster.run(listed["id"])
    history = " -> ".join(change["to"] for change in run["statusHistory"])
    cause = {name: value for name, value in (run["statusMetadata"] or {}).items() if name != "traceback"}
    print(f"ROW | {cluster.name} | {history} | {json.dumps(cause)} | exit codes {codes} | {seconds:.1f} s")
    return run


def tell(cluster: Cluster, what: str, host: int, local_rank: int) -> None:
    (cluster.folder / "reports" / f"{what}-{cluster.hosts[host].name}-{local_rank}").touch()


def ended(cluster: Cluster, agents: list[subprocess.Popen[str]]) -> tuple[list[int], float]:
    began = time.monotonic()
    for agent in agents:
        agent.wait(90)
    return [agent.returncode for agent in agents], time.monotonic() - began


def start(cluster: Cluster, rendezvous: str, *options: str) -> list[subprocess.Popen[str]]:
    """A launcher on each host; its four workers have reported, and have had their turns to attach."""
    agents = [cluster.start(host, *C10D, *options, rendezvous) for host in (0, 1)]
    cluster.wait(lambda reports: len(reports) == 4)
    time.sleep(2)
    return agents


def node_of_rank(cluster: Cluster, rank: int) -> int:
    """The number of the host that rank is on: a rendezvous numbers its nodes as it likes."""
    (host,) = {report["host"] for report in cluster.reports() if report["rank"] == rank}
    return [each.name for each in cluster.hosts].index(host)


@pytest.mark.exhaustive  # the next one is this one with another clock
def test_the_root_cause_is_the_first_failure_of_all_nodes(cluster, rendezvous):
    """The second node's rank fails first, the first node's a second later of it: both name the second node's."""
    agents = start(cluster, rendezvous, "--nnodes=2", "--max-restarts=0")
    second = node_of_rank(cluster, 3)
    tell(cluster, "follow", 1 - second, 0)
    tell(cluster, "raise", second, 1)
    codes, seconds = ended(cluster, agents)
    run = the_run(cluster, codes, seconds)
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "FAILED"], cluster.logs()
    cause = run["statusMetadata"]
    assert (cause["rank"], cause["host"]) == (3, cluster.hosts[second].name)
    assert cause["reason"] == "ValueError: the cause"
    assert 'raise ValueError("the cause")' in cause["traceback"]
    for log in cluster.folder.glob("agent*.log"):
        assert f"rank 3 on {cluster.hosts[second].name}: ValueError: the cause" in log.read_text(), log.read_text()
    assert all(codes)


AHEAD = """
import time
now, now_ns = time.time, time.time_ns
time.time, time.time_ns = lambda: now() + 300, lambda: now_ns() + 300 * 10**9
"""


@pytest.mark.parametrize("what", ["raise", pytest.param("kill", marks=pytest.mark.exhaustive)])
def test_the_root_cause_is_on_a_node_whose_clock_is_ahead(cluster, rendezvous, what):
    """The order of failures comes from no clock of a node: the second host's is 300 s ahead, and it fails first."""
    clock = cluster.folder / "clock"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(AHEAD)
    environ = cluster.environ
    agents = [cluster.start(0, *C10D, "--nnodes=2", "--max-restarts=0", rendezvous)]
    cluster.environ = environ | {"PYTHONPATH": f"{clock}:{Path(__file__).parent}"}
    agents.append(cluster.start(1, *C10D, "--nnodes=2", "--max-restarts=0", rendezvous))
    cluster.environ = environ
    cluster.wait(lambda reports: len(reports) == 4)
    time.sleep(2)
    tell(cluster, "follow", 0, 0)  # a second later
    tell(cluster, what, 1, 1)
    codes, seconds = ended(cluster, agents)
    run = the_run(cluster, codes, seconds)
    cause = run["statusMetadata"]
    assert (run["status"], cause["host"]) == ("FAILED", cluster.hosts[1].name), cluster.logs()
    assert cause["reason"].startswith("ValueError: the cause" if what == "raise" else "killed by SIGKILL")


EVERY_WAY = pytest.mark.parametrize("cluster", ["run", "-m", "init"], indirect=True)


@pytest.mark.exhaustive
@EVERY_WAY
def test_a_node_is_lost(cluster, rendezvous):
    """The node of rank 0 is gone with its agent; the other one restarts, and the run ends with it."""
    agents = start(cluster, rendezvous, "--nnodes=1:2", "--max-restarts=3")
    first = node_of_rank(cluster, 0)
    lost = time.time()
    cluster.lose(agents[first])
    tell(cluster, "kill", 1 - first, 0)
    cluster.wait(lambda reports: sum(r["world_size"] == "2" for r in reports) == 2)
    time.sleep(2)
    codes = cluster.done()
    run = the_run(cluster, codes, time.time() - lost)
    assert codes[1 - first] == 0, cluster.logs()
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "COMPLETED"]


@pytest.mark.exhaustive
@EVERY_WAY
def test_a_worker_is_killed(cluster, rendezvous):
    """A restart on both nodes keeps the run, and no status is told between."""
    start(cluster, rendezvous, "--nnodes=2", "--max-restarts=3")
    began = time.time()
    tell(cluster, "kill", 1, 0)
    cluster.wait(lambda reports: len(reports) == 8)
    time.sleep(2)
    codes = cluster.done()
    run = the_run(cluster, codes, time.time() - began)
    assert codes == [0, 0], cluster.logs()
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "COMPLETED"]


@pytest.mark.exhaustive
def test_a_cancel_reaches_every_node(cluster, rendezvous):
    """Cancelled in the tracker: the launchers of both hosts stop with the exit code of a cancel."""
    agents = start(cluster, rendezvous, "--nnodes=2", "--max-restarts=3")
    (listed,) = ask(cluster.hosts[0], cluster.environ, "/api/runs/list?projectName=hosts")["runs"]
    code = (
        "import os, sys, requests\n"
        "key = {'Authorization': 'Bearer ' + os.environ['PLUTO_API_KEY']}\n"
        "url = os.environ['PLUTO_URL_API'] + '/api/runs/status/update'\n"
        "requests.post(url, json={'runId': int(sys.argv[1]), 'status': 'CANCELLED'}, headers=key, timeout=60)\n"
    )
    environ = {**cluster.environ}
    done = cluster.hosts[0].start([sys.executable, "-c", code, str(listed["id"])], environ, cluster.folder)
    done.communicate(timeout=30)
    codes, seconds = ended(cluster, agents)
    run = the_run(cluster, codes, seconds)
    assert codes == [77, 77], cluster.logs()
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "CANCELLED"]
    assert seconds < 45


def signs_of_life(cluster: Cluster) -> list[str]:
    """Who sent the heartbeats so far, by address and port, in order."""
    lines = (cluster.folder / "tracker.log").read_text().splitlines()
    return [line.split(" ")[0] for line in lines if '"POST /api/runs/trigger ' in line]


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
def test_heartbeats_of_a_job(cluster, rendezvous, tracker_class):
    """Eight ranks on two hosts: one sender; with its node lost the other one beats, and no gap comes near 150 s.

    The hosted tracker shows no heartbeats, so there the other node sends one now and then.

    HEARTBEAT_SECONDS in the environment makes the first part longer than its 20 s.
    """
    seconds, interval = float(os.environ.get("HEARTBEAT_SECONDS", "20")), 2.0
    cluster.environ["PLUTO_DIST_HEARTBEAT"] = str(interval)
    options = (*C10D, "--nnodes=1:2", "--max-restarts=3", "--nproc-per-node=4", rendezvous)
    agents = [cluster.start(host, *options) for host in (0, 1)]
    cluster.wait(lambda reports: len(reports) == 8)
    before = len(signs_of_life(cluster))
    time.sleep(seconds)
    sent = signs_of_life(cluster)[before:]
    first = node_of_rank(cluster, 0)
    cluster.lose(agents[first])
    lost, known = time.monotonic(), len(signs_of_life(cluster))
    while len(signs_of_life(cluster)) == known:
        assert time.monotonic() - lost < 150
        time.sleep(0.1)
    taken_over = time.monotonic() - lost
    tell(cluster, "kill", 1 - first, 0)  # as the collective that hangs on the lost node would end
    gap, last, known = 0.0, time.monotonic(), len(signs_of_life(cluster))
    until = time.monotonic() + 40
    while time.monotonic() < until:
        if len(signs_of_life(cluster)) > known:
            gap, last, known = max(gap, time.monotonic() - last), time.monotonic(), len(signs_of_life(cluster))
        time.sleep(0.1)
    codes = cluster.done()
    print(
        f"ROW | {len(sent)} heartbeats in {seconds:.0f} s, one every {interval:.0f} s, of {len(set(sent))} sender | "
        f"its node lost: another beats after {taken_over:.1f} s | longest gap over the restart {gap:.1f} s"
    )
    assert len(set(sent)) == 1 or tracker_class is HostedTracker
    of_one = max(sent.count(sender) for sender in set(sent))
    assert abs(of_one - seconds / interval) <= 2 + seconds / interval / 20
    assert len(sent) - of_one <= of_one / 2
    assert gap < 30
    assert codes[1 - first] == 0, cluster.logs()
