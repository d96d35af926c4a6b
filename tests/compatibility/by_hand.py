"""Starts the ranks of a job by hand, around a torch store that the caller hosts.

Each rank gets the environment variables that torchrun's agent sets for a worker (torch 2.13). A test can therefore
choose which ranks start, which attempt it is, and what the shared store and the node's folder contain beforehand. A
launch has two nodes of one rank each, both on this machine. All files of a job (HOME, state folder, agents' folders)
are below one folder of the caller. Of pluto_dist, only ``init()`` and the ``pluto-dist`` command are used, so this file
works with every version.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import requests

COMMAND = [sys.executable, str(Path(sys.executable).with_name("pluto-dist"))]
PREFIX = "pluto_dist/"  # of this package's keys in the shared store
SECONDS = 90.0  # the longest wait for a process

# On a busy machine two ranks may start many seconds apart; the timeout covers that.
COMMON = {"PLUTO_PROJECT": "by hand", "PLUTO_DIST_TIMEOUT": "60"}
NOT_INHERITED = ("PLUTO_", "MLOP_", "PET_", "TORCHELASTIC_", "TORCH_", "SLURM_", "PMI_", "OMPI_", "XDG_", "MASTER_")
WORKER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE")

RANK = """
import json, os, time
from pathlib import Path
import pluto_dist

report = Path(os.environ["REPORT"])
with pluto_dist.init(name="two nodes", config={"lr": 0.1}, tags=["gloo"]) as run:
    names = ("run_id", "id", "number", "display_id", "project", "resumed", "mode", "rank", "world_size")
    draft = report.with_suffix(".draft")
    draft.write_text(json.dumps({name: getattr(run, name) for name in names}))
    draft.rename(report)
    while not Path(os.environ["GO"]).exists():
        time.sleep(0.01)
    if os.environ["FAILS"] == "1":
        raise ValueError("boom")
"""


def environment(folder: Path, *more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without the variables of launchers and of pluto_dist; HOME is ``folder``."""
    dropped = (*WORKER_VARIABLES, "CUDA_VISIBLE_DEVICES")
    kept = {name: value for name, value in os.environ.items() if not name.startswith((*NOT_INHERITED, *dropped))}
    # torch 2.13 resolves the host name of each socket, which takes 5 s if no name server answers.
    own = {"HOME": str(folder), "OMP_NUM_THREADS": "1", "RES_OPTIONS": "attempts:0"}
    merged = {**kept, **own, "XDG_STATE_HOME": str(folder / "state")}
    for variables in more:
        merged.update(variables)
    return merged


def wait_until(condition: Callable[[], bool], what: object, seconds: float = SECONDS) -> None:
    """Return once ``condition`` holds; fail with ``what`` after ``seconds``."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what() if callable(what) else what
        time.sleep(0.02)


def free_port() -> int:
    """A free TCP port on loopback."""
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class SharedStore:
    """A torch store: one on a free port of this machine, as torchrun's agent hosts it, or the one at ``port``."""

    def __init__(self, port: int = 0) -> None:
        from torch.distributed import TCPStore

        timeout = timedelta(seconds=SECONDS)
        self._store = TCPStore("127.0.0.1", port, None, not port, timeout, wait_for_workers=False)
        self.port = int(self._store.port)

    def fill(self, values: Mapping[str, str]) -> None:
        """Set the keys of this package to ``values``."""
        for key, value in values.items():
            self._store.set(PREFIX + key, value)

    def values(self) -> dict[str, str]:
        """All keys of this package with their values, without the package's prefix."""
        found = sorted(key for key in self._store.list_keys() if key.startswith(PREFIX))
        return {key.removeprefix(PREFIX): self._store.get(key).decode() for key in found}


@dataclass
class Rank:
    """One started rank."""

    process: subprocess.Popen[bytes]
    report_file: Path
    log: Path

    def report(self, seconds: float = SECONDS) -> dict[str, Any]:
        """The properties of the run in this rank, after its ``init()`` returned."""

        def is_there() -> bool:
            assert self.process.poll() is None or self.report_file.exists(), self.output()
            return self.report_file.exists()

        wait_until(is_there, self.output, seconds)
        return dict(json.loads(self.report_file.read_text()))

    def wait(self, seconds: float = SECONDS) -> int:
        """The exit code."""
        return self.process.wait(seconds)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(SECONDS)

    def output(self) -> str:
        return self.log.read_text()


@dataclass
class Launch:
    """One launch of two nodes with one rank each; a context manager that leaves no process behind.

    Attributes:
        folder: below it lies all that the ranks write; made if it does not exist.
        variables: environment variables of all ranks, such as the tracker's address.
        port: port of the store that the ranks share.
        rendezvous_id: torchrun's rendezvous id.
        has_agent: True if torchrun's agent hosts the store; False if the ranks have no agent and rank 0 hosts it.
        of_node: additional variables by node.
        host_of: host names by node, which need root; the machine's own name for other nodes.
    """

    folder: Path
    variables: Mapping[str, str]
    port: int
    rendezvous_id: str = "two-nodes"
    has_agent: bool = True
    of_node: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    host_of: Mapping[int, str] = field(default_factory=dict)
    started: list[Rank] = field(default_factory=list)

    def agent_folder(self, node: int) -> Path:
        """The private folder of a node's agent, in which the node keeps its state between attempts."""
        made = self.folder / f"node{node}" / f"{self.rendezvous_id}_x"
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
        return made

    def start(self, rank: int, *, attempt: int = 0, nodes: int = 2, fails: bool = False) -> Rank:
        """Start the rank of node ``rank``; ``attempt`` is its agent's restart count."""
        name = f"rank{rank}-{len(self.started)}"
        own = {
            "RANK": str(rank),
            "WORLD_SIZE": str(nodes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
            "REPORT": str(self.folder / f"{name}.json"),
            "GO": str(self.folder / f"go{rank}"),
            "FAILS": str(int(fails)),
        }
        if self.has_agent:
            own |= self._of_agent(rank, attempt, nodes)
        script = self.folder / "rank.py"
        if not self.started:
            script.write_text(RANK)
        command = [sys.executable, str(script)]
        if rank in self.host_of:
            command = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.host_of[rank], *command]
        environ = environment(self.folder, COMMON, self.variables, self.of_node.get(rank, {}), own)
        log = self.folder / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(command, env=environ, cwd=self.folder, stdout=out, stderr=out)
        self.started.append(Rank(process, self.folder / f"{name}.json", log))
        return self.started[-1]

    def _of_agent(self, rank: int, attempt: int, nodes: int) -> dict[str, str]:
        worker = self.agent_folder(rank) / f"attempt_{attempt}" / "0"
        worker.mkdir(parents=True, exist_ok=True)
        return {
            "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": "1",
            "GROUP_RANK": str(rank),
            "GROUP_WORLD_SIZE": str(nodes),
            "TORCHELASTIC_RUN_ID": self.rendezvous_id,
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": str(attempt),
            "TORCHELASTIC_MAX_RESTARTS": "2",
            "TORCHELASTIC_ERROR_FILE": str(worker / "error.json"),
        }

    def go(self, *ranks: int) -> None:
        """Let these ranks leave their run: they end, or raise if started with ``fails``."""
        for rank in ranks:
            (self.folder / f"go{rank}").touch()

    def __enter__(self) -> Launch:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for rank in self.started:
            rank.kill()


class Tracker:
    """An HTTP client of a tracker."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {key}"

    def get(self, path: str, **query: object) -> Any:
        """The JSON of an answer."""
        return self.text(path, **query).json()

    def text(self, path: str, **query: object) -> requests.Response:
        """An answer of any type; ``path`` may be a whole address."""
        address = path if path.startswith("http") else self.url + path
        answer = self._session.get(address, params=query, timeout=20)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        """The JSON of an answer, or its text."""
        content = options if "data" in options else {"json": body, **options}
        answer = self._session.post(self.url + path, timeout=20, **content)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json() if "json" in answer.headers["content-type"] else answer.text

    def put(self, address: str, content: bytes) -> None:
        assert self._session.put(address, data=content, timeout=20).status_code == 200

    def details(self, run: int) -> dict[str, Any]:
        return dict(self.get(f"/api/runs/details/{run}"))

    def runs(self, project: str) -> list[dict[str, Any]]:
        """The details of all runs of a project, oldest first."""
        listed = self.get("/api/runs/list", projectName=project, limit=200)["runs"]
        return [self.details(run["id"]) for run in reversed(listed)]

    def close(self) -> None:
        self._session.close()
