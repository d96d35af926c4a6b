"""When may a rank send its attach? One schedule for the whole job, however many ranks it has.

Pure. Every attach has a ticket: a rank's first try that of its rank, a further try the next free one. Tickets
go out one after the other at a set rate, counted from when the run came into being; each time the tracker has
too many (429, 5xx, no answer), the rate is halved from the ticket then due on, and doubles again after a quiet
stretch. So all ranks keep one queue without asking each other anything but where the rate was halved.

>>> due(90, rate=50)
2.0
>>> due(90, rate=50, slowdowns=(45,))
3.0
>>> ticket_at(3.0, rate=50, slowdowns=(45,))
90
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

HEADROOM = 0.9  # requests bunch up on their way; so much of the rate keeps every second below it
TRIES = 5  # how often one rank sends its attach, at most
QUIET_SECONDS = 10.0  # after so long at one pace without a further slowdown the rate doubles again
NEWS_SECONDS = 1.0  # refusals this soon after a slowdown are of what was sent before it


def due(ticket: int, rate: float, slowdowns: Sequence[int] = ()) -> float:
    """Seconds after the run came into being at which ``ticket`` may be sent.

    Args:
        ticket: counted from 0, the leader's create.
        rate: the most that the tracker is to see in a second.
        slowdowns: the tickets from which on the rate was halved.
    """
    seconds = 0.0
    for first, last, pace in _stretches(rate, slowdowns):
        if last is None or ticket <= last:
            return seconds + (ticket - first) / pace
        seconds += (last - first) / pace
    raise AssertionError("the last stretch has no end")


def ticket_at(seconds: float, rate: float, slowdowns: Sequence[int] = ()) -> int:
    """The last ticket that is due ``seconds`` after the run came into being."""
    for first, last, pace in _stretches(rate, slowdowns):
        if last is None or seconds * pace < last - first:
            return int(first + seconds * pace)
        seconds -= (last - first) / pace
    raise AssertionError("the last stretch has no end")


def is_news(seconds: float, rate: float, slowdowns: Sequence[int]) -> bool:
    """Whether a refusal at this time tells something that the slowdowns so far did not answer."""
    return not slowdowns or seconds > due(max(slowdowns), rate, slowdowns) + NEWS_SECONDS


def _stretches(rate: float, slowdowns: Sequence[int]) -> Iterator[tuple[float, float | None, float]]:
    """First ticket, first ticket of the next stretch, and rate; tickets between two seconds have fractions."""
    first, level, rate = 0.0, 0, rate * HEADROOM
    for slower in (*sorted(slowdowns), None):
        while level and (slower is None or first < slower):  # the rate doubles again, step by step
            pace = rate / 2**level
            quiet = first + pace * QUIET_SECONDS
            if slower is not None and quiet >= slower:
                break
            yield first, quiet, pace
            first, level = quiet, level - 1
        if slower is None:
            break
        yield first, max(first, slower), rate / 2**level
        first, level = max(first, slower), level + 1
    yield first, None, rate / 2**level
