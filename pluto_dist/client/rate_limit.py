"""Rate limit of a whole job's attaches: one schedule that all ranks compute, however many there are.

Pure. Every attach has a slot number: a rank's first try that of its rank, a further try the next free one. Slots are
due one after the other at a set rate, from the creation of the run on. Each time the tracker refuses attaches (429,
5xx, no answer), the rate is halved from the slot that is then due, and doubles again after a quiet period. So all ranks
keep one queue, and share nothing but where the rate was halved.

>>> due(90, rate=50)
2.0
>>> due(90, rate=50, slowdowns=(45,))
3.0
>>> slot_at(3.0, rate=50, slowdowns=(45,))
90
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

HEADROOM = 0.9  # requests bunch up on their way; this part of the rate keeps every second below it
TRIES = 5  # how often one rank sends its attach, at most
QUIET_SECONDS = 10.0  # after so long at one pace without a further slowdown the rate doubles again
NEWS_SECONDS = 1.0  # refusals this soon after a slowdown are of what was sent before it


def due(slot: int, rate: float, slowdowns: Sequence[int] = ()) -> float:
    """Seconds after the creation of the run at which the attach of ``slot`` may be sent.

    Args:
        slot: counted from 0, which is the create.
        rate: the most attaches that the tracker is to see in a second.
        slowdowns: the slots from which on the rate was halved.
    """
    seconds = 0.0
    for first, last, pace in _stretches(rate, slowdowns):
        if last is None or slot <= last:
            return seconds + (slot - first) / pace
        seconds += (last - first) / pace
    raise AssertionError("the last stretch has no end")


def slot_at(seconds: float, rate: float, slowdowns: Sequence[int] = ()) -> int:
    """The last slot that is due ``seconds`` after the creation of the run."""
    for first, last, pace in _stretches(rate, slowdowns):
        if last is None or seconds * pace < last - first:
            return int(first + seconds * pace)
        seconds -= (last - first) / pace
    raise AssertionError("the last stretch has no end")


def is_news(seconds: float, rate: float, slowdowns: Sequence[int]) -> bool:
    """Whether a refusal at this time is of an attach that was sent after the slowdowns so far."""
    return not slowdowns or seconds > due(max(slowdowns), rate, slowdowns) + NEWS_SECONDS


def _stretches(rate: float, slowdowns: Sequence[int]) -> Iterator[tuple[float, float | None, float]]:
    """First slot, first slot of the next stretch, and rate; slots between two seconds have fractions."""
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
