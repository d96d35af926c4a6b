"""A tracker to ask, and jobs to start: what the tests of this folder share beside their fixtures."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import requests

from hosted.columns import AnyTracker
from hosted.tracker import HostedTracker
from pluto_dist.server.db.database import ORGANIZATION, Database
from pluto_dist.server.db.run_queries import details
from pluto_dist.server.routes.runs import details_json

# torch 2.13 asks the name server for the name of every socket it connects or accepts, loopback included, and its
# store answers nobody meanwhile: 5 s where no name server answers. These jobs do without one.
NO_RESOLVER = {"RES_OPTIONS": "attempts:0"}
# Before torch 2.12 torchrun on one node has the id "none", or the given one, and port 29500, which is one job's only.
TORCH = tuple(int(number) for number in metadata.version("torch").split("+")[0].split(".")[:2])
RANDOM_ID = TORCH >= (2, 12)
FORWARDED = ("Authorization", "Content-Type", "User-Agent")


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Wait, bounded, until ``condition`` holds; fails with ``what`` if it does not."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def whole(db: Path, shown: dict[str, Any]) -> dict[str, Any]:
    """The details of a run that a tracker shows, and what only its database has: attaches, history, heartbeat."""
    with closing(Database(db)) as database:
        found = details(database, ORGANIZATION, shown["id"])
    assert found is not None
    return details_json(found) | shown


@dataclass
class Tracker:
    """A tracker, asked as anyone may ask it."""

    server: AnyTracker

    def environ(self) -> dict[str, str]:
        return self.server.environ()

    def creates(self) -> list[str]:
        """The access log's lines of create-run calls."""
        return [line for line in self.server.requests() if '"POST /api/runs/create ' in line]

    def log(self) -> list[str]:
        return list(self.server.requests())

    def runs(self, project: str) -> list[dict[str, Any]]:
        """All runs of ``project``, whole, oldest first."""
        listed = self._get("/api/runs/list", projectName=project)["runs"]
        return [self.run(run["id"]) for run in reversed(listed)]

    def run(self, run: int) -> dict[str, Any]:
        """A run as the tracker shows it, and what only its database has."""
        return whole(self.server.db, self._get(f"/api/runs/details/{run}"))

    def cancel(self, run: int, ranks: int = 2) -> None:
        """Cancel a run as the tracker's page does, once all ranks have attached: a later attach would revive it."""
        wait_for(lambda: len(self.run(run)["attaches"]) == ranks, "the attaches")
        if isinstance(self.server, HostedTracker):
            self.server.cancel(run)
        else:
            self.post("/api/runs/status/update", {"runId": run, "status": "CANCELLED"})

    @property
    def cancelled(self) -> list[str]:
        """The history of a run that was cancelled: the hosted tracker has no event for it."""
        return ["RUNNING"] if isinstance(self.server, HostedTracker) else ["RUNNING", "CANCELLED"]

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = requests.post(self.server.url + path, json=body, headers=self._headers(), timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def _get(self, path: str, **params: str) -> dict[str, Any]:
        answer = requests.get(self.server.url + path, params=params, headers=self._headers(), timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.server.api_key}"}


@dataclass
class Job:
    """One job that has ended: what its ranks reported, in order of rank, and what it printed."""

    returncode: int
    reports: list[dict[str, Any]]
    output: str

    def of_rank(self, rank: int) -> list[dict[str, Any]]:
        return [report for report in self.reports if report["rank"] == rank]


@dataclass
class Torchrun:
    """Starts jobs; ends whatever is left of them with the test."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, script: str, *options: str, environ: dict[str, str], nproc: int = 2) -> subprocess.Popen[str]:
        """``torchrun OPTIONS script`` in the background; ``script`` is source text that calls ``report(run)``."""
        torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={nproc}"]
        return self.start_command([*torchrun, *options, self.write(script)], environ)

    def start_command(self, command: list[str], environ: dict[str, str]) -> subprocess.Popen[str]:
        """Any command in the background."""
        process = subprocess.Popen(
            command,
            env=self._environ(len(self.started)) | environ,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def write(self, script: str) -> str:
        """A file with ``script`` in it."""
        path = self.folder / f"script{len(self.started)}.py"
        path.write_text(script)
        return str(path)

    def finish(self, process: subprocess.Popen[str], seconds: float = 120) -> Job:
        output, _ = process.communicate(timeout=seconds)
        folder = self.folder / f"reports{self.started.index(process)}"
        reports = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
        return Job(process.returncode, sorted(reports, key=lambda r: (r["rank"], r["at"])), output)

    def __call__(
        self, script: str, *options: str, environ: dict[str, str], nproc: int = 2, seconds: float = 120
    ) -> Job:
        return self.finish(self.start(script, *options, environ=environ, nproc=nproc), seconds)

    def _environ(self, number: int) -> dict[str, str]:
        reports = self.folder / f"reports{number}"
        reports.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PLUTO_", "MLOP_", "PET_"))}
        return {
            **kept,
            **NO_RESOLVER,
            **({} if RANDOM_ID else {"PET_MASTER_PORT": str(free_port())}),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parent),
            "REPORTS": str(reports),
        }

    def end_all(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.communicate(timeout=40)  # torchrun gives its workers 30 s
                except subprocess.TimeoutExpired:
                    process.kill()
        for left in psutil.process_iter():  # workers, whose agent may have left them behind
            with suppress(psutil.Error):
                if left.environ().get("REPORTS", "").startswith(f"{self.folder}/"):
                    left.kill()
        for process in self.started:
            if process.returncode is None:
                process.communicate(timeout=60)


@dataclass(frozen=True)
class Recorded:
    """One request as it passed the proxy."""

    path: str
    body: dict[str, Any]
