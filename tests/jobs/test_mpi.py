"""Ranks that a real mpirun starts, on one node and without MASTER_ADDR: one run."""

from __future__ import annotations

import os
import shutil
import sys

import pytest
from test_ways_to_start import REPORT, check_one_run, run_python

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers]

# As root in a container, on fewer cores than ranks; the options that Debian's Open MPI 4.1 and MPICH 4.0 need there.
MPIRUN = {
    "openmpi": (["mpirun.openmpi", "--oversubscribe", "-n", "4"], "openmpi-"),
    "mpich": (["mpirun.mpich", "-n", "4"], "hydra-"),
}
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "PLUTO_DIST_TIMEOUT": "60"}
# A rank's report needs its number, which MPI's ranks have under another name.
RANKED = """
import os
names = ("OMPI_COMM_WORLD_RANK", "PMI_RANK")
rank = next(os.environ[name] for name in names if name in os.environ)
""" + REPORT.replace("report(run", 'os.environ["RANK"] = rank\nreport(run')


def mpirun(name: str) -> list[str]:
    """The command; where it is missing the test is skipped, in CI it fails."""
    command, _ = MPIRUN[name]
    if not shutil.which(command[0]):
        reason = f"{command[0]} is missing: apt-get install openmpi-bin mpich"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return command


@pytest.mark.parametrize("name", MPIRUN)
def test_mpirun(tracker, torchrun, name):
    """Four ranks of one mpirun are in one run, whose id says which launcher it was."""
    command = [*mpirun(name), sys.executable, torchrun.write(RANKED)]
    run = check_one_run(tracker, run_python(torchrun, command, tracker.environ() | AS_ROOT), ranks=4)
    assert run["externalId"].startswith(MPIRUN[name][1])


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", MPIRUN)
def test_two_programs_of_one_mpirun(tracker, torchrun, name):
    """Programs that run one after the other under one mpirun are launches of their own: two runs."""
    script = f"'{sys.executable}' '{torchrun.write(RANKED)}'"
    command = [*mpirun(name), "sh", "-c", f"{script} && {script}"]
    job = run_python(torchrun, command, tracker.environ() | AS_ROOT, seconds=170)
    assert job.returncode == 0, job.output
    assert len(tracker.runs("ways")) == 2
    assert sorted(report["number"] for report in job.reports) == [1] * 4 + [2] * 4
    assert not any(report["resumed"] for report in job.reports)
