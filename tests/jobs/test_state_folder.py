"""Whatever the folder for state, the spool, its lock or the launch folder is: the job ends as without this package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from forked import State, Table, said, shown
from running import Torchrun, Tracker

pytestmark = [
    pytest.mark.multiprocess,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts disks and makes devices: run it as root"),
]
MIDWAY = ("after init()", "after update_config()")


@contextmanager
def device(folder: Path) -> Iterator[dict[str, Any]]:
    os.mknod(folder / "state", 0o020600, os.makedev(1, 3))
    yield {}


@contextmanager
def elsewhere(folder: Path, target: str) -> Iterator[dict[str, Any]]:
    """PLUTO_DIR is another path."""
    yield {"environ": {"PLUTO_DIR": target, "TMPDIR": str(folder), "HOME": str(folder)}}


@contextmanager
def simply(path: Path, kind: str) -> Iterator[dict[str, Any]]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if kind == "file":
        path.write_text("")
    elif kind == "dangling link":
        path.symlink_to(path.parent / "nowhere")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "of another user":
        path.mkdir(mode=0o755)
        os.chown(path, 65534, 65534)
    yield {}


@contextmanager
def disk(folder: Path, options: str, command: str = "", moment: str = "") -> Iterator[dict[str, Any]]:
    """PLUTO_DIR and the temporary folder are on a small disk; ``command`` (``{}``: the disk) is run at ``moment``."""
    state = folder / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "tmpfs", str(state)], check=True)
    try:
        if "size" in options:
            (state / "filler").write_bytes(b"x" * 61_000)
        if "ro" in options.split(","):
            subprocess.run(["mount", "-o", "remount,ro", str(state)], check=True)
        environ = {"PLUTO_DIR": str(state), "TMPDIR": str(state), "HOME": str(folder)}
        yield {"environ": environ, "command": command.format(state), "moment": moment}
        subprocess.run(["mount", "-o", "remount,rw", str(state)], check=False, capture_output=True)
        shutil.copytree(state, folder / "copy", dirs_exist_ok=True)  # for the sync, which comes after the disk is gone
    finally:
        subprocess.run(["umount", "-l", str(state)], check=True)
        with_copy = folder / "copy"
        if with_copy.exists():
            shutil.copytree(with_copy, state, dirs_exist_ok=True)


@contextmanager
def at(moment: str, command: str) -> Iterator[dict[str, Any]]:
    yield {"moment": moment, "command": command}


def _states() -> dict[str, State]:
    found: dict[str, State] = {
        "device": device,
        "/dev/null": lambda folder: elsewhere(folder, "/dev/null"),
        "name too long": lambda folder: elsewhere(folder, str(folder / ("x" * 300))),
        "no inodes": lambda folder: disk(folder, "nr_inodes=2"),
        "no blocks": lambda folder: disk(folder, "size=64k"),
        "read-only": lambda folder: disk(folder, "ro"),
    }
    for kind in ("file", "dangling link", "loop", "of another user"):
        for place in ("state", "state/pluto-dist", "state/pluto-dist/spool"):
            found[f"{place}: {kind}"] = lambda folder, place=place, kind=kind: simply(folder / place, kind)
    ro, gone = "mount -o remount,ro {0}", "rm -rf {0}/*"
    found["emptied after init()"] = lambda folder: disk(folder, "nr_inodes=200", gone, "after init()")
    for moment in MIDWAY:
        found[f"read-only {moment}"] = lambda folder, moment=moment: disk(folder, "nr_inodes=200", ro, moment)
        for kind, made in (("folder", "mkdir"), ("loop", "ln -s .lock")):
            # of the runs that are kept by then
            command = f'for run in state/pluto-dist/spool/*/; do [ -d "$run" ] && {made} "$run.lock" || true; done'
            found[f".lock is a {kind} {moment}"] = lambda folder, moment=moment, command=command: at(moment, command)
    return found


STATES = _states()


def cases_of_states(table: Table, scenario: str) -> list[dict[str, Any]]:
    """Each state of the folder."""
    table.sites(scenario)
    return [{"scenario": scenario, "site": name, "state": state} for name, state in STATES.items()]


@pytest.mark.parametrize(
    "scenario", ["offline", *(pytest.param(each, marks=pytest.mark.exhaustive) for each in ("launcher", "outage"))]
)
def test_a_folder_that_cannot_be_used(table: Table, scenario: str):
    """One warning says what is lost, and nothing else is: the run is in the tracker, or on disk."""
    results = table.run_all(cases_of_states(table, scenario))
    print(shown(results))
    assert all(result.is_good for result in results)


JOB = "import pluto_dist\nfrom reporting import report\nrun = pluto_dist.init(project='p')\nreport(run)\nrun.finish()\n"
RUN = [sys.executable, "-c", "from pluto_dist.cli import main; main()", "run", "--nproc-per-node=2"]


@pytest.mark.parametrize(
    ("launcher", "mode"),
    [("pluto-dist run", "online"), *(pytest.param(*each, marks=pytest.mark.exhaustive) for each in
     [("pluto-dist run", "offline"), ("torchrun", "online"), ("torchrun", "offline")])],
)  # fmt: skip
def test_dev_null_as_the_state_folder(tracker: Tracker, torchrun: Torchrun, launcher: str, mode: str):
    """With real launchers: the exit code is the training's."""
    command = (
        RUN if launcher == "pluto-dist run" else [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    )
    environ = {**tracker.environ(), "PLUTO_DIR": "/dev/null", "PLUTO_DIST_MODE": mode}
    job = torchrun.finish(torchrun.start_command([*command, torchrun.write(JOB)], environ))
    assert job.returncode == 0, job.output
    assert [report["mode"] for report in job.reports] == [mode] * 2
    if mode == "online":
        assert [run["status"] for run in tracker.runs("p")] == ["COMPLETED"]
        lines = 2 if launcher == "pluto-dist run" else 1  # which run it is; and the launcher's, how it ended
        assert len(said(job.output)) == lines, job.output
    else:
        assert "nothing can be kept in /dev/null" in job.output
        assert len(said(job.output)) <= 4, job.output


@pytest.mark.exhaustive
@pytest.mark.parametrize("launcher", ["torchrun", "pluto-dist run"])
def test_a_disk_that_becomes_read_only_in_mid_job(tracker: Tracker, torchrun: Torchrun, tmp_path: Path, launcher: str):
    """State, temporary and launch folder at once, with real launchers: the job ends as COMPLETED, and the run too."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", str(folder)], check=True)
    try:
        script = JOB.replace(
            "report(run)", "report(run)\nimport os, subprocess, time\ntime.sleep(1)\n"
            f"if run.rank == 0: subprocess.run(['mount', '-o', 'remount,ro', {str(folder)!r}], check=True)\n"
            "run.update_config({'a': 1})",
        )  # fmt: skip
        command = (
            RUN
            if launcher == "pluto-dist run"
            else [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
        )
        environ = {**tracker.environ(), "PLUTO_DIR": str(folder), "TMPDIR": str(folder)}
        job = torchrun.finish(torchrun.start_command([*command, torchrun.write(script)], environ))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
    assert job.returncode == 0, job.output
    assert [run["status"] for run in tracker.runs("p")] == ["COMPLETED"]
    assert len(said(job.output)) <= 2, job.output
