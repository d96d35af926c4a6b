"""Runs small jobs in which something fails (``failing.py``), several at a time, and says where each run is then."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import failing
from failing import ERRNOS
from offline import spool_of
from running import NO_RESOLVER, Tracker
from training import result_of

from pluto_dist.client.offline import queue
from pluto_dist.client.offline.sync import sync
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.secret import Secret

State = Callable[[Path], AbstractContextManager[dict[str, Any]]]  # of a case's folder; what it changes of the case
PROCESSES = 3  # of the outage most is waiting


@dataclass
class Zygote:
    """A process that has imported torch, and forks a child for each case."""

    process: subprocess.Popen[str]

    def run(self, case: dict[str, Any]) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()
        return int(json.loads(self.process.stdout.readline()))


@dataclass
class Result:
    """What became of one case.

    Attributes:
        where: "tracker", "spool", "told" (a warning says that the run, or its end, is lost), "" without this package,
            or what is wrong.
    """

    scenario: str
    site: str
    error: str
    where: str
    output: str = ""
    name: str = ""
    code: int = 0
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        return self.where in ("tracker", "spool", "told")

    @property
    def training(self) -> tuple[int, str]:
        """The exit code, and the training's result."""
        return self.code, result_of(self.output)


@dataclass
class Table:
    """Runs the cases of a test, several at a time.

    Attributes:
        usual: how many lines of this package a case prints in which nothing fails, by scenario.
        training: the result without this package.
    """

    tracker: Tracker
    folder: Path
    zygotes: SimpleQueue[Zygote] = field(default_factory=SimpleQueue)
    usual: dict[str, int] = field(default_factory=dict)
    training: str = ""
    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def sites(self, scenario: str, fails: str = "file") -> list[str]:
        """What may fail in ``scenario``; the job is as it should be here."""
        result = self.run(scenario, fails=fails)
        assert result.where == ("spool" if scenario == "offline" else "tracker"), result
        self.usual[scenario] = len(said(result.output))
        self.training = self.training or result_of(self.run(scenario, without=True).output)
        files = self.folder.glob(f"{result.name}/sites-*.json")
        found = sorted({site for file in files for site in json.loads(file.read_text())})
        assert len(found) > 2, found
        return found

    def run_all(self, cases: list[dict[str, Any]]) -> list[Result]:
        with ThreadPoolExecutor(PROCESSES) as pool:
            return list(pool.map(lambda case: self.run(**case), cases))

    def run(
        self,
        scenario: str,
        site: str = "",
        error: str = "",
        *,
        fails: str = "file",
        state: State | None = None,
        without: bool = False,
        **more: str,
    ) -> Result:
        """One case: what fails where, or the state that its folder is in; also ``without`` this package."""
        with self.lock:
            self.count += 1
            name = f"{scenario}-{self.count}"
        folder = self.folder / name
        folder.mkdir(mode=0o700)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        own = {"PLUTO_DIR": str(folder / "state"), "TMPDIR": str(folder), "HOME": str(folder)}
        with nullcontext({}) if state is None else state(folder) as changed:
            case = {
                "scenario": scenario, "site": site, "errno": getattr(errno, error, 0), "fails": fails, "project": name,
                "folder": str(folder), "port": port, "environ": own, **more, **changed,
            }  # fmt: skip
            if without:
                case["environ"] = {**case["environ"], "WITHOUT": "1"}
            zygote = self.zygotes.get()
            began = time.monotonic()
            try:
                code = zygote.run(case)
            finally:
                self.zygotes.put(zygote)
            seconds = time.monotonic() - began
        output = (folder / "output").read_text()
        where = "" if without else self._where(case, code, output)
        return Result(scenario, site, error, where, output, name, code, seconds)

    def _where(self, case: dict[str, Any], code: int, output: str) -> str:
        """Where the run of a case is; or what is wrong."""
        if code or "the training is over" not in output or "Traceback" in output:
            return f"exit code {code}"
        if self.training and result_of(output) != self.training:
            return "another result than without this package"
        lost = [line for line in said(output) if "lost" in line or "without a run" in line]
        more = len(said(output)) - self.usual.get(case["scenario"], 9) - ("is lost: neither" in output)
        if more > 1:
            return f"{more} warnings"
        runs = self.tracker.runs(case["project"])
        where = "tracker"
        if not runs or runs[0]["status"] != "COMPLETED":
            self._sync(Path(case["environ"]["PLUTO_DIR"]))
            runs, where = self.tracker.runs(case["project"]), "spool"
        if len(runs) > 1:
            return f"{len(runs)} runs"
        if runs and runs[0]["status"] == "COMPLETED" and (runs[0]["config"].get("loss") == 0.5 or lost):
            return where
        return "told" if lost else "lost" if not runs else runs[0]["status"]

    def _sync(self, state: Path) -> None:
        server = self.tracker.server
        client = TrackerClient(server.url, server.url, Secret(server.api_key), user_agent="sync")
        root = spool_of(state)
        try:
            with suppress(OSError):  # there is no such folder
                list(sync(queue.runs(root), lambda _: client))
        finally:
            client.close()


def said(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("pluto_dist: ")]


@contextmanager
def zygote(environ: dict[str, str]) -> Iterator[Zygote]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PLUTO_", "MLOP_", "PET_"))}
    process = subprocess.Popen(
        [sys.executable, failing.__file__],
        env=kept | NO_RESOLVER | environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield Zygote(process)
    finally:
        process.stdin.close()
        process.wait(70)
        process.stdout.close()


def shown(results: list[Result]) -> str:
    """The table: a line for each site, a letter for each errno (T tracker, S spool, W told, ! wrong)."""
    letters = {"tracker": "T", "spool": "S", "told": "W"}
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for each in results:
        rows.setdefault((each.scenario, each.site), {})[each.error] = letters.get(each.where, "!")
    lines = []
    for (scenario, site), row in rows.items():
        lines.append(f"{scenario:9}{site:62}" + (row.get("") or "".join(row.get(name, ".") for name in ERRNOS)))
    wrong = [f"{r.scenario} {r.site} {r.error}: {r.where}\n{r.output}" for r in results if not r.is_good]
    count = f"{len(results)} cases, {len(rows)} call sites, {len(wrong)} wrong; T tracker, S spool, W told"
    count += f"; errnos: {' '.join(ERRNOS)}"
    return "\n".join([*lines, count, *wrong])
