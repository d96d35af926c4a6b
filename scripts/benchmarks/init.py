"""How long `init()` blocks, beside the SDK, bare create-run calls and the bare store.

Every contender runs in the same rounds, on this machine, against the same embedded tracker; the order changes
from round to round. A figure is the median over the rounds, of the slowest rank and of the median rank. Each
round is a launch of its own: ours connects, signs in, agrees and collects the hardware every time. The first
round, in which each process also loads what is still to be imported, is shown apart, as one sample.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests
from measuring import Report, console, load, middle, ms
from ranks import Crew
from rich.table import Table

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SDK_FOLDER, SDK = ROOT / ".venv-sdk", "pluto-ml==0.0.28"
PROJECT = "bench-init"
CONFIG = {
    "lr": 1e-3,
    "batch_size": 64,
    "epochs": 20,
    "model": {"name": "resnet-50", "width": 64, "depth": 50, "dropout": 0.1},
    "data": {"name": "imagenet", "workers": 8, "augment": ["crop", "flip", "color"]},
    "optimizer": {"name": "adamw", "betas": [0.9, 0.999], "weight_decay": 0.01},
}
# The id in the first column names the task in the ranks.
CONTENDERS = {
    "ours": "pluto_dist.init()",
    "sdk": f"SDK {SDK.partition('==')[2]} pluto.init()",
    "post": "each rank posts create-run",
    "alone": "one rank posts alone",
    "store": "the bare store",
}
SDK_RATIO, ALONE_RATIO = 0.1, 1.0
# torch 2.13 asks the name server for the name of every socket that it connects or accepts, loopback included
# (getnameinfo of ::ffff:127.0.0.1, which no /etc/hosts has). One dropped answer of 32 holds every rank up for the
# resolver's 5 s, so the ranks go without a name server; `--resolver` shows what this machine's does to them.
NO_RESOLVER = {"RES_OPTIONS": "attempts:0"}
MIB = 1 << 20


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ranks", default=(1, 4, 16, 32), type=_numbers, metavar="N,N", help="default 1,4,16,32")
    parser.add_argument("--rounds", default=5, type=int, metavar="N", help="after the first (default 5)")
    parser.add_argument(
        "--skip-sdk", action="store_true", help="leave out the SDK, which needs an environment of its own"
    )


def run(
    report: Report,
    ranks: tuple[int, ...] = (1, 4, 16, 32),
    rounds: int = 5,
    *,
    resolver: bool = False,
    skip_sdk: bool = False,
) -> None:
    sdk = None if skip_sdk else _sdk_python()
    with tempfile.TemporaryDirectory(prefix="pluto-dist-bench-") as name:
        folder = Path(name)
        home = folder / "home"
        home.mkdir()
        base = {key: value for key, value in os.environ.items() if not key.startswith(("PLUTO_", "MLOP_"))}
        base |= {"HOME": str(home), "XDG_DATA_HOME": str(home), "OMP_NUM_THREADS": "1"}
        base |= {} if resolver else NO_RESOLVER
        with serving(folder, base) as server:
            for size in ranks:
                _measure(report, server, Setting(folder, {**base, **server.environ}, size, rounds, sdk))


@dataclass
class Server:
    """The embedded tracker as a process of its own."""

    environ: dict[str, str]
    log: Path
    pid: int

    def seen(self) -> Counter[str]:
        """How often each endpoint was asked so far."""
        return Counter(re.findall(r'"(?:GET|POST) ([^ ?"]+)', self.log.read_text()))


@dataclass(frozen=True)
class Setting:
    """What is measured: how many ranks, how often, with which SDK."""

    folder: Path
    environ: Mapping[str, str]
    size: int
    rounds: int
    sdk: Path | None


@dataclass
class Found:
    """What was measured of one contender. The first of each list is the first round's."""

    slowest: list[float] = field(default_factory=list)
    median: list[float] = field(default_factory=list)
    requests: list[Counter[str]] = field(default_factory=list)
    memory: str = ""
    threads: str = ""


def _measure(report: Report, server: Server, setting: Setting) -> None:
    found = {name: Found() for name in CONTENDERS if name != "sdk" or setting.sdk}
    connected: list[float] = []
    began = time.monotonic()
    with ExitStack() as ends:
        crews = _crews(setting, ends)
        ready = time.monotonic() - began
        for turn in range(setting.rounds + 1):
            order = list(found)
            shift = turn % len(order)
            for name in order[shift:] + order[:shift]:
                crew = crews["sdk" if name == "sdk" else "torch"]
                answers = _round(server, crew, name, f"bench-{name}-{setting.size}-{turn}", found[name])
                if name == "store":
                    connected.append(max(answer["connected"] for answer in answers.values()))
    _show(setting, found, connected, ready, time.monotonic() - began)
    _judge(report, setting, found)


def _round(server: Server, crew: Crew, name: str, identity: str, found: Found) -> dict[int, Any]:
    """One round of one contender."""
    is_first, before, seen = not found.slowest, _memory(crew), server.seen()
    only = [0] if name == "alone" else None
    task = "post" if name == "alone" else name
    answers = crew.ask(task, only=only, id=identity, project=PROJECT, config=CONFIG, round=len(found.slowest))
    seconds = [answer["seconds"] for answer in answers.values()]
    found.slowest.append(max(seconds))
    found.median.append(middle(seconds))
    if len({answer.get("run") for answer in answers.values()}) != 1:
        raise RuntimeError(f"{name}: the ranks are in several runs: {answers}")
    if name in ("ours", "sdk"):
        if is_first:
            _note_memory(found, before, _memory(crew))
        crew.ask("finish", id=identity)
        _await_children(crew)
    found.requests.append(server.seen() - seen)
    return answers


def _show(setting: Setting, found: dict[str, Found], connected: list[float], ready: float, total: float) -> None:
    rounds = f"{setting.rounds} rounds in {total:.0f} s ({ready:.0f} s to start)"
    table = Table(
        "blocking time, ms",
        "slowest rank",
        "median rank",
        "lowest-highest",
        "first round",
        "requests a round",
        "MiB added to a rank",
        "threads added",
        title=f"init() on {_ranks(setting)}, {rounds};  load {load()}",
        title_justify="left",
    )
    for name, each in found.items():
        creates, asked = each.requests[-1]["/api/runs/create"], each.requests[-1].total()
        spread = f"{ms(min(each.slowest[1:]))}-{ms(max(each.slowest[1:]))}"
        slowest, median = middle(each.slowest[1:]), middle(each.median[1:])
        counted = f"{creates} create" + f", {asked - creates} other" * (asked > creates)
        times = (ms(slowest), ms(median), spread, ms(each.slowest[0]))
        table.add_row(CONTENDERS[name], *times, counted, each.memory, each.threads)
    console.print(table)
    console.print(f"of the bare store, without opening its client: {ms(middle(connected[1:]))} ms\n")


def _judge(report: Report, setting: Setting, found: dict[str, Found]) -> None:
    ranks = _ranks(setting)
    slowest = {name: middle(each.slowest[1:]) for name, each in found.items()}
    if "sdk" in slowest:
        report.at_most(f"init(), {ranks}: ours / SDK", slowest["ours"] / slowest["sdk"], SDK_RATIO)
        first = found["ours"].slowest[0] / found["sdk"].slowest[0]
        report.at_most(f"init(), {ranks}: ours / SDK, first round alone", first, SDK_RATIO)
    else:
        report.not_measured(f"init(), {ranks}: ours / SDK", SDK_RATIO, "no SDK")
    base = slowest["alone"] + slowest["store"]
    report.at_most(f"init(), {ranks}: ours / (one rank posting alone + store)", slowest["ours"] / base, ALONE_RATIO)


def _crews(setting: Setting, ends: ExitStack) -> dict[str, Crew]:
    """The ranks of this project's environment and those of the SDK's, started together."""
    crews = {"torch": ends.enter_context(Crew(setting.folder, f"torchrun{setting.size}", setting.size))}
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={setting.size}"]
    crews["torch"].start([*torchrun, str(HERE / "init_rank.py")], setting.environ, ROOT)
    if setting.sdk is not None:
        crews["sdk"] = ends.enter_context(Crew(setting.folder, f"sdk{setting.size}", setting.size))
        for rank in range(setting.size):
            own = {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(setting.size),
                "PLUTO_DIR": str(setting.folder),
                "PLUTO_DISABLE_TELEMETRY": "1",  # it would leave this machine
                "PYTHONPATH": "",
            }
            crews["sdk"].start([str(setting.sdk), str(HERE / "sdk_rank.py")], {**setting.environ, **own}, ROOT)
    for crew in crews.values():
        crew.meet(60 + 10 * setting.size)
    return crews


@contextmanager
def serving(folder: Path, base: Mapping[str, str]) -> Iterator[Server]:
    """``pluto-dist server`` on a free port of loopback."""
    env_file, log = folder / "server.env", folder / "server.log"
    command = [sys.executable, "-c", "from pluto_dist.cli import main; main()", "server"]
    options = ["-v", "--port=0", f"--env-file={env_file}", f"--db={folder / 'tracker.db'}"]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, *options], env=base, stderr=output)
        try:
            until = time.monotonic() + 60
            while not env_file.exists():
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"the embedded tracker did not start:\n{log.read_text()}")
                time.sleep(0.05)
            text = env_file.read_text()
            server = Server(dict(re.findall(r"^export (\w+)=(.*)$", text, re.MULTILINE)), log, process.pid)
            _make_project(server)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _make_project(server: Server) -> None:
    body = {"runName": "first", "projectName": PROJECT, "externalId": "bench-first"}
    headers = {"Authorization": f"Bearer {server.environ['PLUTO_API_KEY']}"}
    with requests.Session() as session:
        session.trust_env = False
        url = f"{server.environ['PLUTO_URL_API']}/api/runs/create"
        session.post(url, json=body, headers=headers, timeout=20).raise_for_status()


def _memory(crew: Crew) -> dict[int, tuple[int, int, int]]:
    """Resident bytes, threads and resident bytes of child processes, of each rank."""
    taken = {}
    for rank, pid in crew.pids.items():
        process = psutil.Process(pid)
        children = 0
        for child in process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                children += child.memory_info().rss
        taken[rank] = (process.memory_info().rss, process.num_threads(), children)
    return taken


def _note_memory(found: Found, before: dict[int, tuple[int, int, int]], after: dict[int, tuple[int, int, int]]) -> None:
    rss = [(after[rank][0] - before[rank][0]) / MIB for rank in after]
    threads = [after[rank][1] - before[rank][1] for rank in after]
    found.memory = f"{middle(rss):.1f} (most {max(rss):.1f})"
    found.threads = f"{middle(threads):g} (most {max(threads)})"
    if children := sum(after[rank][2] for rank in after) / MIB:
        found.memory += f" + {children:.0f} in child processes"


def _await_children(crew: Crew, seconds: float = 10) -> None:
    """Wait for the child processes of the ranks (the SDK's uploaders); end those that stay, by their id."""
    until = time.monotonic() + seconds
    while left := [child for pid in crew.pids.values() for child in _children(pid)]:
        if time.monotonic() > until:
            for child in left:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            return
        time.sleep(0.1)


def _children(pid: int) -> list[psutil.Process]:
    running = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE:
                    running.append(child)
    return running


def _sdk_python() -> Path | None:
    """The interpreter of the SDK's environment, which is made where it is missing; ``None`` where it cannot be."""
    python = SDK_FOLDER / "bin" / "python"
    version = "import importlib.metadata as m; print('pluto-ml==' + m.version('pluto-ml'))"
    with suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run([python, "-c", version], check=False, capture_output=True, text=True, timeout=60)
        if found.stdout.strip() == SDK:
            return python
    console.print(f"making {SDK_FOLDER.name} with {SDK} ...")
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", SDK_FOLDER], check=True, timeout=120)
        (SDK_FOLDER / ".gitignore").write_text("*\n")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", SDK]
        subprocess.run(pip, check=True, timeout=300, capture_output=True, text=True)
    except (OSError, subprocess.SubprocessError) as error:
        console.print(f"without the SDK, for it cannot be installed: {getattr(error, 'stderr', None) or error}")
        return None
    return python


def _ranks(setting: Setting) -> str:
    return f"{setting.size} rank" + "s" * (setting.size > 1)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))
