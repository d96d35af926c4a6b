"""The matrix of faults: each row is a training with this package, beside the same training without it.

``pytest tests/jobs/test_fault_matrix.py -m "" -s`` prints it. What fails is what the tests beside this one let fail;
here the exit code and the training's result are compared. Each test is one kind of fault.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import store_host
from faults import FAULTS, faulty_tracker
from forked import Result, Table
from offline import ended, kept, sync
from running import Job, Torchrun, Tracker
from store_host import Moment
from test_clocks import CLOCKS, PLACES, start, stopped
from test_faulty_files import cases_of_files
from test_out_of_something import cases_of_descriptors, cases_of_memory, cases_of_threads
from test_outages import PHASES, go, the_run
from test_state_folder import cases_of_states
from training import result_of
from two_hosts import ask

pytestmark = [pytest.mark.multiprocess, pytest.mark.exhaustive, pytest.mark.timeout(1800)]

WITHOUT = {"WITHOUT": "1"}


@dataclass(frozen=True)
class Training:
    """What became of one; of a rank whose store fails the seconds are those of its calls and of its exit."""

    code: int
    result: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.code}, {self.result}, {self.seconds:.1f} s"


def is_row(fault: str, without: Training, with_it: Training, status: str) -> bool:
    """Print a row of the matrix; whether the training is the same."""
    print(f"| {fault} | {without} | {with_it} | {status} |", flush=True)
    return (without.code, without.result) == (with_it.code, with_it.result) and without.result != "none"


def timed(play: Callable[[], Job]) -> tuple[Job, Training]:
    began = time.monotonic()
    job = play()
    return job, Training(job.returncode, result_of(job.output), time.monotonic() - began)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_tracker(torchrun: Torchrun, tmp_path: Path, fault: str):
    """At each phase of the job; without this package the tracker fails all the time, and nobody asks it."""
    same, without = [], None
    for phase in PHASES:
        state, tls = tmp_path / phase, "certificate" in fault
        with faulty_tracker(tls=tls) as tracker:
            quick = {"PLUTO_DIR": str(state), "PLUTO_DIST_TIMEOUT": "4", "PLUTO_DIST_HEARTBEAT": "0.5"}
            environ = {**tracker.environ(tmp_path / "authority.pem"), **quick}
            if without is None:
                always = dict.fromkeys(PHASES, fault)
                _, without = timed(lambda: go(torchrun, tracker, environ | WITHOUT, always))  # noqa: B023
            job, with_it = timed(lambda: go(torchrun, tracker, environ, {phase: fault}))  # noqa: B023
            how = ", by sync" if kept(state) else ""
            if how:
                assert sync({**environ, "XDG_STATE_HOME": str(tmp_path)}, str(state)).returncode == 0
            run = the_run(tracker)
            same.append(is_row(f"tracker: {fault} at {phase}", without, with_it, f"{run['status']}{how}"))
            assert ended(run) == ["RUNNING", "COMPLETED"], job.output
    assert all(same)


WHERE = {"tracker": "COMPLETED", "spool": "COMPLETED, by sync", "told": "a warning says that it is lost"}


def of(result: Result) -> Training:
    return Training(result.code, result_of(result.output), result.seconds)


def compare(table: Table, kind: str, cases: list[dict[str, Any]]) -> None:
    """Play each case with this package and without it."""
    results = table.run_all([case | {"without": without} for case in cases for without in (True, False)])
    same = []
    for without, with_it in zip(results[::2], results[1::2], strict=True):
        fault = " ".join(filter(None, (f"{kind}, {with_it.scenario}: {with_it.site}", with_it.error)))
        where = WHERE.get(with_it.where, f"WRONG: {with_it.where}")
        same.append(is_row(fault, of(without), of(with_it), where) and with_it.is_good)
    assert all(same), [each.output for each, well in zip(results[1::2], same, strict=True) if not well]


Cases = Callable[..., list[dict[str, Any]]]


def _by_scenario(kind: str, cases: Cases, *scenarios: str) -> dict[str, Cases]:
    return {f"{kind}, {each}": lambda table, each=each: cases(table, each) for each in scenarios}


KINDS: dict[str, Cases] = {
    "file call": cases_of_files,
    **_by_scenario("no thread", cases_of_threads, "launcher", "worker", "online"),
    **_by_scenario("no descriptor", cases_of_descriptors, "launcher", "worker", "online", "offline"),
    "no memory": cases_of_memory,
    **_by_scenario("state folder", cases_of_states, "offline", "launcher", "outage"),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts disks and makes devices: run it as root")
@pytest.mark.parametrize("kind", KINDS)
def test_what_fails_in_a_process(table: Table, kind: str):
    """Files, folders, threads, descriptors, memory."""
    compare(table, kind.partition(",")[0], KINDS[kind](table))


MOMENTS = (  # of the training without this package in the first case: after its own connection to the store
    (Moment("in init", message=8), Moment("before update_config")),
    *((each, each) for each in (Moment("in training"), Moment("before the end", "raises"), Moment("before the end"))),
)


@pytest.mark.parametrize("fault", store_host.FAULTS)
def test_the_stores_host(hosts, tracker_on_host, tmp_path: Path, fault: str):
    """Of the rank on the other host, which owns the run."""
    same = []
    with store_host.store_host(hosts, tmp_path, tracker_on_host) as storage:
        for moment, without_it in MOMENTS:
            plain = storage.play(without_it, fault, plain=True)
            played = storage.play(moment, fault)
            runs = ask(hosts[0], tracker_on_host, f"/api/runs/list?projectName={played.project}").get("runs", [])
            statuses = [run["status"] for run in runs]
            both = [Training(p.code, result_of(p.output), sum(p.seconds.values())) for p in (plain, played)]
            same.append(is_row(f"store's host: {fault}, {moment}", *both, " ".join(statuses)))
            assert moment.status in statuses, played.output
    assert all(same)


@pytest.mark.parametrize("case", [*CLOCKS, *PLACES])
def test_the_clocks(tracker: Tracker, torchrun: Torchrun, case: str):
    """Wrong, set in mid-job, or all processes stopped for 10 s."""
    clocks = dict(zip(("OF_RANK_0", "OF_OTHERS"), CLOCKS.get(case, ("0 0", "0 0")), strict=True))

    def play(**environ: str) -> Job:
        process = start(torchrun, tracker, **clocks, **environ, SECONDS="6")
        return stopped(torchrun, process, case, 10) if case in PLACES else torchrun.finish(process)

    _, without = timed(lambda: play(**WITHOUT))
    job, with_it = timed(play)
    (run,) = tracker.runs("clocks")
    fault = f"all processes stopped for 10 s in {case}" if case in PLACES else f"clocks: {case}"
    assert is_row(fault, without, with_it, run["status"]), job.output
    assert ended(run) == ["RUNNING", "COMPLETED"]
