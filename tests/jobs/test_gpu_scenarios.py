"""Every way in which a driver fails, through the real pynvml: what the run's document says, and what init() costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from running import Tracker

from fakenvml import build
from inventory.ui_rules import faults
from pluto_dist.server import LocalServer

pytestmark = [pytest.mark.multiprocess, pytest.mark.timeout(200)]

SCRIPT = """
import json, time
import torch.distributed, pluto_dist
began = time.monotonic()
run = pluto_dist.init(project="scenario")
print(json.dumps({"seconds": time.monotonic() - began, "id": run.id}), flush=True)
time.sleep(SLEEP)
run.finish()
"""
LOST = "nvmlDeviceGetHandleByIndex_v2.rc=15"
SCENARIOS: dict[str, tuple[str, tuple[str | bytes, ...], str]] = {
    "8 x H100": ("h100", (), "8 GPUs"),
    "A100 with MIG": ("mig", (), "8 GPUs, MIG 2"),
    "GB10, unified memory": ("gb10", (), "1 GPUs, unified"),
    "Jetson, zeros": ("jetson", (), "1 GPUs, no memory"),
    "lost at its handle": ("h100", (f"dev.3.{LOST}",), "7 GPUs, bad 3 GpuIsLost"),
    "lost later": ("h100", ("dev.3.nvmlDeviceGetTemperature.rc=15",), "7 GPUs, bad 3 GpuIsLost"),
    "driver and library differ": ("h100", ("nvmlInitWithFlags.rc=18",), "error LibRmVersionMismatch"),
    "driver not loaded": ("h100", ("nvmlInitWithFlags.rc=9",), "error DriverNotLoaded"),
    "no permission": ("h100", ("nvmlInitWithFlags.rc=4",), "error NoPermission"),
    "unknown error": ("h100", ("nvmlInitWithFlags.rc=999",), "error Unknown"),
    "a name that is not UTF-8": ("h100", (b"dev.2.name=\xff\xfe",), "8 GPUs, unnamed 2"),
    "nvmlInit stalls for 8 s": ("h100", ("nvmlInitWithFlags.ms=8000",), "error timeout"),
    "nvmlInit hangs for 60 s": ("h100", ("nvmlInitWithFlags.ms=60000",), "error timeout"),
}
IN_CI = ("8 x H100", "lost later", "nvmlInit hangs for 60 s")


@pytest.fixture(scope="module")
def server():
    with LocalServer() as running:
        yield running


def said(metadata: dict[str, Any]) -> str:
    """The document's GPUs, in short."""
    (node,) = metadata["nodes"]
    kind = metadata["node_classes"][0].get("gpu", {})
    if "gpu_error" in node:
        return f"error {node['gpu_error']}"
    words = [f"{len(node['gpus'])} GPUs"]
    if node.get("mig"):
        words.append(f"MIG {len(node['mig'])}")
    if kind.get("memory_kind"):
        words.append(kind["memory_kind"])
    elif not kind.get("memory"):
        words.append("no memory")
    words += [f"bad {index} {error}" for index, error in node.get("bad", {}).items()]
    words += [f"unnamed {index}" for index, value in node.get("diff", {}).get("gpu.name", {}).items() if value is None]
    return ", ".join(words)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in IN_CI else pytest.mark.exhaustive) for name in SCENARIOS]
)
def test_a_driver(server: LocalServer, fake_library: Path, tmp_path: Path, name: str):
    """The document says what is known; init() is held up by at most 2 s, and the process ends when the script does."""
    base, lines, expected = SCENARIOS[name]
    profile = build.write_profile(tmp_path / "node.profile", base, *lines)
    log = tmp_path / "calls.log"
    environ = {**os.environ, **server.environ(), **build.environ(fake_library, profile, log)}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("SLEEP", "1")], env=environ, capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip
    whole = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[0])
    run = next(run for run in Tracker(server).runs("scenario") if run["id"] == report["id"])
    metadata = run["systemMetadata"]
    assert said(metadata) == expected
    assert faults(metadata) == []
    assert report["seconds"] < 30, "2 s for the driver, and what a busy machine adds"
    assert whole < 60
    calls = build.read_log(log)
    functions = [call.function for call in calls]
    assert len({call.pid for call in calls}) <= 1
    if "nvmlShutdown" in functions:
        assert functions.index("nvmlShutdown") == len(functions) - 1
    print(
        f"| {name} | {said(metadata)} | init {report['seconds']:.2f} s | process {whole:.1f} s | {len(calls)} calls |"
    )


@pytest.mark.exhaustive
def test_eight_ranks_and_one_process_that_asks(tracker, torchrun, fake_library, tmp_path):
    """Of eight ranks on a node one touches the driver: a bounded number of calls, and none after its shutdown."""
    profile = build.write_profile(tmp_path / "node.profile", "h100")
    driver = build.environ(fake_library, profile, tmp_path / "calls.log")
    job = torchrun(
        "import pluto_dist\nfrom reporting import report\nreport(pluto_dist.init(project='eight', timeout=120))\n",
        nproc=8,
        environ=tracker.environ() | driver,
    )
    assert job.returncode == 0, job.output
    calls = build.read_log(tmp_path / "calls.log")
    assert len({call.pid for call in calls}) == 1
    assert calls[-1].function == "nvmlShutdown"
    assert len(calls) < 8 * 60
    print(f"8 ranks: 1 process, {len(calls)} calls, the last one {calls[-1].function}")
