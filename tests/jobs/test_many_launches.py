"""Ten launches at once, on one host: which of them share a run is decided before they start.

Each row below says what a launch gives, and what must become of it without and with ``resume``.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field

import pytest
from test_ways_to_start import C10D, free_port

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers, pytest.mark.timeout(400)]

SCRIPT = """
import time, pluto_dist
from reporting import report
try:
    run = pluto_dist.init(project="many")
except pluto_dist.errors.PlutoDistError as error:
    report(error=type(error).__name__)
else:
    report(run)
    time.sleep(6)  # longer than a launch is doubted (heartbeats are 1 s here)
"""


@dataclass(frozen=True)
class Launch:
    """A launch, and what resume makes of it: the name of the job that it goes on with, or the error's class."""

    options: tuple[str, ...]
    with_resume: str
    environ: dict[str, str] = field(default_factory=dict)
    bare: bool = False


SLURM = {"SLURM_JOB_ID": "4711", "SLURM_CLUSTER_NAME": "hpc"}
TEN = {
    "torchrun": Launch((), "NoStableIdError"),
    "none": Launch(C10D, "NoStableIdError"),
    "none again": Launch(C10D, "NoStableIdError"),
    "0": Launch((*C10D, "--rdzv-id=0"), "torchrun-0-"),
    "123": Launch((*C10D, "--rdzv-id=123"), "torchrun-123-"),
    "123 again": Launch((*C10D, "--rdzv-id=123"), "torchrun-123-"),
    "static, none": Launch(("--master-port={port}",), "NoStableIdError"),
    "in a Slurm job": Launch((), "slurm-hpc_4711-", SLURM),
    "in the same Slurm job": Launch((), "slurm-hpc_4711-", SLURM),
    "bare processes": Launch((), "NoStableIdError", {"WORLD_SIZE": "1", "RANK": "0"}, bare=True),
}


def start_all(tracker, torchrun, resume: str) -> dict[str, list[dict]]:
    """All ten at once; what the ranks of each reported."""
    started = {}
    for name, launch in TEN.items():
        environ = tracker.environ() | launch.environ | {"PLUTO_DIST_RESUME": resume, "PLUTO_DIST_HEARTBEAT": "1"}
        if launch.bare:
            started[name] = torchrun.start_command([sys.executable, torchrun.write(SCRIPT)], environ)
        else:
            options = [option.format(port=free_port()) for option in launch.options]
            started[name] = torchrun.start(SCRIPT, *options, environ=environ, nproc=1)
    jobs = {name: torchrun.finish(process, 240) for name, process in started.items()}
    assert {name: job.returncode for name, job in jobs.items()} == dict.fromkeys(TEN, 0), jobs
    return {name: job.reports for name, job in jobs.items()}


@pytest.mark.parametrize("rounds", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_ten_launches_are_ten_runs(tracker, torchrun, rounds):
    """Whatever ids they carry, and in one Slurm job: ten runs; the same ten again: ten more."""
    seen = set()
    for number in range(1, rounds + 1):
        for name, reports in start_all(tracker, torchrun, "0").items():
            assert {report.get("mode") for report in reports} == {"online"}, (name, reports)
            seen |= {report["run_id"] for report in reports}
            assert not any(report["resumed"] for report in reports)
            print(f"ROW | {name} | round {number} | {reports[0]['run_id']} | {reports[0]['run_id_source']}")
        assert len(seen) == 10 * number
        assert len(tracker.runs("many")) == 10 * number


@pytest.mark.exhaustive
def test_ten_launches_with_resume(tracker, torchrun):
    """Each goes on with one run or ends in the error that its row says; two alive at once never share one."""
    for number in (1, 2):
        outcomes: dict[str, list[str]] = {}
        for name, reports in start_all(tracker, torchrun, "1").items():
            (report,) = reports
            became = report.get("error") or f"{report['run_id']} {'resumed' if report['resumed'] else 'new'}"
            outcomes.setdefault(TEN[name].with_resume, []).append(became)
            print(f"ROW | {name} | round {number} | expected {TEN[name].with_resume} | {became}")
        for expected, became in outcomes.items():
            if expected.endswith("Error"):
                assert set(became) == {expected}
            else:  # of two that name one job at the same moment, one goes on and the other is refused
                alive = [one for one in became if one != "RunInUseError"]
                assert len(alive) == 1, (expected, became)
                how = "new" if number == 1 else "resumed"
                assert re.fullmatch(rf"{expected}[0-9a-f]{{16}} {how}", alive[0]), alive
        assert len(tracker.runs("many")) == 3
