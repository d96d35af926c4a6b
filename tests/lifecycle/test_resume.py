"""May a launch continue a run that exists? Launches in this process, on both trackers, with heartbeats of 0.4 s."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from hosted.rows.liveness import Monitor, Times
from hosted.tracker import HostedTracker
from lifecycle.ranks import context_of, member_of, plan_of
from pluto_dist.client.claims import answer_claims
from pluto_dist.client.lookup import look_up
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract import attempts, claims
from pluto_dist.contract.run_requests import CreateRunResponse, UpdateConfigRequest, UpdateStatusRequest
from pluto_dist.contract.secret import Secret
from pluto_dist.errors import RunCancelledError, RunExistsError, RunInUseError
from pluto_dist.lifecycle.context import RankContext
from pluto_dist.lifecycle.creation import CreationContext, create
from pluto_dist.rendezvous.store import LocalStore
from pluto_dist.server import LocalServer

JOB = {"TORCHELASTIC_RUN_ID": "nightly", "RANK": "0", "WORLD_SIZE": "2"}
BEAT = 0.4
WINDOW = 1.5 * BEAT + 2
Server = LocalServer | HostedTracker


def more(*values: str | None) -> list[Any]:
    """More of a kind that is tested anyway."""
    return [pytest.param(value, marks=pytest.mark.exhaustive) for value in values]


@pytest.fixture(params=["embedded", "hosted"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with LocalServer() if request.param == "embedded" else HostedTracker() as tracker:
        yield tracker


class Launch:
    """One launch of the job, as its rank 0 takes part in the run.

    Args:
        server: the tracker.
        token: of the launch; a test chooses it, since of two claims the lower token's is the senior.
    """

    def __init__(self, server: Server, token: str, *, timeout: float = 20, **arguments: Any) -> None:
        environ = JOB | server.environ() | {"PLUTO_DIST_HEARTBEAT": str(BEAT)}
        given = {"resume": True, "project": "jobs", "timeout": timeout, **arguments}
        self.plan = plan_of(environ, host=f"host-{token[0]}", **given)
        self.client = TrackerClient(
            self.plan.settings.url_api, self.plan.settings.url_py, Secret(server.api_key), user_agent="test"
        )
        membership = member_of(LocalStore())
        membership.token = token * 20
        self.context: RankContext = context_of(self.plan, membership, client=self.client)
        self.run: CreateRunResponse | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def join(self) -> CreateRunResponse:
        """Create the run or continue it, and live in it from then on."""
        key = attempts.key(time.time(), "node-a")
        prior = self.context.channel.prior_attempt()
        creation = CreationContext(
            self.context.agreed, self.context.membership.token, key, (self.plan.host,), prior, None, None
        )
        self.run = create(self.context, creation, self.client)
        self._thread = threading.Thread(target=self._live)
        self._thread.start()
        return self.run

    def _live(self) -> None:
        assert self.run is not None
        own = TrackerClient(self.client._url_api, self.client._url_py, self.client._key, user_agent="test")
        while not self._stop.wait(BEAT):
            deadline = time.monotonic() + 10
            own.heartbeat(self.run.run_id, deadline=deadline)
            token = self.context.membership.token
            answer_claims(own, self.run.run_id, token, self.plan.host, deadline=deadline)
        own.close()

    def die(self, status: str | None = None) -> None:
        """Fall silent, after telling the end, if there is one to tell."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)
        if status is not None and self.run is not None:
            request = UpdateStatusRequest.of(self.run.run_id, status, {"reason": "x", "host": "h"})
            self.client.update_status(request, deadline=time.monotonic() + 10)

    def details(self) -> dict[str, Any]:
        assert self.run is not None
        found: dict[str, Any] = self.client.everything(self.run.run_id, deadline=time.monotonic() + 10)
        return found


@contextmanager
def launches(*started: Launch) -> Iterator[None]:
    try:
        yield
    finally:
        for launch in started:
            launch.die()
            launch.client.close()


def as_it_was(details: dict[str, Any]) -> dict[str, Any]:
    """What a launch that was refused must not have changed."""
    config = json.loads(json.dumps(details["config"]))
    for token in [token for token, each in config["pluto_dist"].get("claims", {}).items() if each is None]:
        del config["pluto_dist"]["claims"][token]
    config["pluto_dist"].pop("claims", None)
    return {"config": config, **{name: details[name] for name in ("status", "statusMetadata", "name", "tags")}}


@pytest.mark.parametrize("ended", ["COMPLETED", None, *more("FAILED", "TERMINATED")])
def test_an_ended_or_killed_launch_is_continued(server, ended):
    """However the launch before ended: the run is continued, a killed one once it has been silent for long enough."""
    first, second = Launch(server, "b"), Launch(server, "a")
    with launches(first, second):
        run = first.join()
        time.sleep(2 * BEAT)
        first.die(ended)
        began = time.monotonic()
        assert second.join().run_id == run.run_id
        seconds = time.monotonic() - began
        if ended is None and isinstance(server, HostedTracker):
            assert seconds >= WINDOW
        details = second.details()
        assert details["status"] == "RUNNING"
        assert claims.recorded(details["config"]) == {}
        records = attempts.recorded(details["config"])
        assert sorted(record["number"] for record in records.values()) == [1, 2]


@pytest.mark.parametrize(("first_token", "second_token"), [("a", "b"), ("b", "a")])
def test_a_launch_beside_a_living_one_is_refused(server, first_token, second_token):
    """Whatever the order of their tokens: the second is refused, soon, and leaves the run as it was."""
    first, second = Launch(server, first_token), Launch(server, second_token, name="other", tags=["other"])
    with launches(first, second):
        first.join()
        time.sleep(2 * BEAT)
        before = as_it_was(first.details())
        with pytest.raises(RunInUseError, match=rf"alive in run JOB-1 \(on host-{first_token}\)"):
            second.join()
        assert as_it_was(first.details()) == before


def test_a_launch_whose_run_the_tracker_has_ended_is_alive(server):
    """A run that was ended by the tracker, which got no heartbeats, has a living launch in it all the same."""
    first, second = Launch(server, "b"), Launch(server, "a")
    with launches(first, second):
        first.join()
        time.sleep(0.1)
        end_as_monitor(server)
        before = first.details()
        with pytest.raises(RunInUseError):
            second.join()
        assert as_it_was(first.details()) == as_it_was(before)
        assert first.details()["statusUpdated"] == before["statusUpdated"]


def end_as_monitor(server: Server) -> None:
    """What a tracker's stale-run monitor does to a silent run."""
    monitor = Monitor(Path(server.db), Times(never=0, beaten=0, every=3600))
    monitor.start()
    monitor.stop()


def test_of_two_that_claim_an_ended_run_at_once_one_goes_on(server):
    """Two launches at the same moment: one continues the run, the other is refused and withdraws its claim."""
    first, rivals = Launch(server, "c"), (Launch(server, "a"), Launch(server, "b"))
    with launches(first, *rivals):
        first.join()
        first.die("COMPLETED")
        outcomes: dict[str, str] = {}

        def compete(launch: Launch) -> None:
            try:
                launch.join()
                outcomes[launch.plan.host] = "in"
            except RunInUseError:
                outcomes[launch.plan.host] = "refused"

        threads = [threading.Thread(target=compete, args=(launch,)) for launch in rivals]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(outcomes.values()) == ["in", "refused"], outcomes
        config = first.details()["config"]
        assert len(attempts.recorded(config)) - sum(r is None for r in attempts.recorded(config).values()) == 2
        assert claims.recorded(config) == {}


def test_what_cannot_be_known_in_time_is_refused(server):
    """A run whose launch may be alive for longer than init() may wait: refused at once, with the seconds left."""
    first, second = Launch(server, "b"), Launch(server, "a", timeout=1)
    with launches(first, second):
        first.join()
        first.die()
        before = first.details()
        with pytest.raises(RunInUseError, match=r"known in \d s, and init\(\) waits 1 s in all") as refused:
            second.join()
        needed = re.search(r"to at least (\d+)", str(refused.value))
        assert needed is not None
        assert first.details() == before
        third = Launch(server, "a", timeout=float(needed[1]))
        with launches(third):
            assert third.join().run_id == before["id"]


def test_a_cancelled_run_is_refused(server):
    """A cancel by a person stays: the launch is refused, and the run remains cancelled."""
    first, second = Launch(server, "b"), Launch(server, "a")
    with launches(first, second):
        first.join()
        first.die("CANCELLED")
        with pytest.raises(RunCancelledError, match="JOB-1 was cancelled"):
            second.join()
        assert first.details()["status"] == "CANCELLED"


def test_the_users_own_id_of_a_cancelled_run_is_refused(server):
    """A run that is named by the user's own id is not asked about, but for a cancel."""
    first = Launch(server, "b", run_id="mine", resume=None)
    second, third = (Launch(server, token, run_id="mine", resume=None) for token in "ac")
    with launches(first, second, third):
        run = first.join()
        assert second.join().run_id == run.run_id  # beside the first
        second.die("CANCELLED")
        first.die()
        with pytest.raises(RunCancelledError):
            third.join()
        assert first.details()["status"] == "CANCELLED"


def test_a_cancelled_run_that_only_its_creation_finds_is_refused(server):
    """A run of the SDK: nothing in its config says which external id it has."""
    first = Launch(server, "b", run_id="mine", resume=None)
    second = Launch(server, "a", run_id="mine", resume=None)
    with launches(first, second):
        run = first.join()
        forget = UpdateConfigRequest(run.run_id, json.dumps({"pluto_dist": {"run_id": "?"}}))
        first.client.update_config(forget, deadline=time.monotonic() + 10)
        first.die("CANCELLED")
        time.sleep(1.1)  # the tracker's clock in an answer has whole seconds
        before = first.details()
        with pytest.raises(RunCancelledError, match="JOB-1 was cancelled"):
            second.join()
        after = first.details()
        assert (after["status"], recorded(after)) == ("CANCELLED", recorded(before))


def recorded(details: dict[str, Any]) -> list[str]:
    """The keys of the attempts that are on record."""
    return list(attempts.recorded(details["config"]))


def test_a_twin_that_was_killed_before_it_left_is_refused_when_it_is_restarted(server):
    """Its create-run call was executed, and its record stands beside that of the launch that is alive."""
    first, second = Launch(server, "b"), Launch(server, "a")
    with launches(first, second):
        run = first.join()
        key, record = next(iter(attempts.recorded(first.details()["config"]).items()))
        twin = {"pluto_dist": {attempts.FIELD: {f"{key}z": {**record, "launch": 20 * "a"}}}}
        first.client.update_config(UpdateConfigRequest(run.run_id, json.dumps(twin)), deadline=time.monotonic() + 10)
        second.context.channel.begin()  # by the attempt that was killed
        with pytest.raises(RunInUseError, match="on host-b"):
            second.join()
        assert recorded(first.details()) == [key]


@pytest.mark.parametrize("ended", ["FAILED", *more("COMPLETED", None)])
@pytest.mark.parametrize("of_ours", [True, False], ids=["a run of ours", "a run of the SDK"])
def test_resume_false_leaves_a_run_as_it_was(server, ended, of_ours):
    """resume=False on an id that exists: an error; status, its time and metadata stay."""
    first, second = Launch(server, "b", run_id="mine", resume=None), Launch(server, "a", run_id="mine", resume=False)
    with launches(first, second):
        run = first.join()
        first.die(ended)
        if not of_ours:  # nothing in its config says which external id it has
            forget = UpdateConfigRequest(run.run_id, json.dumps({"pluto_dist": {"run_id": "?"}}))
            first.client.update_config(forget, deadline=time.monotonic() + 10)
        time.sleep(1.1)  # the tracker's clock in an answer has whole seconds
        before = first.details()
        with pytest.raises(RunExistsError, match="JOB-1"):
            second.join()
        after = first.details()
        assert {name: after[name] for name in ("status", "statusMetadata", "config")} == {
            name: before[name] for name in ("status", "statusMetadata", "config")
        }
        if ended:
            assert abs(seconds(after["statusUpdated"]) - seconds(before["statusUpdated"])) < 0.1


def seconds(moment: str) -> float:
    hours, minutes, rest = moment.partition("T")[2].rstrip("Z").split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def test_a_run_that_is_not_there(server):
    """No run is made by looking."""
    launch = Launch(server, "a")
    with launches(launch):
        assert look_up(launch.client, launch.context.run_name, deadline=time.monotonic() + 10) is None
        headers = {"Authorization": f"Bearer {server.api_key}"}
        listed = requests.get(
            f"{server.url}/api/runs/list", params={"projectName": "jobs"}, headers=headers, timeout=10
        )
        assert listed.status_code in (200, 404) and not listed.json().get("runs")
        assert not launch.join().resumed
