"""One job, one run: whatever the number of ranks, and however often it is started."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers]

INIT_AND_REPORT = """
import pluto_dist
from reporting import report
run = pluto_dist.init(project="fresh", config={"lr": 0.1}, tags=["t"], timeout=120)  # torch is imported meanwhile
report(run)
"""


@pytest.mark.exhaustive
@pytest.mark.timeout(400)  # 45 starts of a Python that imports torch
@pytest.mark.parametrize("launches", [2, 5])
def test_launches_of_eight_ranks_make_a_run_each(tracker, torchrun, recording_proxy, launches):
    """Each launch is one run, numbered without a gap in a project that did not exist; one call carries everything."""
    jobs = [
        torchrun(INIT_AND_REPORT, nproc=8, environ=tracker.environ() | {"PLUTO_URL_API": recording_proxy.url})
        for _ in range(launches)
    ]

    assert [job.returncode for job in jobs] == [0] * launches
    for number, job in enumerate(jobs, start=1):
        assert [report["rank"] for report in job.reports] == list(range(8))
        assert {report["number"] for report in job.reports} == {number}
        assert len({(r["id"], r["run_id"], r["display_id"], r["run_id_source"]) for r in job.reports}) == 1
        assert {report["resumed"] for report in job.reports} == {False}
    assert [run["number"] for run in tracker.runs("fresh")] == list(range(1, launches + 1))

    creates = [r.body for r in recording_proxy() if r.path == "/api/runs/create"]
    assert len(creates) == 8 * launches
    for launch in range(launches):
        of_launch = creates[launch * 8 : launch * 8 + 8]
        assert len({body["externalId"] for body in of_launch}) == 1
        heavy = [{"config", "tags", "systemMetadata"} <= body.keys() for body in of_launch]
        light = [body.keys() == {"runName", "projectName", "externalId"} for body in of_launch]
        assert heavy == [True] + [False] * 7
        assert light == [False] + [True] * 7
    assert not [line for line in tracker.log() if line.endswith(("500", "502", "503"))]


@pytest.mark.exhaustive
def test_jobs_that_share_a_rendezvous_id_stay_apart(tracker, torchrun):
    """Two jobs at once with torchrun's default id "none" are two runs."""
    none = ("--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0")
    both = [torchrun.start(INIT_AND_REPORT, *none, environ=tracker.environ()) for _ in range(2)]
    first, second = (torchrun.finish(job) for job in both)

    assert first.returncode == second.returncode == 0
    ids = [{report["run_id"] for report in job.reports} for job in (first, second)]
    assert [len(found) for found in ids] == [1, 1]
    assert ids[0] != ids[1]
    assert len(tracker.runs("fresh")) == 2


@pytest.mark.exhaustive
def test_the_same_id_again_is_a_new_run_unless_resume_is_asked_for(tracker, torchrun):
    """The same job started twice with id 123: two runs; with resume=True: one, and the second knows it resumed."""
    options = ("--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "--rdzv-id=123")
    for _ in range(2):
        torchrun(INIT_AND_REPORT, *options, environ=tracker.environ())
    apart = tracker.runs("fresh")
    assert [run["number"] for run in apart] == [1, 2]
    assert all(run["externalId"].startswith("torchrun-123-") for run in apart)

    resuming = [
        torchrun(INIT_AND_REPORT, *options, environ=tracker.environ() | {"PLUTO_DIST_RESUME": "1"}) for _ in range(2)
    ]
    assert [{report["number"] for report in job.reports} for job in resuming] == [{3}, {3}]
    assert [{report["resumed"] for report in job.reports} for job in resuming] == [{False}, {True}]
    assert [run["number"] for run in tracker.runs("fresh")] == [1, 2, 3]


def test_resume_without_anything_that_names_the_job_is_an_error(tracker, torchrun):
    """A random rendezvous id cannot name a job over its launches: every rank says so, and nothing is sent."""
    job = torchrun(
        "import pluto_dist\nfrom reporting import report\n"
        "try: pluto_dist.init(project='fresh', resume=True)\n"
        "except pluto_dist.errors.NoStableIdError as error: report(error=str(error))\n",
        environ=tracker.environ(),
    )
    assert len(job.reports) == 2
    assert all("PLUTO_RUN_ID" in report["error"] for report in job.reports)
    assert tracker.log() == []


@pytest.mark.exhaustive
def test_an_id_that_torchrun_dropped_still_names_the_job(tracker, torchrun):
    """Single-node torchrun replaces PET_RDZV_ID by a uuid; resume=True finds the user's id all the same."""
    jobs = [
        torchrun(
            INIT_AND_REPORT, nproc=1, environ=tracker.environ() | {"PET_RDZV_ID": "nightly", "PLUTO_DIST_RESUME": "1"}
        )
        for _ in range(2)
    ]
    assert [job.reports[0]["number"] for job in jobs] == [1, 1]
    assert jobs[0].reports[0]["run_id"].startswith("torchrun-nightly-")


def test_a_job_that_ends_at_once_has_all_its_attaches_before_its_end(tracker, torchrun):
    """No attach comes after the end state (it would revive the run), and the run stays COMPLETED."""
    job = torchrun("import pluto_dist\npluto_dist.init(project='fresh')\n", nproc=4, environ=tracker.environ())

    assert job.returncode == 0
    kinds = [
        "create" if "/create " in line else "end" for line in tracker.log() if "/create " in line or "/status/" in line
    ]
    assert kinds == ["create"] * 4 + ["end"]
    (run,) = tracker.runs("fresh")
    assert run["status"] == "COMPLETED"
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "COMPLETED"]


@pytest.mark.exhaustive
def test_several_runs_one_after_the_other(tracker, torchrun):
    """The n-th init() of every rank names the n-th run of the launch."""
    job = torchrun(
        "import pluto_dist\nfrom reporting import report\n"
        "for n in range(3):\n"
        "    with pluto_dist.init(project='fresh', config={'n': n}, timeout=120) as run:\n"
        "        report(run, n=n)\n",
        nproc=3,
        environ=tracker.environ(),
    )
    assert job.returncode == 0
    runs = tracker.runs("fresh")
    assert [(run["number"], run["config"]["n"], run["status"]) for run in runs] == [
        (n + 1, n, "COMPLETED") for n in range(3)
    ]
    for n in range(3):
        assert {report["id"] for report in job.reports if report["n"] == n} == {runs[n]["id"]}


def test_one_rank_gives_the_signs_of_life(tracker, torchrun):
    """One heartbeat an interval for the whole job, none before the first interval and none after the end."""
    job = torchrun(
        "import time, pluto_dist\nwith pluto_dist.init(project='fresh') as run:\n    time.sleep(3.3)\n",
        nproc=3,
        environ=tracker.environ() | {"PLUTO_DIST_HEARTBEAT": "1"},
    )
    assert job.returncode == 0, job.output
    paths = [line.split('"')[1].split()[1] for line in tracker.log()]
    beats = paths.count("/api/runs/trigger")
    assert 2 <= beats <= 4  # one rank's, not three ranks'
    assert paths[-1] == "/api/runs/status/update"
    (run,) = tracker.runs("fresh")
    assert run["heartbeatAt"] is not None
