"""A restart of the workers keeps the run, and is not told to the tracker as an end.

No script here has a process group: torch 2.13 itself fails to restart gloo on torchrun's shared store.
"""

from __future__ import annotations

import pytest
from running import wait_for

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers]

RESTARTED = """
import os, signal, sys, time
from pathlib import Path
import pluto_dist
from reporting import report

rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
victim = attempt == 0 and rank == int(os.environ["VICTIM"])

def die():
    while len(list(Path(os.environ["REPORTS"]).glob("*.json"))) < int(os.environ["AFTER_REPORTS"]):
        time.sleep(0.01)
    if os.environ["HOW"] == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    elif os.environ["HOW"] == "raise":
        raise ValueError("boom")
    sys.exit(1)

if victim and os.environ["WHEN"] == "before init":
    die()
run = pluto_dist.init(project="restarted", config={"lr": 0.1})
report(run, attempt=attempt)
if victim:
    die()
if attempt == 0 and "SHORT" not in os.environ:
    time.sleep(60)  # until the agent stops this attempt
"""


@pytest.mark.parametrize(
    ("victim", "when", "how"),
    [
        (1, "before init", "SIGKILL"),
        pytest.param(0, "after init", "SIGKILL", marks=pytest.mark.exhaustive),
        pytest.param(1, "after init", "SIGKILL", marks=pytest.mark.exhaustive),
        pytest.param(1, "after init", "raise", marks=pytest.mark.exhaustive),
    ],
)
def test_a_restart_lands_in_the_same_run(tracker, torchrun, victim, when, how):
    """Whoever dies of what, the next attempt is in the same run, knows that it resumed, and nothing ended between."""
    alive_at_death = 1 if when == "before init" else 2
    job = torchrun(
        RESTARTED,
        "--max-restarts=2",
        environ=tracker.environ()
        | {"VICTIM": str(victim), "WHEN": when, "HOW": how, "AFTER_REPORTS": str(alive_at_death)},
    )

    assert job.returncode == 0, job.output
    (run,) = tracker.runs("restarted")
    assert {report["run_id"] for report in job.reports} == {run["externalId"]}
    assert {report["number"] for report in job.reports} == {1}
    by_attempt = {n: [r for r in job.reports if r["attempt"] == n] for n in (0, 1)}
    assert len(by_attempt[1]) == 2
    assert {report["resumed"] for report in by_attempt[0]} == {False}
    assert {report["resumed"] for report in by_attempt[1]} == {True}
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "COMPLETED"]


def test_a_launch_after_one_that_was_restarted_ends_its_run(tracker, torchrun):
    """Launches of the user's own id are in order of what is on record, however many attempts each has had."""
    environ = tracker.environ() | {"VICTIM": "1", "WHEN": "before init", "HOW": "exit", "PLUTO_RUN_ID": "mine"}
    first = torchrun(RESTARTED, "--max-restarts=1", environ=environ | {"AFTER_REPORTS": "1"})
    second = torchrun(RESTARTED, environ=environ | {"VICTIM": "-1", "WHEN": "", "AFTER_REPORTS": "0", "SHORT": "1"})
    assert (first.returncode, second.returncode) == (0, 0), first.output + second.output
    (run,) = tracker.runs("restarted")
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "COMPLETED", "RUNNING", "COMPLETED"]


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.exhaustive), 1])
def test_a_crash_without_restarts_left_fails_the_run(tracker, torchrun, victim):
    """Whichever rank raises, the run ends FAILED with the exception, the rank and the host."""
    job = torchrun(
        RESTARTED,
        environ=tracker.environ() | {"VICTIM": str(victim), "WHEN": "after init", "HOW": "raise", "AFTER_REPORTS": "2"},
    )

    assert job.returncode != 0
    assert "ValueError: boom" in job.output
    (run,) = tracker.runs("restarted")
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "FAILED"]
    cause = run["statusMetadata"]
    assert (cause["reason"], cause["rank"]) == ("ValueError: boom", victim)
    assert 'raise ValueError("boom")' in cause["traceback"]


CANCELLED = """
import os, time
from pathlib import Path
import pluto_dist
from reporting import report
attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
try:
    run = pluto_dist.init(project="restarted")
except pluto_dist.errors.RunCancelledError as error:
    report(attempt=attempt, error=str(error))
else:
    report(run, attempt=attempt)
    while not (Path(os.environ["REPORTS"]) / "cancelled").exists():
        time.sleep(0.01)
    os._exit(1)
"""


@pytest.mark.exhaustive
def test_a_run_cancelled_between_attempts_is_not_revived(tracker, torchrun):
    """The leader of a later attempt reads the status first: cancelled is an error on every rank, and stays."""
    process = torchrun.start(CANCELLED, "--max-restarts=1", environ=tracker.environ() | {"PLUTO_DIST_HEARTBEAT": "1"})
    reports = torchrun.folder / "reports0"
    wait_for(lambda: len(list(reports.glob("*.json"))) == 2, "the ranks")
    (run,) = tracker.runs("restarted")
    tracker.cancel(run["id"])
    wait_for(lambda: tracker.run(run["id"])["status"] == "CANCELLED", "the cancel")
    (reports / "cancelled").touch()
    job = torchrun.finish(process)

    refused = [report for report in job.reports if report["attempt"] == 1]
    assert len(refused) == 2, job.output
    assert all("was cancelled" in report["error"] for report in refused)
    (run,) = tracker.runs("restarted")
    history = [change["to"] for change in run["statusHistory"]]
    assert (run["status"], history) == ("CANCELLED", tracker.cancelled)
