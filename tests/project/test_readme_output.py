"""What the README files show is what comes out: scripts run, and commands print what stands below them."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from environments.typical import EIGHT
from inventory.documents import compose_hosts, with_driver, with_gpu
from inventory.inventories import h100_node
from pluto_dist.cli import main
from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.contract.run_ref import RunName, reference
from pluto_dist.contract.run_requests import CreateRunRequest, UpdateConfigRequest, UpdateStatusRequest
from pluto_dist.lifecycle.inventory_gather import warn_of_drift
from pluto_dist.server import LocalServer
from project.test_readme import DOCUMENTS, ROOT, blocks
from recorded_runs import Recorder

ID = "torchrun-123-zw424b7xbt7w7p7q7cwf"
# What differs from run to run, and what stands for it on both sides.
VARIES = {
    r"http://127\.0\.0\.1:\d+/": "URL/",
    r"https://pluto\.trainy\.ai/": "URL/",
    r"/digits/\w+": "/digits/RUN",
    r"\d\d:\d\d:\d\d\.\d{3}": "TIME",
    r"torchrun-[0-9a-f]{8}-[a-z2-7]{20}": "ID",
    r"\d\d\.\d%": "SHARE",
    r"\b[A-Z]{3}-\d+\b": "DISPLAY-ID",
    r"(of 2); [\w.-]+\)": r"\1; HOST)",
    r"pluto-dist/[\d.]+": "VERSION",
    r" +": " ",
}
SDK = """
class Op:
    def log(self, data, step=None): print("logged", sorted(data))
    def finish(self): pass
    def close(self): pass
def init(**arguments): return Op()
"""
AROUND = "def train():\n    yield 0.5\n\ndef accuracy():\n    return 0.9\n\n"


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer() as server:
        yield server


def lines_of(text: str) -> list[str]:
    """The lines of ``text`` without what differs from run to run."""
    for pattern, name in VARIES.items():
        text = re.sub(pattern, name, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def shown(name: str, command: str) -> str:
    """The console block of a document in which ``command`` is typed."""
    (block,) = (block for block in blocks(DOCUMENTS[name], "console") if f"$ {command}" in block)
    return block


def run(command: list[str], environ: dict[str, str], folder: Path = ROOT) -> str:
    """What ``command`` prints; it must succeed."""
    environ = {**os.environ, **environ, "OMP_NUM_THREADS": "1"}
    environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", "")])
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, env=environ, cwd=folder, **streams, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.exhaustive
@pytest.mark.multiprocess
def test_the_demo():
    """README.md shows lines of the demo, in their order."""
    printed = lines_of(run([sys.executable, "examples/demo.py"], {}))
    _, *expected = lines_of(shown("README.md", "./scripts/demo"))
    rest = iter(printed)
    for line in expected:
        assert line in rest, f"{line!r} is not in the rest of {printed}"


@pytest.mark.exhaustive
@pytest.mark.multiprocess
def test_the_demo_at_a_terminal():
    """At a terminal the page stays up until Enter is pressed."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
    command = [sys.executable, "examples/demo.py"]
    process = subprocess.Popen(command, env=environ, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        text = ""
        while "until you press Enter" not in text or not text.rstrip(" ").endswith("\n"):
            text += os.read(ours, 4096).decode(errors="replace")
        address = re.findall(r"press Enter: (http://\S+)", text)[0]
        assert requests.get(address, timeout=30).status_code == 200
        os.write(ours, b"\n")
        while process.poll() is None:  # until its output is read it does not end
            with suppress(OSError):
                os.read(ours, 4096)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait(30)
        os.close(ours)


@pytest.mark.multiprocess
def test_the_launcher(server):
    """The launcher's README shows what `pluto-dist run` prints."""
    block = shown("pluto_dist/launcher/README.md", "pluto-dist run")
    command = block.splitlines()[0].removeprefix("$ ").split()
    printed = lines_of(run(command, server.environ()))
    assert [line for line in printed if line in lines_of(block)] == lines_of(block)[1:]


SNIPPETS = [(name, n) for name in DOCUMENTS for n in range(len(blocks(DOCUMENTS[name], "python")))]


@pytest.mark.multiprocess
@pytest.mark.parametrize(("name", "n"), SNIPPETS, ids=[f"{name}-{n}" for name, n in SNIPPETS])
def test_snippets_run(name, n, server, tmp_path):
    """Every Python snippet runs to its end beside a tracker, with stand-ins for the SDK and the user's modules."""
    for file, content in {
        "pluto.py": SDK,
        "my_launcher.py": "def detect(environ, process): return None\n",
        "my_gpus.py": "from pluto_dist.inventory.gpu import nvidia\nVENDOR = nvidia.VENDOR\n",
        "train.py": "",
        "snippet.py": AROUND + blocks(DOCUMENTS[name], "python")[n],
    }.items():
        (tmp_path / file).write_text(content)
    if name == "pluto_dist/query/README.md":
        for number in range(1, 8):
            Recorder(server).whole(number=number)
    start = ["torchrun", "--nproc-per-node=1"] if name == "README.md" else [sys.executable]
    environ = {**server.environ(), "PLUTO_DIR": str(tmp_path)}
    if name.startswith("tests/"):
        environ["PYTHONPATH"] = str(ROOT / "tests")
    printed = run([*start, "snippet.py"], environ, tmp_path)
    assert ("logged" in printed) == ("sdk.log" in blocks(DOCUMENTS[name], "python")[n])


def test_explain():
    """The README of environments shows the explanation of a worker's environment."""
    block = shown("pluto_dist/environments/README.md", "pluto-dist explain")
    environ = EIGHT["the same in a Slurm job, with `PLUTO_DIST_RESUME=1`"]
    given = "".join(f"{name}={value}\n" for name, value in {**environ, "PLUTO_API_KEY": "k"}.items())
    done = CliRunner().invoke(main, ["explain", "--env", "-"], input=given)
    assert done.output.splitlines() == block.splitlines()[1:]


def test_sync(server, tmp_path):
    """The README of the offline queue shows what `pluto-dist sync` prints."""
    block = shown("pluto_dist/client/offline/README.md", "pluto-dist sync").splitlines()
    spool = tmp_path / "pluto-dist" / "spool"
    outbox = Outbox(spool, RunName("https://pluto-api.trainy.ai", "digits", reference(ID)), "a" * 20)
    record = {"number": 1, "launch": "a" * 20, "start": "2026-11-28T09:00:00.000Z"}
    config = {"pluto_dist": {"attempts": {f"{record['start']} b": record}}}
    outbox.enqueue(CreateRunRequest("ddp", "digits", ID, config=json.dumps(config)), f"{record['start']} b")
    outbox.enqueue(UpdateConfigRequest(0, json.dumps({"best": 0.97})))
    outbox.enqueue(UpdateStatusRequest.of(0, "COMPLETED"))
    would, sent = (
        CliRunner().invoke(main, ["sync", str(tmp_path), *options], env=server.environ()).output
        for options in (["--dry-run"], ["--to", server.url])
    )
    assert would.splitlines() == block[1:2]
    assert lines_of(sent) == lines_of("\n".join(block[3:]))


def test_drift(caplog):
    """The README of the inventory shows the warning of nodes that differ."""
    (block,) = blocks(DOCUMENTS["pluto_dist/inventory/README.md"], "text")
    odd = with_gpu(with_driver(h100_node("b", lost=(5,)), "535.104.05"), 2, pcie_width=4, pcie_width_max=16)
    with caplog.at_level(logging.WARNING, "pluto_dist"):
        warn_of_drift(compose_hosts(**{"node-a": h100_node("a"), "node-b": odd}), None)
    assert f"pluto_dist: {caplog.messages[0]}\n" == block
