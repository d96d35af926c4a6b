"""One queue for the attaches of a whole job: pure, so tested without a clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluto_dist.client.rate_limit import HEADROOM, NEWS_SECONDS, QUIET_SECONDS, due, is_news, slot_at

RATES = st.floats(0.5, 1000)
TICKETS = st.integers(0, 200_000)
SLOWDOWNS = st.lists(TICKETS, max_size=6).map(sorted).map(tuple)


@pytest.mark.parametrize(("ranks", "seconds"), [(1, 0), (46, 1.0), (1024, 22.73), (10_240, 227.53)])
def test_a_job_takes_as_long_as_its_ranks(ranks, seconds):
    """At 50 a second the last of 10,240 ranks attaches 228 s after the run came into being."""
    assert due(ranks - 1, 50) == pytest.approx(seconds, abs=0.01)


@given(rate=RATES, slowdowns=SLOWDOWNS, begin=st.floats(0, 1000), length=st.floats(0.001, 100))
def test_no_window_holds_more_than_the_rate(rate, slowdowns, begin, length):
    """In any stretch of time no more slots fall due than the set rate allows, and one."""
    due_in = slot_at(begin + length, rate, slowdowns) - slot_at(begin, rate, slowdowns)
    assert due_in <= HEADROOM * rate * length + 1 + 1e-6 * rate


@given(rate=RATES, slowdowns=SLOWDOWNS, one=TICKETS, other=TICKETS)
def test_the_queue_keeps_its_order(rate, slowdowns, one, other):
    """A later slot is never due before an earlier one."""
    first, second = sorted((one, other))
    assert due(first, rate, slowdowns) <= due(second, rate, slowdowns)


@given(rate=RATES, slowdowns=SLOWDOWNS, more=TICKETS, slot=TICKETS)
def test_a_slowdown_delays_only_what_comes_after_it(rate, slowdowns, more, slot):
    """One more slowdown changes nothing for the slots before it, and brings none forward."""
    slower = tuple(sorted((*slowdowns, more)))
    if slot <= more:
        assert due(slot, rate, slower) == pytest.approx(due(slot, rate, slowdowns))
    assert due(slot, rate, slower) >= due(slot, rate, slowdowns) - 1e-6


@given(rate=RATES, slowdowns=SLOWDOWNS, slot=TICKETS)
def test_the_two_functions_are_each_others_inverse(rate, slowdowns, slot):
    """The slot at the moment when a slot is due is that slot, but for rounding."""
    assert abs(slot_at(due(slot, rate, slowdowns), rate, slowdowns) - slot) <= 1


@pytest.mark.parametrize("level", range(1, 7))
def test_each_slowdown_halves_the_rate(level):
    """After n slowdowns the queue moves at a 2**n-th of its pace."""
    slowdowns = (100,) * level
    assert due(101, 64, slowdowns) - due(100, 64, slowdowns) == pytest.approx(2**level / 64 / HEADROOM)


@pytest.mark.parametrize("level", range(1, 7))
def test_a_quiet_stretch_brings_the_rate_back(level):
    """After n slowdowns and n quiet stretches the queue moves at the set rate again."""
    slowdowns = (100,) * level
    later = slot_at(due(100, 64, slowdowns) + level * QUIET_SECONDS + 1, 64, slowdowns)
    assert due(later + 64, 64, slowdowns) - due(later, 64, slowdowns) == pytest.approx(1 / HEADROOM)


def test_one_burst_of_refusals_is_one_slowdown():
    """Refusals of what was sent before the rate was halved tell nothing new."""
    at = due(100, 50, (100,))
    assert is_news(0.5, 50, ())
    assert not is_news(at, 50, (100,))
    assert not is_news(at + NEWS_SECONDS * 0.9, 50, (100,))
    assert is_news(at + NEWS_SECONDS * 1.1, 50, (100,))
