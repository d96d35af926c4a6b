"""Recovery of a run that began while its tracker could not be reached, once it can, while the training goes on.

The rank that keeps the run's requests tries again and again; the others check in the store whether it has succeeded.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from functools import partial

from pluto_dist.client.tracker_client import REQUEST_SECONDS, TrackerClient
from pluto_dist.contract.run_requests import CreateRunResponse
from pluto_dist.errors import ExchangeError, RunInUseError, TrackerError, TrackerUnavailableError
from pluto_dist.lifecycle.belief import believed
from pluto_dist.lifecycle.context import RankContext
from pluto_dist.log import logger
from pluto_dist.rendezvous.messages import Outcome
from pluto_dist.rendezvous.run_channel import RunChannel

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0  # seconds between two tries; each pause is twice the one before


def recover(context: RankContext, client: TrackerClient, offline: Outcome) -> Outcome | None:
    """Send the run's requests once the tracker takes them, or wait for the rank that keeps them.

    Args:
        context: this rank.
        client: of the tracker.
        offline: the outcome with which the run began.

    Returns:
        The outcome that replaces it, an error if another launch is alive in the run; ``None`` if the run's end, or a
        key that is refused, came first.
    """
    if context.outbox.has_pending:
        return _keep_trying(context, client, offline)
    return _await_recovery(context)


def _keep_trying(context: RankContext, client: TrackerClient, offline: Outcome) -> Outcome | None:
    for pause in _pauses():
        if context.stop.wait(pause):
            return None
        try:
            with context.channel.attaching() as is_open:
                done = _flush(context, client) if is_open else None
        except RunInUseError as error:
            return _publish(
                context.channel, Outcome("error", error=type(error).__name__, message=str(error), at=time.time())
            )
        except (TrackerUnavailableError, ExchangeError) as error:
            logger.debug("what is kept was not taken: %s", error)
            continue
        except TrackerError as error:
            logger.warning("the requests of this run stay on disk: %s", error)
            return None
        if done is None:
            return None  # this job has ended meanwhile, or its part in the run
        logger.info("the tracker answers: run %s at %s", done.display_id, done.url)
        return _publish(context.channel, Outcome("online", done, resumed=offline.resumed, at=time.time()))
    return None


def _flush(context: RankContext, client: TrackerClient) -> CreateRunResponse | None:
    """The tracker's answer to what was kept; ``None`` if this attempt has no part in the run any more.

    Raises:
        TrackerUnavailableError: it did not take all of it.
    """
    deadline = time.monotonic() + REQUEST_SECONDS
    done = context.outbox.flush(client, deadline, attach_anyway=True, pause=partial(_pause, context))
    if done is not None and done.is_over:
        logger.warning("run %s was cancelled, or has gone on with a later attempt: this one is over", done.display_id)
        return None
    if done is None or done.answer is None:
        raise TrackerUnavailableError("the tracker did not take what is kept")
    return done.answer


def _pause(context: RankContext, seconds: float) -> None:
    if context.stop.wait(seconds):
        raise TrackerUnavailableError("this rank's part in the run is over")


def _publish(channel: RunChannel, outcome: Outcome) -> Outcome:
    try:
        channel.publish_late(outcome)
        channel.remember(outcome, in_store=True)
    except ExchangeError as error:  # the store ended with its agent
        logger.debug("the other ranks cannot learn of it: %s", error)
    return outcome


def _await_recovery(context: RankContext) -> Outcome | None:
    for pause in _pauses():
        if context.stop.wait(pause):
            return None
        if (outcome := context.channel.late()) is not None:
            outcome = believed(context, outcome)
            context.channel.remember(outcome, in_store=False)
            return outcome
    return None


_chance = random.SystemRandom()  # the generator of the module `random` is the script's, which may have seeded it


def _pauses() -> Iterator[float]:
    """Growing pauses, different on every rank: ten thousand ranks may poll one store."""
    pause = FIRST_PAUSE
    while True:
        yield pause * _chance.uniform(0.75, 1.25)
        pause = min(LONGEST_PAUSE, pause * 2)
