"""Nodes that fail, leave, come back and join: what becomes of the run, on two hosts, in both store modes.

The worker has no process group: torch 2.13 itself fails to restart gloo on torchrun's shared store, and to let a
node join it (test_where_torch_fails). Each test prints a row, shown by ``pytest -rP``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from two_hosts import Host, ask

pytestmark = [pytest.mark.multiprocess, pytest.mark.timeout(300)]

WORKER = """
import os, signal, socket, time
from pathlib import Path
import pluto_dist
from reporting import report

folder = Path(os.environ["REPORTS"])
run = pluto_dist.init(project="hosts", timeout=60)
names = ("RANK", "WORLD_SIZE", "GROUP_RANK", "TORCHELASTIC_RESTART_COUNT")
report(run, host=socket.gethostname(), **{name.lower(): os.environ[name] for name in names})
mine = folder / ("kill-" + socket.gethostname() + "-" + os.environ["LOCAL_RANK"])
while not (folder / "done").exists():
    if mine.exists():
        mine.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
run.finish()
"""
QUICK = "--rdzv-conf=join_timeout=60,last_call_timeout=3,keep_alive_interval=1,keep_alive_max_attempt=3"
RENDEZVOUS = """
import sys, time
from datetime import timedelta
from torch.distributed import TCPStore
store = TCPStore(sys.argv[1], 29400, None, True, timedelta(seconds=300), wait_for_workers=False)
print("ready", flush=True)
time.sleep(280)
"""


@dataclass
class Cluster:
    """Two hosts, their agents, and what the workers reported."""

    name: str
    hosts: tuple[Host, Host]
    folder: Path
    environ: dict[str, str]
    agents: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "reports").mkdir()
        (self.folder / "worker.py").write_text(WORKER)

    def start(self, host: int, *options: str) -> subprocess.Popen[str]:
        """An agent on a host, with two workers."""
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=3"]
        command = [*torchrun, *options, str(self.folder / "worker.py")]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PLUTO_", "PET_"))}
        own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent), "RES_OPTIONS": "attempts:0"}
        reports = {"REPORTS": str(self.folder / "reports")}
        log = (self.folder / f"agent{len(self.agents)}.log").open("w")
        agent = self.hosts[host].start(command, kept | own | reports | self.environ, self.folder, output=log)
        log.close()
        self.agents.append(agent)
        return agent

    def reports(self) -> list[dict[str, Any]]:
        found = [json.loads(file.read_text()) for file in (self.folder / "reports").glob("*.json")]
        return sorted(found, key=lambda report: report["at"])

    def wait(self, condition: Callable[[list[dict[str, Any]]], bool], seconds: float = 90) -> list[dict[str, Any]]:
        """Until the reports fulfil ``condition``."""
        until = time.monotonic() + seconds
        while not condition(self.reports()):
            assert time.monotonic() < until, f"{self.reports()}\n{self.logs()}"
            time.sleep(0.1)
        return self.reports()

    def kill_worker(self, host: int, local_rank: int) -> None:
        (self.folder / "reports" / f"kill-{self.hosts[host].name}-{local_rank}").touch()

    def lose(self, agent: subprocess.Popen[str]) -> None:
        """A host's agent and all its workers, gone without a word."""
        agent.kill()
        agent.wait(10)

    def done(self) -> list[int]:
        """Let the workers finish; the exit codes of the agents."""
        (self.folder / "reports" / "done").touch()
        for agent in self.agents:
            agent.wait(60)
        return [agent.returncode for agent in self.agents]

    def logs(self) -> str:
        return "\n".join(log.read_text()[-3000:] for log in sorted(self.folder.glob("agent*.log")))


@pytest.fixture(params=["shared", "private"])
def cluster(request: pytest.FixtureRequest, hosts, tracker_on_host, tmp_path) -> Iterator[Cluster]:
    private = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"} if request.param == "private" else {}
    made = Cluster(request.node.name, hosts, tmp_path, tracker_on_host | private)
    yield made
    for agent in made.agents:
        agent.kill()
        agent.wait(10)


@pytest.fixture
def rendezvous(hosts, tmp_path) -> Iterator[str]:
    """A rendezvous store that no agent hosts, as an operator runs it; the options that lead to it."""
    process = hosts[1].start([sys.executable, "-c", RENDEZVOUS, hosts[1].address], dict(os.environ), tmp_path)
    assert process.stdout is not None
    while "ready" not in process.stdout.readline():
        pass
    yield f"--rdzv-endpoint={hosts[1].name}:29400"
    process.kill()
    process.communicate(timeout=10)


def attempts(run: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(run["config"]["pluto_dist"]["attempts"].values(), key=lambda record: record["number"])


def the_one_run(cluster: Cluster) -> dict[str, Any]:
    """The project's only run; every report names it."""
    (listed,) = ask(cluster.hosts[0], cluster.environ, "/api/runs/list?projectName=hosts")["runs"]
    run = ask(cluster.hosts[0], cluster.environ, f"/api/runs/details/{listed['id']}")
    assert {report["id"] for report in cluster.reports()} == {run["id"]}, cluster.reports()
    lived = " -> ".join(f"{'+'.join(record['hosts'])} ({record['world_size']})" for record in attempts(run))
    history = " ".join(change["to"] for change in run["statusHistory"])
    print(f"ROW | {cluster.name} | {lived} | {history} | {run['externalId']}")
    return run


def of_attempt(reports: list[dict[str, Any]], world_size: int, after: float = 0.0) -> list[dict[str, Any]]:
    return [r for r in reports if r["world_size"] == str(world_size) and r["at"] > after]


C10D = ("--rdzv-backend=c10d", "--rdzv-id=none", QUICK)


def test_all_well(cluster, rendezvous):
    """Two nodes, four ranks: one run, one attempt."""
    for host in (0, 1):
        cluster.start(host, *C10D, "--nnodes=2", rendezvous)
    cluster.wait(lambda reports: len(reports) == 4)
    assert cluster.done() == [0, 0], cluster.logs()
    run = the_one_run(cluster)
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "COMPLETED"]
    assert sorted(attempts(run)[0]["hosts"]) == ["node-a", "node-b"]
    assert {report["resumed"] for report in cluster.reports()} == {False}


@pytest.mark.parametrize("victim", [0, 1], ids=["node a", "node b"])
def test_a_worker_is_killed(cluster, rendezvous, victim):
    """All workers start again, in the same run, and know that they resumed."""
    for host in (0, 1):
        cluster.start(host, *C10D, "--nnodes=2", rendezvous)
    check_restart(cluster, victims=[victim])


def test_workers_are_killed_under_static_rendezvous(cluster):
    """A static rendezvous restarts only the node that failed (torch 2.13); with a failure on both it is as above."""
    for host in (0, 1):
        place = ("--master-addr=node-a", "--master-port=29500", f"--node-rank={host}")
        cluster.start(host, *place, "--nnodes=2")
    check_restart(cluster, victims=[0, 1])


def check_restart(cluster: Cluster, victims: list[int]) -> None:
    cluster.wait(lambda reports: len(reports) == 4)
    for victim in victims:
        cluster.kill_worker(victim, 1)
    cluster.wait(lambda reports: len(reports) == 8)
    assert cluster.done() == [0, 0], cluster.logs()
    run = the_one_run(cluster)
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "COMPLETED"]
    assert [record["world_size"] for record in attempts(run)] == [4, 4]
    assert [report["resumed"] for report in cluster.reports()] == [False] * 4 + [True] * 4


PLAIN = """
import os, sys, time
from pathlib import Path
import torch, torch.distributed as dist
from reporting import report
folder = Path(os.environ["REPORTS"])
dist.init_process_group("gloo")
total = torch.ones(1)
dist.all_reduce(total)
report(total=total.item(), world_size=os.environ["WORLD_SIZE"])
mine = folder / ("kill-" + os.uname().nodename + "-" + os.environ["LOCAL_RANK"])
while not (folder / "done").exists():
    if mine.exists():
        mine.unlink()
        os._exit(9)
    time.sleep(0.05)
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize("what", ["a node joins", "a worker is killed"])
def test_where_torch_fails(cluster, rendezvous, what):
    """Without this package: torch 2.13 gets over neither on its shared store, and over both on private ones."""
    (cluster.folder / "worker.py").write_text(PLAIN)
    first = 2 if what == "a node joins" else 4
    options = (*C10D, "--nnodes=1:2" if what == "a node joins" else "--nnodes=2", rendezvous)
    for host in (0, 1)[: first // 2]:
        cluster.start(host, *options)
    cluster.wait(lambda reports: len(reports) == first)
    if what == "a node joins":
        cluster.start(1, *options)
    else:
        cluster.kill_worker(1, 1)
    try:
        cluster.wait(lambda reports: len(reports) == first + 4, seconds=75)
        recovered = True
    except AssertionError:
        recovered = False
    print(f"ROW | torch alone | {cluster.name} | {'recovered' if recovered else 'did not recover in 75 s'}")
    assert recovered == ("private" in cluster.name)


@pytest.mark.parametrize("cluster", ["private"], indirect=True)
def test_a_second_node_joins(cluster, rendezvous):
    """The first node starts again with the second, in the run that it was in.

    On its shared store torch 2.13 cannot let a node join (test_where_torch_fails).
    """
    cluster.start(0, *C10D, "--nnodes=1:2", rendezvous)
    cluster.wait(lambda reports: len(reports) == 2)
    cluster.start(1, *C10D, "--nnodes=1:2", rendezvous)
    cluster.wait(lambda reports: len(of_attempt(reports, 4)) == 4)
    assert cluster.done() == [0, 0], cluster.logs()
    run = the_one_run(cluster)
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "COMPLETED"]
    assert attempts(run)[-1]["joined"] == ["node-b"]
    assert {report["resumed"] for report in of_attempt(cluster.reports(), 4)} == {True}


LOST = pytest.mark.parametrize("lost", [1, 0], ids=["node b", "node a, with rank 0"])


def lose_a_node(cluster: Cluster, rendezvous: str, lost: int) -> float:
    """Two nodes of which one is gone without a word; when the other one was on its own again."""
    agents = [cluster.start(host, *C10D, "--nnodes=1:2", rendezvous) for host in (0, 1)]
    first = cluster.wait(lambda reports: len(of_attempt(reports, 4)) == 4)[-1]["at"]
    cluster.lose(agents[lost])
    cluster.kill_worker(1 - lost, 0)
    cluster.wait(lambda reports: len(of_attempt(reports, 2, after=first)) == 2)
    return time.time()


@LOST
def test_a_node_is_lost(cluster, rendezvous, lost):
    """The other node goes on in the run, also where the lost one hosted the store and was the leader's."""
    alone = lose_a_node(cluster, rendezvous, lost)
    codes = cluster.done()
    assert codes[1 - lost] == 0, cluster.logs()
    run = the_one_run(cluster)
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "COMPLETED"]
    assert [record.get("left") for record in attempts(run)] == [None, [cluster.hosts[lost].name]]
    assert {r["resumed"] for r in cluster.reports() if r["at"] > alone - 10 and r["world_size"] == "2"} == {True}


@LOST
@pytest.mark.parametrize("cluster", ["private"], indirect=True)
def test_a_lost_node_comes_back(cluster, rendezvous, lost):
    """A node that comes instead, with no memory, is in the run too, also where it becomes rank 0.

    On its shared store torch 2.13 cannot let a node join (test_where_torch_fails).
    """
    alone = lose_a_node(cluster, rendezvous, lost)
    cluster.start(lost, *C10D, "--nnodes=1:2", rendezvous)
    cluster.wait(lambda reports: len(of_attempt(reports, 4, after=alone)) == 4)
    codes = cluster.done()
    assert (codes[1 - lost], codes[2]) == (0, 0), cluster.logs()
    run = the_one_run(cluster)
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "COMPLETED"]
    names = [host.name for host in cluster.hosts]
    assert [(r.get("joined"), r.get("left")) for r in attempts(run)][-2:] == [([], [names[lost]]), ([names[lost]], [])]


@pytest.mark.exhaustive
@pytest.mark.parametrize("cluster", ["shared"], indirect=True)
def test_two_stores_that_know_nothing_of_each_other(cluster, rendezvous):
    """A newcomer that becomes rank 0 opens a new shared store, and the old node keeps the old one (torch 2.13).

    No exchange can mend that, and no process group comes up either: the newcomer says so and is a run of its own.
    """
    alone = lose_a_node(cluster, rendezvous, 0)
    cluster.start(0, *C10D, "--nnodes=1:2", rendezvous)
    cluster.wait(lambda reports: sum(r["at"] > alone and r["host"] == "node-a" for r in reports) == 2)
    told = (cluster.folder / "agent2.log").read_text()
    listed = ask(cluster.hosts[0], cluster.environ, "/api/runs/list?projectName=hosts")["runs"]
    print(f"ROW | {cluster.name} | {len(listed)} runs | told: {'its run and this one are two' in told}")
    assert len(listed) == 1 or "its run and this one are two" in told
