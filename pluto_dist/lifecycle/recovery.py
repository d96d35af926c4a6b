"""How a run that began without its tracker is joined once that answers, while the training goes on.

Runs in the run's own thread. The rank that keeps the run's requests tries again and again; the others look in the
store now and then whether it has come through.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.client.tracker_client import REQUEST_SECONDS, TrackerClient
from pluto_dist.errors import ExchangeError, TrackerError
from pluto_dist.log import logger
from pluto_dist.rendezvous.messages import Outcome
from pluto_dist.rendezvous.run_channel import RunChannel

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0  # seconds between two tries; each pause is twice the one before


def keep_trying(
    run: RunChannel, outbox: Outbox, client: TrackerClient, stop: threading.Event, began: Outcome
) -> Outcome | None:
    """Send what is kept as soon as the tracker takes it, and tell the other ranks.

    Args:
        began: how the run came into being, offline.

    Returns:
        The outcome that now holds; ``None`` where the run's end, or a key that is refused, came first.
    """
    for pause in _pauses():
        if stop.wait(pause):
            return None
        try:
            done = outbox.flush(client, time.monotonic() + REQUEST_SECONDS, joins=True)
        except TrackerError as error:
            logger.warning("what is kept of this run stays where it is: %s", error)
            return None
        if done is not None and done.answer is not None:
            logger.info("the tracker answers: run %s at %s", done.answer.display_id, done.answer.url)
            outcome = Outcome("online", done.answer, resumed=began.resumed, at=time.time())
            _tell(run, outcome)
            return outcome
    return None


def _tell(run: RunChannel, outcome: Outcome) -> None:
    try:
        run.publish_late(outcome)
        run.remember(outcome, tell=True)
    except ExchangeError as error:  # the store is gone with its agent
        logger.debug("the other ranks cannot be told: %s", error)


def hear(run: RunChannel, stop: threading.Event) -> Outcome | None:
    """What the rank that keeps trying says once it has come through; ``None`` where the end came first."""
    for pause in _pauses():
        if stop.wait(pause):
            return None
        if (outcome := run.late()) is not None:
            run.remember(outcome, tell=False)
            return outcome
    return None


def _pauses() -> Iterator[float]:
    """Longer and longer, and not the same on any two ranks: ten thousand of them may ask one store."""
    pause = FIRST_PAUSE
    while True:
        yield pause * random.uniform(0.75, 1.25)
        pause = min(LONGEST_PAUSE, pause * 2)
