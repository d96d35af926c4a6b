"""May a launch go on with a run that exists? What the tracker shows of it decides, by the tracker's own clock."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from email.utils import formatdate
from typing import Any

import pytest

from client.misbehaving import RUN, Exchange, Misbehaving, reply_json
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_requests import CreateRunResponse
from pluto_dist.contract.secret import Secret
from pluto_dist.environments import detect
from pluto_dist.errors import RunInUseError, TrackerError
from pluto_dist.identity import Named, decide
from pluto_dist.lifecycle.creation import CreationContext, create
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.rendezvous.messages import AgreedId, PriorAttempt
from pluto_dist.settings.arguments import Arguments, resolve

JOB = {"TORCHELASTIC_RUN_ID": "nightly", "RANK": "0", "WORLD_SIZE": "2"}
NOW = 1_800_000_000.0  # the tracker's clock, which is years from ours


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Tracker:
    """A run that exists, as a tracker would show it; ``ages`` are how old its signs of life are, look after look."""

    def __init__(self, *ages: float, woken: bool = False, records: dict[str, Any] | None = None) -> None:
        self.ages, self.woken, self.records = list(ages), woken, records or {"x": {"number": 1, "heartbeat": 0.2}}
        self.looks = 0
        self.sent: list[tuple[str, Any]] = []

    def __call__(self, exchange: Exchange) -> None:
        path = exchange.request.path
        if exchange.request.method == "POST":
            self.sent.append((path, json.loads(exchange.request.body)))
        body: dict[str, Any] = dict(RUN, resumed=True, success=True)
        if "/details/" in path:
            age = self.ages[min(self.looks, len(self.ages) - 1)] if self.ages else None
            self.looks += 1
            shown = {} if age is None else {"heartbeatAt": iso(NOW - age)}
            changed = {"statusUpdated": iso(NOW)} if self.woken else {}
            body = {"status": "RUNNING", "config": {"pluto_dist": {"attempts": self.records}}, **shown, **changed}
        reply_json(body, Date=formatdate(NOW, usegmt=True))(exchange)

    def paths(self) -> list[str]:
        return [path.rsplit("/", 1)[1] for path, _ in self.sent]


def go_on(tracker: Tracker, *, before: PriorAttempt | None = None, timeout: float = 20) -> CreateRunResponse:
    """What a launch that goes on with the job's run gets."""
    resolved = resolve(Arguments(resume=True, timeout=timeout), {})
    context = detect(JOB)
    decision = decide(context, resume=True)
    assert isinstance(decision, Named)
    plan = Plan(resolved.settings, context, decision, resolved.request, {}, 1, "here", time.monotonic())
    creation = CreationContext(AgreedId(decision.reference, "", 0, "here"), "mine", "key", ("here",), before, None, {})
    with Misbehaving(tracker) as server:
        client = TrackerClient(server.url, server.url, Secret("mlps_k"), user_agent="test")
        try:
            return create(plan, creation, client)
        finally:
            client.close()


@pytest.mark.parametrize(
    "tracker",
    [Tracker(3600), Tracker(3.0), Tracker(), Tracker(0.0, woken=True)],
    ids=["silent for an hour", "silent for long enough", "no signs shown", "it had ended"],
)
def test_a_run_in_which_nobody_lives_is_gone_on_with(tracker):
    """A silent run, one that had ended, and one whose tracker shows no heartbeats: create is sent, once."""
    assert go_on(tracker).run_id == 7
    assert tracker.paths() == ["resume", "create"]


def test_a_run_that_falls_silent_while_it_is_watched():
    """A run that was killed a moment ago is gone on with as soon as it has missed its heartbeats."""
    began = time.monotonic()
    assert go_on(Tracker(1.5, 1.8, 2.4)).run_id == 7
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "tracker",
    [Tracker(1.0, 0.0), Tracker(-0.5, woken=True)],
    ids=["its heartbeats go on", "somebody else woke it"],
)
def test_a_run_in_which_another_launch_lives_is_refused(tracker):
    """A heartbeat newer than the first one seen, or a sign of life after the run was woken: an error, nothing sent."""
    with pytest.raises(RunInUseError, match="DIG-3"):
        go_on(tracker)
    assert tracker.paths() == ["resume"]


def test_what_cannot_be_told_in_time_is_refused():
    """A run whose silence is still too short when the time is up is not gone on with."""
    with pytest.raises(RunInUseError):
        go_on(Tracker(0.0, records={"x": {"number": 1, "heartbeat": 60}}), timeout=1)


def test_a_restart_of_this_launch_asks_nobody():
    """A launch that is in the run already reads its state, and creates."""
    tracker = Tracker(0.0)
    assert go_on(tracker, before=PriorAttempt(7, joined=True)).run_id == 7
    assert tracker.paths() == ["create"]


def test_of_two_that_woke_a_run_the_later_one_steps_back():
    """Another launch's record of the same attempt with an earlier key: ours is taken back, and the run is refused."""
    twin = {"number": 2, "launch": "theirs", "hosts": ["node-b"]}
    mine = {"number": 2, "launch": "mine"}
    tracker = Tracker(0.0, woken=True, records={"a key before": twin, "key": mine})
    with pytest.raises(RunInUseError, match="node-b"):
        go_on(tracker)
    assert tracker.paths() == ["resume", "create", "update"]
    taken_back = json.loads(tracker.sent[-1][1]["config"])
    assert taken_back == {"pluto_dist": {"attempts": {"key": None}}}


def test_of_two_that_woke_a_run_the_earlier_one_stays():
    """Another launch's record with a later key is for that launch to take back."""
    twin = {"number": 2, "launch": "theirs", "hosts": ["node-b"]}
    tracker = Tracker(0.0, woken=True, records={"later key": twin, "key": {"number": 2, "launch": "mine"}})
    assert go_on(tracker).run_id == 7


def test_a_tracker_that_shows_nothing_sensible():
    """Details of another shape are the tracker's error, never a run that is taken."""

    def nonsense(exchange: Exchange) -> None:
        body: Any = [] if "/details/" in exchange.request.path else dict(RUN)
        reply_json(body)(exchange)

    with pytest.raises(TrackerError):
        go_on(nonsense)  # type: ignore[arg-type]
