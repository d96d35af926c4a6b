"""When may a rank send its attach? One schedule for the whole job, however many ranks it has.

Pure. Every attach has a ticket: a rank's first try that of its rank, a further try the next free one. Tickets
go out one after the other at a set rate, counted from when the run came into being; each time the tracker has
too many (429, 5xx, no answer), the rate is halved from the ticket then due on. So all ranks keep one queue
without asking each other anything but where the rate was halved.

>>> due(100, rate=50)
2.0
>>> due(100, rate=50, slowdowns=(50,))
3.0
>>> ticket_at(3.0, rate=50, slowdowns=(50,))
100
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

TRIES = 5  # how often one rank sends its attach, at most


def due(ticket: int, rate: float, slowdowns: Sequence[int] = ()) -> float:
    """Seconds after the run came into being at which ``ticket`` may be sent.

    Args:
        ticket: counted from 0, the leader's create.
        rate: tickets a second.
        slowdowns: the tickets from which on the rate is halved, and halved again.
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
            return first + int(seconds * pace)
        seconds -= (last - first) / pace
    raise AssertionError("the last stretch has no end")


def _stretches(rate: float, slowdowns: Sequence[int]) -> Iterator[tuple[int, int | None, float]]:
    """First ticket, first ticket of the next stretch, and rate."""
    first = 0
    for slower in sorted(slowdowns):
        yield first, max(first, slower), rate
        first, rate = max(first, slower), rate / 2
    yield first, None, rate
