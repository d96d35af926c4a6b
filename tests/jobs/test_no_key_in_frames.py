"""The API key is in no local variable of this package, whatever happens: a traceback may show them all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from running import Job, Torchrun, Tracker

import pluto_dist
from client.misbehaving import Exchange, Misbehaving, drip, raw, reply, reset, stall
from server.sdk_venv import python_with_sdk

pytestmark = pytest.mark.multiprocess

WATCHER = Path(__file__).parent / "watched"
CLI = [sys.executable, "-c", "from pluto_dist.cli import main; main()"]
MODULE = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]

TRAIN = """
import torch.distributed as dist, pluto_dist
dist.init_process_group("gloo")
run = pluto_dist.init(project="watched", config={"lr": 0.1})
run.update_config({"more": 1})
run.finish()
dist.destroy_process_group()
"""
SHOWN = """
import io, pluto_dist
from rich.console import Console
from rich.traceback import Traceback
try:
    pluto_dist.init(project="watched", timeout=4%s)
    pluto_dist.init().update_config({"a": object})
    pluto_dist.init().finish()
except Exception as error:
    trace = Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True, locals_max_string=None,
                                     locals_max_length=None)
    Console(width=1000).print(trace)
"""
FAILS = """
import pluto_dist
run = pluto_dist.init(project="watched")
raise RuntimeError("the loss is nan")
"""
SDK = """
import pluto_dist
run = pluto_dist.init(project="watched")
run.attach_sdk().log({"loss": 1.0})
run.finish()
"""


class Watched:
    """Starts jobs whose processes are watched."""

    def __init__(self, torchrun: Torchrun, key: str) -> None:
        self.torchrun, self.key = torchrun, key
        self.reports = torchrun.folder / "watched"
        self.reports.mkdir()
        (self.reports / "key").write_text(key)

    def __call__(self, command: list[str], environ: dict[str, str]) -> Job:
        """The job; fails if a frame had the key, or if the output has it."""
        paths = (WATCHER, Path(__file__).parent, Path(__file__).parents[1], environ.get("PYTHONPATH", ""))
        more = {"PYTHONPATH": os.pathsep.join(map(str, paths)), "WATCHED": str(self.reports)}
        job = self.torchrun.finish(self.torchrun.start_command(command, environ | more), 400)
        lines = [line for file in self.reports.glob("*.txt") for line in file.read_text().splitlines()]
        assert not [line for line in lines if not line.startswith("frames ")], job.output
        assert sum(int(line.split()[1]) for line in lines if line.startswith("frames ")) > 100, job.output
        assert self.key not in job.output
        for file in self.torchrun.folder.rglob("pluto-dist/**/*"):
            assert not file.is_file() or self.key.encode() not in file.read_bytes(), file
        return job


@pytest.fixture
def watched(torchrun: Torchrun, tracker: Tracker) -> Watched:
    return Watched(torchrun, tracker.server.api_key)


@pytest.fixture
def environ(tracker: Tracker, tmp_path: Path) -> dict[str, str]:
    return tracker.environ() | {"PLUTO_DIR": str(tmp_path / "kept")}


def test_the_watcher_finds_a_key(tmp_path: Path):
    """In a dict of all variables, in an attribute of an attribute, and in a frame below that raised."""
    code = f"""
import os
def plain(environ): return len(environ)
class A: pass
def deep(a): return 1
def raising(): secret = os.environ["A_KEY"]; raise ValueError
def catching():
    try: raising()
    except ValueError: return 1
a = A(); a.b = A(); a.b.c = [os.environ["A_KEY"]]
for name in ("plain", "deep", "catching"):
    globals()[name].__code__ = globals()[name].__code__.replace(co_filename="{os.sep}pluto_dist{os.sep}x.py")
plain(dict(os.environ)); deep(a); del a; catching()
"""
    (tmp_path / "key").write_text("mlps_watched")
    environ = {"PYTHONPATH": str(WATCHER), "WATCHED": str(tmp_path), "A_KEY": "mlps_watched"}
    subprocess.run([sys.executable, "-c", code], env=os.environ | environ, check=True, timeout=60)
    (report,) = tmp_path.glob("*.txt")
    for place in ("plain: environ", "deep: a", "raising: secret"):
        assert place in report.read_text()


@pytest.mark.exhaustive
def test_a_job_and_its_tracker(watched: Watched, environ: dict[str, str]):
    """Create, attach, heartbeat, config and end, on two ranks under torchrun."""
    job = watched([*MODULE, watched.torchrun.write(TRAIN)], environ)
    assert job.returncode == 0, job.output


def test_the_launcher_and_a_failure(watched: Watched, environ: dict[str, str]):
    """pluto-dist run, and a script that dies of an exception, which is reported."""
    job = watched([*CLI, "run", "--nproc-per-node=1", watched.torchrun.write(FAILS)], environ)
    assert job.returncode == 1 and "the loss is nan" in job.output


COMMANDS = ("explain", "run --dry-run x.py", "nodes 1", "nodes DIG-1", "sync")


@pytest.mark.parametrize(
    "command",
    [
        "doctor",
        *(pytest.param(each, marks=pytest.mark.exhaustive) for each in COMMANDS),
    ],
)
def test_commands(watched: Watched, environ: dict[str, str], command: str):
    """Those that read the environment or ask the tracker."""
    watched([*CLI, *command.split()], environ)


def echo(exchange: Exchange) -> None:
    """What the key came in."""
    exchange.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + exchange.request.headers["authorization"].encode())


FAULTS = {
    "401": reply(401, b'{"error": "Unauthorized"}'),
    "echo": echo,
    "500": reply(500, b'{"error": "oops"}'),
    "400": reply(400, b'{"error": "no"}'),
    "redirect": reply(302, Location="http://127.0.0.1/x"),
    "reset": reset,
    "stall": stall,
    "drip": drip(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100, 0.5),
    "no HTTP": raw(b"SSH-2.0\r\n"),
}


@pytest.mark.parametrize(
    "fault",
    [each if each == "401" else pytest.param(each, marks=pytest.mark.exhaustive) for each in FAULTS],
)
def test_an_error_with_its_locals(watched: Watched, environ: dict[str, str], fault: str):
    """Whatever the tracker answers; what reaches the script is shown by rich, with the locals of every frame."""
    with Misbehaving(FAULTS[fault]) as server:
        job = watched([sys.executable, watched.torchrun.write(SHOWN % "")], environ | {"PLUTO_URL_API": server.url})
        sent = [seen.headers["authorization"] for seen in server.requests]
    assert set(sent) == {f"Bearer {watched.key}"}
    assert job.returncode == 0, job.output
    assert ("─ locals ─" in job.output) == (fault in ("401", "400")), job.output


@pytest.mark.exhaustive
@pytest.mark.parametrize("wrong", [', run_id=""', ', config="/nowhere.yaml"', ", mode='x'"])
def test_an_argument_that_is_wrong(watched: Watched, environ: dict[str, str], wrong: str):
    """Raised before anything is asked."""
    job = watched([sys.executable, watched.torchrun.write(SHOWN % wrong)], environ)
    assert "ConfigurationError" in job.output and "─ locals ─" in job.output


@pytest.mark.exhaustive
def test_a_key_of_the_keychain(watched: Watched, environ: dict[str, str], tmp_path: Path):
    """The key that `pluto login` stored, and a port where nothing listens: init() goes on offline."""
    (tmp_path / "keyring.py").write_text(f"def get_password(service, user): return {watched.key!r}")
    environ = {**environ, "PLUTO_URL_API": "http://127.0.0.1:9", "PYTHONPATH": str(tmp_path)}
    del environ["PLUTO_API_KEY"]
    job = watched([sys.executable, watched.torchrun.write(SHOWN % "")], environ)
    assert job.returncode == 0 and "cannot be reached" in job.output, job.output


@pytest.mark.exhaustive
@pytest.mark.timeout(600)  # each line of the SDK's imports is watched
def test_the_sdk(watched: Watched, environ: dict[str, str]):
    """Its settings have the key; they are in no frame of ours."""
    paths = os.pathsep.join((str(Path(pluto_dist.__file__).parents[1]), str(Path(requests.__file__).parents[1])))
    more = {"PYTHONPATH": paths, "PLUTO_DIST_TIMEOUT": "120"}  # each line is watched, which takes a while
    job = watched([str(python_with_sdk()), watched.torchrun.write(SDK)], environ | more)
    assert job.returncode == 0, job.output


@pytest.mark.exhaustive
def test_a_folder_that_takes_nothing(watched: Watched, environ: dict[str, str]):
    """An outage, and no place to keep what is recorded."""
    more = {"PLUTO_DIR": "/dev/null", "PLUTO_URL_API": "http://127.0.0.1:9"}
    job = watched([*MODULE, watched.torchrun.write(TRAIN)], environ | more | {"PLUTO_DIST_TIMEOUT": "4"})
    assert job.returncode == 0, job.output
