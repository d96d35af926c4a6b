"""Which of two failures of one job was the first, although every node has a clock of its own."""

from __future__ import annotations

import pytest

from pluto_dist.contract.failure import KILL_MS, precedes

MINE = {"at_ms": 5000}
TIMES = [
    ({"at_ms": 4999}, False),
    ({"at_ms": 5000}, False),
    ({"at_ms": 5001}, True),
    ({"at": 4}, False),
    ({"at": 5.000000000000001}, False),
    ({"at": 6.5}, True),
    ({}, True),
    (None, True),
    ({"at": True}, True),
]


@pytest.mark.parametrize(("recorded", "is_mine"), TIMES)
def test_times(recorded, is_mine):
    """The earlier failure stays on record; what is no record gives way. Earlier versions recorded seconds."""
    assert precedes(MINE, recorded) == is_mine


def test_the_first_in_the_ranks_store():
    """It is the first whatever the clocks say; the same failure, seen again, is not before itself."""
    ahead = {"at_ms": 305_000, "is_first": True}
    assert precedes(ahead, MINE)
    assert not precedes(MINE, ahead)
    assert not precedes(ahead, ahead)


@pytest.mark.parametrize("first", [True, False])
def test_a_process_that_was_killed(first):
    """What the others die of, when they lose it, is after it; what a launcher kills in the end is not."""
    killed, lost_it = {"at_ms": 5000, "exitcode": -9}, {"at_ms": 4990, "is_first": first, "exitcode": 1}
    assert precedes(killed, lost_it)
    assert not precedes(lost_it, killed)
    late = {**killed, "at_ms": 4990 + KILL_MS + 1}
    assert not precedes(late, lost_it)
    assert precedes(lost_it, late)
    assert not precedes({"at_ms": 4995, "exitcode": -6}, {**lost_it, "is_first": True})  # NCCL's watchdog aborts
