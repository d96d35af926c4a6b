"""What a rank believes of the outcome that another rank wrote into the store: what the tracker says as well.

Whoever reaches the store's port can write there. So a number from the store is used for a request that changes a run
only after the tracker has told this rank that it is this run's; the rank that creates the run, or attaches to it, has
been told.
"""

from __future__ import annotations

import time
from dataclasses import replace
from urllib.parse import urlsplit

from pluto_dist.client.lookup import is_run
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_requests import CreateRunResponse
from pluto_dist.errors import RunIdMismatchError, TrackerError
from pluto_dist.lifecycle.context import RankContext
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.log import logger
from pluto_dist.rendezvous.messages import Outcome

ASK_SECONDS = 5.0  # how long rank 0 waits for the tracker to say whose run it is


def believed(context: RankContext, outcome: Outcome) -> Outcome:
    """An outcome from the store, without a URL elsewhere than at the tracker; rank 0, which logs it, asks the tracker.

    Raises:
        RunIdMismatchError: the tracker says that the number is another run's.
    """
    answer, client, plan = outcome.answer, context.client, context.plan
    if answer is None:
        return outcome
    if plan.is_rank_zero and client is not None:
        left = plan.deadline - time.monotonic()  # of init(), which waits for this
        seconds = min(ASK_SECONDS, left / 2) if left > 0 else ASK_SECONDS
        confirm(context, client, answer.run_id, time.monotonic() + seconds)
    return outcome if is_of_tracker(plan, answer.url) else replace(outcome, answer=replace(answer, url=""))


def is_of_tracker(plan: Plan, url: str) -> bool:
    """Whether ``url`` is of the tracker in this rank's settings."""
    try:
        found = urlsplit(url)
    except ValueError:
        return False
    known = (urlsplit(plan.settings.url_api), urlsplit(plan.settings.url_app))
    return any((found.scheme, found.netloc) == (ours.scheme, ours.netloc) for ours in known)


def confirm(context: RankContext, client: TrackerClient, run_id: int, deadline: float) -> bool:
    """Whether the tracker says that ``run_id`` is this run's; False if it does not answer.

    Raises:
        RunIdMismatchError: it is another run's, or none's.
    """
    try:
        state = client.details(run_id, deadline=deadline)
    except TrackerError as error:
        logger.debug("whose run %s is cannot be asked: %s", run_id, error)
        return False
    if not is_run(state, context.run_name):
        raise contradicted(context, run_id)
    return True


def confirmed_number(
    context: RankContext, outcome: Outcome | None, client: TrackerClient | None, deadline: float, *, is_told: bool
) -> int:
    """The tracker's number of the run for a request that changes it; 0 if this rank has it from the store alone.

    Such a request is kept, and goes by the run's name. ``is_told``: whether the tracker has told this rank the number.

    Raises:
        RunIdMismatchError: the number is another run's.
    """
    number = 0 if outcome is None or outcome.answer is None else outcome.answer.run_id
    if not number or is_told:
        return number
    return number if client is not None and confirm(context, client, number, deadline) else 0


def check_attach(context: RankContext, outcome: Outcome, attached: CreateRunResponse | None) -> None:
    """Compare the run that this rank has attached to with the one that the store named.

    Raises:
        RunIdMismatchError: they are two.
    """
    if attached is not None and outcome.answer is not None and attached.run_id != outcome.answer.run_id:
        raise contradicted(context, outcome.answer.run_id)


def contradicted(context: RankContext, run_id: int) -> RunIdMismatchError:
    """The error of a rank to which the store has named a run that is not its own."""
    return RunIdMismatchError(
        f"the ranks' store names run {run_id}, which the tracker does not have as {context.agreed.reference.value!r}: "
        "nothing of this rank goes there.\n"
        "Another program writes to the store, or the ranks use different trackers: check PLUTO_URL_API on every node."
    )
