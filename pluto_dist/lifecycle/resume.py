"""Whether this launch may continue a run that exists: it is looked up unchanged, then claimed (``client.claims``)."""

from __future__ import annotations

import math
import time

from pluto_dist.client.claims import Claim, host_of, newest
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_requests import RunState
from pluto_dist.errors import RunCancelledError, RunInUseError, TrackerUnavailableError
from pluto_dist.lifecycle.context import RankContext


def refuse_cancelled(state: RunState) -> None:
    """Raise :class:`RunCancelledError` if the run was cancelled: the tracker cancels it again at every heartbeat."""
    if state.status == "CANCELLED":
        raise cancelled(state.display_id or state.run_id)


def cancelled(run: str | int | None) -> RunCancelledError:
    """The error of a launch that would continue a run which a person has cancelled."""
    return RunCancelledError(
        f"run {run} was cancelled in the tracker, and neither a restart nor another launch can continue it.\n"
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
        RunCancelledError: it was cancelled meanwhile.
        TrackerError: the tracker did not answer, or refused; or another rank of this launch has created the run.
    """
    plan, channel = context.plan, context.channel
    claim = Claim(client, found, context.membership.token, plan.host, plan.deadline, plan.settings.heartbeat)
    seconds = claim.seconds()  # the tracker may take its time to say
    until = time.monotonic() + seconds
    if until > plan.deadline:
        if channel.claimed("waits"):
            raise TrackerUnavailableError("another rank has asked whether another launch is alive in the run")
        raise _undecided(context, found, until)

    def pause(seconds: float) -> None:
        if channel.outcome(seconds) is not None:
            raise TrackerUnavailableError(f"this rank need not wait any longer for run {found.display_id}")
        if context.stop.is_set() or channel.claimed("failure"):
            raise RunInUseError(
                f"resume: this launch ends before it is known whether another one is alive in run "
                f"{found.display_id or found.run_id}; nothing of it goes there."
            )

    channel.begin_to_wait()
    state = claim.wait(until, pause)
    channel.end_wait()
    refuse_cancelled(state)
    return state


def _undecided(context: RankContext, found: RunState, until: float) -> RunInUseError:
    settings, left = context.plan.settings, until - time.monotonic()
    needed = math.ceil((until - context.plan.started) / 0.95) + 1
    name, host = found.display_id or found.run_id, host_of(newest(found))
    return RunInUseError(
        f"resume: run {name} was not ended by its last launch (on {host}), which may be alive: that is known in "
        f"{left:.0f} s, and init() waits {settings.timeout:g} s in all.\n"
        f"Set PLUTO_DIST_TIMEOUT (or timeout=) to at least {needed}, or omit resume for a run of its own."
    )
