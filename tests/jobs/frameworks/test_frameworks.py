"""Training frameworks as their users start them: one run and its end, and the job as it is without this package.

Each row prints what came of it, shown by ``pytest -rP``: the table of all rows is that of

    ./scripts/test -m "exhaustive or not exhaustive" -rP tests/jobs/frameworks
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from framework_venv import python_with
from running import Job, Torchrun, wait_for
from ways import HOWS, WAYS, Way

pytestmark = [pytest.mark.multiprocess, pytest.mark.timeout(600)]

SCRIPTS = Path(__file__).parent / "scripts"
ROWS = [
    pytest.param(name, how, id=f"{name}: {how}", marks=() if how in way.in_ci else pytest.mark.exhaustive)
    for name, way in WAYS.items()
    for how in HOWS
    if how in way.ends
]
# What differs between two starts of one job, besides numbers.
_VARIES = re.compile(r"0x[0-9a-f]+|[0-9a-f]{8}-[0-9a-f-]{27}|/tmp/\S+|-?\d+(\.\d+)?(e-?\d+)?")
# This package's lines, whoever formats them; warnings of torch's C++ part, with their stacks.
_LEFT_OUT = re.compile(r"pluto_dist\b|^\[W\d|^frame #|^Exception raised from |^<omitting python frames>|^$")


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Torchrun]:
    started = Torchrun(tmp_path)
    yield started
    for process in started.started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)


def run(jobs: Torchrun, way: Way, how: str, environ: dict[str, str]) -> Job:
    """The job to its end; with "stops" a signal comes when all ranks train."""
    python = python_with(way.environment)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    reports = jobs.folder / f"reports{len(jobs.started)}"
    filled = {"script": str(SCRIPTS / way.script), "port": port, "bin": python.parent, "reports": reports}
    command = [str(python), *(word.format(**filled) for word in way.command)]
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    paths = os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parents[1])])
    process = jobs.start_command(command, {"HOW": how, "PYTHONPATH": paths, "PATH": path, **way.environ, **environ})
    if how == "stops":
        _stop(process, way, reports)
    return jobs.finish(process, 240)


def _stop(process: subprocess.Popen[str], way: Way, reports: Path) -> None:
    wait_for(lambda: len(list(reports.glob("*.json"))) >= way.ranks or process.poll() is not None, "the ranks", 150)
    if way.signalled == "leader":
        process.send_signal(signal.SIGTERM)
    else:
        with suppress(ProcessLookupError):  # it has ended by itself, and the test will say how
            os.killpg(process.pid, signal.SIGTERM)


def said(job: Job, how: str, way: Way) -> list[str]:
    """What a job printed, without this package's lines: that of the ranks, and if it succeeds each kind of line.

    An exception of rank 1 and a signal interrupt the other ranks at any of their lines.
    """
    lines = [line for line in job.output.splitlines() if not _LEFT_OUT.search(line)]
    steps = r"rank 1 trains" if how == "raises" else r"rank \d+ (trains|is done)"
    of_ranks = sorted(found[0] for line in lines if (found := re.search(steps, line)))
    whole = how == "succeeds" and not way.is_chatty
    return [*of_ranks, *sorted({_VARIES.sub("N", line).strip() for line in lines} if whole else ())]


def reason_of(run: dict[str, Any]) -> str:
    return str((run["statusMetadata"] or {}).get("reason", ""))


@pytest.mark.parametrize(("name", "how"), ROWS)
def test_a_framework(jobs, tracker, name, how):
    """The ranks are in the runs that they should be in, which end as the job does; the job is as it is without."""
    way = WAYS[name]
    without = run(jobs, way, how, {"TRACKED": "0"})
    job = run(jobs, way, how, {"TRACKED": "1", **tracker.environ()})
    runs = tracker.runs("frameworks")
    ends = [f"{run['displayId']} {len(run['attaches'])} {run['status']} {reason_of(run)!r}" for run in runs]
    print(f"ROW | {name} | {how} | {'; '.join(ends) or 'no run'} | exit {job.returncode}, without {without.returncode}")
    print(job.output, "--- without:", without.output, sep="\n")

    status, reason = way.ends[how]
    assert len(runs) == way.runs
    assert sum(len(run["attaches"]) for run in runs) == way.ranks
    assert [run["status"] for run in runs if run["status"] == "RUNNING"] == []
    assert status in [run["status"] for run in runs]
    assert reason is None or any(reason in reason_of(run) for run in runs)
    assert "the-hub-token" not in json.dumps(runs)
    assert "may be a secret" not in job.output
    assert all(job.output.count(f"run {run['displayId']} (") <= 1 for run in runs), "told twice"
    # The training's side.
    codes = {job.returncode, without.returncode}
    # DeepSpeed passes on the worker's code, and one whose peer is gone is aborted by gloo (SIGABRT) now and then.
    assert len(codes) == 1 or (how == "raises" and codes == {1, 256 - signal.SIGABRT})
    assert said(job, how, way) == said(without, how, way)
    assert ("rank 1 fails" in job.output) == ("rank 1 fails" in without.output)
