"""Whether this launch may continue a run that exists: it is looked up unchanged, then claimed (``contract.claims``).

A run that its own launch ended is free at once, but for another launch that claims it at the same moment. In any other
run a launch may be alive: it is free when nobody has answered the claim, or when the tracker has seen no heartbeat, for
1.5 heartbeats and 2 s. A launch that is refused leaves the run as it was.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract import attempts, claims
from pluto_dist.contract.run_requests import PRECEDENCE, RunState, UpdateConfigRequest
from pluto_dist.errors import (
    RunCancelledError,
    RunInUseError,
    TrackerError,
    TrackerUnavailableError,
)
from pluto_dist.lifecycle.context import RankContext
from pluto_dist.log import logger

MISSED_HEARTBEATS = 1.5  # a launch that was silent for so many of its heartbeats, and 2 s, has ended
CLAIM_SECONDS = 2.0  # how long a claim waits for another one, if no launch can be alive
_LOOK_SECONDS = 0.5  # between two looks at the claims
_WITHDRAW_SECONDS = 5.0


def refuse_cancelled(state: RunState) -> None:
    """Raise :class:`RunCancelledError` if the run was cancelled: the tracker cancels it again at every heartbeat."""
    if state.status == "CANCELLED":
        raise RunCancelledError(
            f"run {state.display_id or state.run_id} was cancelled in the tracker, and neither a restart nor another "
            "launch can continue it.\n"
            "Start a new launch for a new run: without resume, and with another PLUTO_RUN_ID or none."
        )


def await_grant(context: RankContext, client: TrackerClient, found: RunState) -> RunState:
    """Claim the run, and wait until no other launch can be alive in it. The run's creation withdraws the claim.

    Args:
        context: this rank.
        client: of the tracker.
        found: the run, with its number.

    Returns:
        The run as it is then.

    Raises:
        RunInUseError: another launch is alive in it, or that cannot be known within the timeout.
        TrackerError: the tracker did not answer, or refused; or another rank of this launch has created the run.
    """
    until = time.monotonic() + _seconds_to_wait(context, client, found)
    if until > context.plan.deadline:
        raise _undecided(context, found, until)
    state = found
    context.channel.begin_to_wait()
    with _claimed(context, client, found):
        while (left := until - time.monotonic()) > 0:
            if context.channel.outcome(min(left, _LOOK_SECONDS)) is not None:
                raise TrackerUnavailableError(f"this rank need not wait any longer for run {found.display_id}")
            if context.stop.is_set():
                raise RunInUseError(
                    f"resume: this launch ends before it is known whether another one is alive in run "
                    f"{found.display_id or found.run_id}; nothing of it goes there."
                )
            state = client.details(found.run_id, deadline=context.plan.deadline) or found
            _check_others(context, client, found, state)
    context.channel.end_wait()
    return state


def _seconds_to_wait(context: RankContext, client: TrackerClient, found: RunState) -> float:
    """For how long nobody may answer the claim until it is granted."""
    if found.status in PRECEDENCE:
        events = client.status_history(found.run_id, deadline=context.plan.deadline)
        ends = [event for event in events if event.to_status == found.status]
        if not ends or ends[-1].source in ("api", "resume"):  # else the tracker ended it, and may be wrong
            return CLAIM_SECONDS
    interval = _newest(found).get("heartbeat")
    if not isinstance(interval, (int, float)) or isinstance(interval, bool):
        interval = context.plan.settings.heartbeat
    silent = 0.0 if found.heartbeat is None else client.server_time - found.heartbeat
    return max(CLAIM_SECONDS, MISSED_HEARTBEATS * interval + 2 - silent)


def _newest(state: RunState) -> dict[str, Any]:
    return attempts.newest(attempts.recorded(state.config)) or {}


@contextmanager
def _claimed(context: RankContext, client: TrackerClient, found: RunState) -> Iterator[None]:
    """This launch's claim is in the run's config, and is withdrawn if the block raises."""
    token = context.membership.token
    _change(client, found, claims.claim(token, context.plan.host), context.plan.deadline)
    try:
        yield
    except BaseException:
        try:
            _change(client, found, claims.withdraw(token), time.monotonic() + _WITHDRAW_SECONDS)
        except TrackerError as error:
            logger.debug("the claim on the run stays in its config: %s", error)
        raise


def _check_others(context: RankContext, client: TrackerClient, found: RunState, state: RunState) -> None:
    """Look at the claims, and at what the tracker shows of other launches.

    Raises:
        RunInUseError: another launch is alive.
    """
    token, now = context.membership.token, _newest(state)
    host = claims.answered_by(state.config, token)
    if now.get("key") != _newest(found).get("key") and now.get("launch") != token:
        host = host or host_of(now)
    if (state.heartbeat or 0.0) > (found.heartbeat or 0.0):
        host = host or host_of(now)
    if host is not None:
        raise in_use(state, host)
    change: dict[str, Any] = {}
    if token not in claims.recorded(state.config):  # lost, as concurrent changes of a config are on the hosted tracker
        change = claims.claim(token, context.plan.host)
    if juniors := [other for other in claims.unanswered(state.config, token) if other > token]:
        answers = claims.answer(juniors, token, context.plan.host)
        change = {claims.FIELD: {**change.get(claims.FIELD, {}), **answers[claims.FIELD]}}
    if change:
        _change(client, found, change, context.plan.deadline)


def _change(client: TrackerClient, found: RunState, ours: dict[str, Any], deadline: float) -> None:
    client.update_config(UpdateConfigRequest(found.run_id, json.dumps({"pluto_dist": ours})), deadline=deadline)


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


def _undecided(context: RankContext, found: RunState, until: float) -> RunInUseError:
    settings, left = context.plan.settings, until - time.monotonic()
    needed = math.ceil((until - context.plan.started) / 0.95) + 1
    name, host = found.display_id or found.run_id, host_of(_newest(found))
    return RunInUseError(
        f"resume: run {name} was not ended by its last launch (on {host}), which may be alive: that is known in "
        f"{left:.0f} s, and init() waits {settings.timeout:g} s in all.\n"
        f"Set PLUTO_DIST_TIMEOUT (or timeout=) to at least {needed}, or omit resume for a run of its own."
    )
