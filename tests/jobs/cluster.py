"""A cluster of two hosts: agents that are started and lost, and what their workers report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from running import whole
from two_hosts import Host, ask

QUICK = "--rdzv-conf=join_timeout=60,last_call_timeout=3,keep_alive_interval=1,keep_alive_max_attempt=3"
C10D = ("--rdzv-backend=c10d", "--rdzv-id=none", QUICK)
RENDEZVOUS = """
import sys, time
from datetime import timedelta
from torch.distributed import TCPStore
store = TCPStore(sys.argv[1], 29400, None, True, timedelta(seconds=900), wait_for_workers=False)
print("ready", flush=True)
time.sleep(900)
"""


@dataclass
class Cluster:
    """Two hosts, their agents, and what the workers reported."""

    name: str
    hosts: tuple[Host, Host]
    folder: Path
    environ: dict[str, str]
    worker: str
    agent: tuple[str, ...] = (sys.executable, "-m", "torch.distributed.run", "--max-restarts=3")
    wrapper: tuple[str, ...] = ()
    agents: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "reports").mkdir()
        (self.folder / "worker.py").write_text(self.worker)

    def start(self, host: int, *options: str) -> subprocess.Popen[str]:
        """An agent on a host, with two workers."""
        command = [*self.agent, "--nproc-per-node=2", *options, *self.wrapper, str(self.folder / "worker.py")]
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

    def run(self, number: int) -> dict[str, Any]:
        """A run as the tracker on the first host shows it, and what only its database has."""
        shown = ask(self.hosts[0], self.environ, f"/api/runs/details/{number}")
        return whole(self.folder / "tracker.db", shown)

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
