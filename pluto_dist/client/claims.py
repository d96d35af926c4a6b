"""Claims on a run that exists: made by a launch that would continue it, answered by one that is alive in it.

A run that its own launch ended is free at once, but for another launch that claims it at the same moment. In any other
run a launch may be alive: it is free when nobody has answered the claim, or when the tracker has seen no heartbeat, for
1.5 heartbeats and 2 s. A launch that is refused leaves the run as it was. The messages are ``contract.claims``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract import attempts, claims
from pluto_dist.contract.run_requests import PRECEDENCE, RunState, UpdateConfigRequest
from pluto_dist.errors import RunInUseError, TrackerError, TrackerUnavailableError
from pluto_dist.log import logger

MISSED_HEARTBEATS = 1.5  # a launch that was silent for so many of its heartbeats, and 2 s, has ended
CLAIM_SECONDS = 2.0  # how long a claim waits for another one, if no launch can be alive
_LOOK_SECONDS = 0.5  # between two looks at the claims
_SLOW_SECONDS = 1.0  # an answer that takes longer came after an outage
_WITHDRAW_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Claim:
    """One launch's claim on a run.

    Attributes:
        client: of the tracker.
        found: the run as it was found, with its number.
        token: the launch's.
        host: of this process, for the error of another launch.
        deadline: of the requests, on the monotonic clock.
        heartbeat: seconds between two heartbeats, for a run whose last launch recorded none.
    """

    client: TrackerClient
    found: RunState
    token: str
    host: str
    deadline: float
    heartbeat: float = 10.0

    def seconds(self) -> float:
        """For how long nobody may answer until the claim is granted.

        Raises:
            TrackerError: the tracker did not answer, or refused.
        """
        found = self.found
        if found.status in PRECEDENCE:
            events = self.client.status_history(found.run_id, deadline=self.deadline)
            ends = [event for event in events if event.to_status == found.status]
            if not ends or ends[-1].source in ("api", "resume"):  # else the tracker ended it, and may be wrong
                return CLAIM_SECONDS
        interval = newest(found).get("heartbeat")
        if not isinstance(interval, (int, float)) or isinstance(interval, bool):
            interval = self.heartbeat
        silent = 0.0 if found.heartbeat is None else self.client.server_time - found.heartbeat
        return max(CLAIM_SECONDS, MISSED_HEARTBEATS * interval + 2 - silent)

    def wait(self, until: float, pause: Callable[[float], object] = time.sleep) -> RunState:
        """Claim the run, and wait until no other launch can be alive in it. The claim stays, to be withdrawn later.

        Args:
            until: when it is granted, on the monotonic clock.
            pause: waits for that many seconds; raises if this launch need not wait any longer.

        Returns:
            The run as it is then.

        Raises:
            RunInUseError: another launch is alive in it.
            TrackerError: the tracker did not answer, or refused.
        """
        state, began = self.found, time.monotonic()
        with self._made():
            until += time.monotonic() - began  # others answer a claim from the moment on that they see it
            while (left := until - time.monotonic()) > 0:
                pause(min(left, _LOOK_SECONDS))
                asked = time.monotonic()
                state = self.client.details(self.found.run_id, deadline=self.deadline) or self.found
                self._check(state)
                # While the tracker takes no requests, nobody can answer.
                until += max(0.0, time.monotonic() - asked - _SLOW_SECONDS)
                if until > self.deadline:
                    raise TrackerUnavailableError("the tracker took no requests while the claim waited for an answer")
        return state

    @contextmanager
    def _made(self) -> Iterator[None]:
        """The claim is in the run's config, and is withdrawn if the block raises."""
        self._change(claims.claim(self.token, self.host), self.deadline)
        try:
            yield
        except BaseException:
            try:
                self._change(claims.withdraw(self.token), time.monotonic() + _WITHDRAW_SECONDS)
            except TrackerError as error:
                logger.debug("the claim on the run stays in its config: %s", error)
            raise

    def _check(self, state: RunState) -> None:
        """Look at the claims, and at what the tracker shows of other launches; answer those that have to give way.

        Raises:
            RunInUseError: another launch is alive.
        """
        token, now = self.token, newest(state)
        host = claims.answered_by(state.config, token)
        if now.get("key") != newest(self.found).get("key") and now.get("launch") != token:
            host = host or host_of(now)
        if (state.heartbeat or 0.0) > (self.found.heartbeat or 0.0):
            host = host or host_of(now)
        if host is not None:
            raise in_use(state, host)
        change: dict[str, Any] = {}
        if token not in claims.recorded(state.config):  # lost, as concurrent changes are on the hosted tracker
            change = claims.claim(token, self.host)
        if juniors := [other for other in claims.unanswered(state.config, token) if other > token]:
            answers = claims.answer(juniors, token, self.host)
            change = {claims.FIELD: {**change.get(claims.FIELD, {}), **answers[claims.FIELD]}}
        if change:
            self._change(change, self.deadline)

    def _change(self, ours: dict[str, Any], deadline: float) -> None:
        _change(self.client, self.found.run_id, ours, deadline)


def answer_claims(client: TrackerClient, run_id: int, token: str, host: str, *, deadline: float) -> None:
    """Answer the claims of other launches on a run, if there are any.

    Args:
        client: of the tracker.
        run_id: the tracker's number of the run.
        token: of this launch.
        host: of this process, for the error of the other launch.
        deadline: on the monotonic clock.

    Raises:
        TrackerError: the tracker did not answer, or refused.
    """
    state = client.details(run_id, deadline=deadline)
    if state is not None and (others := claims.unanswered(state.config, token)):
        _change(client, run_id, claims.answer(others, token, host), deadline)


def newest(state: RunState) -> dict[str, Any]:
    """The record of the run's last attempt; empty if there is none."""
    return attempts.newest(attempts.recorded(state.config)) or {}


def host_of(record: dict[str, Any]) -> str:
    """The first host of an attempt's record."""
    hosts = record.get("hosts")
    return str(next(iter(hosts if isinstance(hosts, list) else ()), "an unknown host"))


def in_use(state: RunState, host: str) -> RunInUseError:
    """The error of a launch that finds another one in its run."""
    return RunInUseError(
        f"resume: another launch of this job is alive in run {state.display_id or state.run_id} (on {host}), and two "
        "trainings in one run cannot be told apart again.\n"
        "End that launch first, omit resume for a run of its own, or set another PLUTO_RUN_ID."
    )


def _change(client: TrackerClient, run_id: int, ours: dict[str, Any], deadline: float) -> None:
    client.update_config(UpdateConfigRequest(run_id, json.dumps({"pluto_dist": ours})), deadline=deadline)
