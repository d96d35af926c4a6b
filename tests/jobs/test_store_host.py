"""The host of the ranks' store is frozen, cut off or answers nonsense: nobody on another host waits for it for long.

Each moment of a job's life with each fault; the last test compares with the same job without this package. The rows
are shown by ``pytest -rP``.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from store_host import FAULTS, GARBAGE, TIMEOUT, Moment, Played, StoreHost, store_host
from two_hosts import ask

pytestmark = [pytest.mark.multiprocess, pytest.mark.timeout(1800)]

MOMENTS = (
    Moment("before init"),
    *(Moment("in init", message=number) for number in (1, 2, 4, 8, 16)),
    Moment("in init", "is stopped", 8, signal.SIGINT),
    Moment("in init", "is stopped", 8, signal.SIGTERM),
    Moment("in init", "goes on", 8, signal.SIGINT),
    Moment("before update_config"),
    Moment("in training"),
    Moment("in training", "is stopped", signal=signal.SIGINT),
    Moment("in training", "is stopped", signal=signal.SIGTERM),
    Moment("before the end"),
    Moment("in finish", message=1),
    Moment("in finish", message=3),
    Moment("in finish", message=1, signal=signal.SIGINT),
    Moment("in finish", message=1, signal=signal.SIGTERM),
    Moment("after finish"),
    *(Moment("before the end", way) for way in ("ends", "raises", "raises in with", "sys.exit(3)", "os._exit(4)")),
)
FINISH_SECONDS = 5.0  # the longest that finish(), or the end of the process, takes past what the tracker needs
SLACK = 1.5  # of a machine that is busy


@pytest.fixture
def storage(hosts, tracker_on_host, tmp_path) -> Iterator[StoreHost]:
    with store_host(hosts, tmp_path, tracker_on_host) as made:
        yield made


def check(storage: StoreHost, moment: Moment, fault: str, rank: int) -> str:
    """What of the bounds does not hold; "" if all do. Its row is printed."""
    played = storage.play(moment, fault, rank=rank)
    runs = ask(storage.hosts[0], storage.environ, f"/api/runs/list?projectName={played.project}").get("runs", [])
    statuses = " ".join(run["status"] for run in runs)
    waits = [played.seconds.get(name, 0.0) for name in ("init", "init again", "update_config", "finish", "exit")]
    shown = " | ".join(f"{seconds:.1f}" for seconds in waits)
    print(f"ROW | {moment} | {fault} | {rank} | {shown} | {played.code} | {statuses}", flush=True)
    wrong = late(played, moment, fault)
    if played.code != moment.code:
        wrong.append(f"exit code {played.code}, not {moment.code}")
    is_told = rank == 0 or moment.status == "FAILED"  # the owner's end, and any rank's failure
    if is_told and moment.status not in statuses:
        wrong.append(f"no run is {moment.status}, but {statuses}")
    return f"{moment}, {fault}: {', '.join(wrong)}\n{played.output[-2000:]}" if wrong else ""


def late(played: Played, moment: Moment, fault: str) -> list[str]:
    """Which calls took longer than they may."""
    end = FINISH_SECONDS
    if fault == "zeros" or moment.place == "after finish":  # the store answers: the other rank is not done
        end += TIMEOUT
    limits = {"init": TIMEOUT, "init again": TIMEOUT, "update_config": 1.0, "finish": end, "exit": end}
    taken = [(name, seconds) for name, seconds in played.seconds.items() if seconds > limits[name] + SLACK]
    return [f"{name} took {seconds:.1f} s" for name, seconds in taken]


def test_no_call_waits_for_the_stores_host(storage):
    """One of each: frozen in an init() that is interrupted and called again; cut off, and wrong, before exceptions."""
    cases = (
        (Moment("in init", "goes on", 8, signal.SIGINT), "frozen", 0),
        (Moment("before the end", "raises"), "cut off", 1),
        (Moment("before the end", "raises"), "zeros", 1),
    )
    assert [wrong for moment, fault, rank in cases if (wrong := check(storage, moment, fault, rank))] == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("rank", [0, 1])
def test_no_call_waits_at_any_moment(storage, fault, rank):
    """Every moment; rank 0 owns the run, rank 1 follows: its finish() waits for nobody, and is over before a signal."""
    once = Moment("in finish", message=1)
    moments = [each for each in MOMENTS if rank == 0 or each.place != "in finish" or each == once]
    if fault in GARBAGE:  # init() returns at once: there is nothing to interrupt
        moments = [each for each in moments if each.way != "goes on"]
    assert [wrong for moment in moments if (wrong := check(storage, moment, fault, rank))] == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("fault", ["frozen", "cut off", "dropped"])
def test_a_store_that_comes_back_is_used_again(storage, fault, tmp_path):
    """The heartbeats go on without it, and the end waits for the rank on the other host, which is not done."""
    played = storage.play(Moment("in training", seconds=8), fault)
    beats = (tmp_path / "tracker.log").read_text().count('"POST /api/runs/trigger ')
    print(
        f"ROW | 8 s in training | {fault} | finish() {played.seconds['finish']:.1f} s | {beats} heartbeats", flush=True
    )
    assert played.code == 0, played.output
    assert played.seconds["finish"] >= TIMEOUT
    assert beats > 8


@pytest.mark.exhaustive
def test_the_same_without_this_package(storage):
    """A plain client of the store, which does nothing when it ends: how long the process takes for that."""
    for moment in MOMENTS:
        if moment.place not in ("in init", "in finish", "before init"):
            played = storage.play(moment, "frozen", plain=True)
            print(f"ROW | without this package | {moment} | {played.seconds['exit']:.1f} | {played.code}", flush=True)
            assert played.seconds["exit"] < SLACK, moment
