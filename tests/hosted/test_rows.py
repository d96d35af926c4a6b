"""Every row of the hosted tracker does what was measured, and its check fails without it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hosted.checks import CHECKS, TIMES, Asked
from hosted.rows import NAMES, all_rows
from hosted.rows.liveness import Times
from hosted.tracker import HostedTracker

README = (Path(__file__).parent / "README.md").read_text()
ROWS = all_rows(Times())
every_row = pytest.mark.parametrize("row", [row.name for row in ROWS])


@every_row
def test_row(row):
    """The check of the row passes."""
    with HostedTracker(times=TIMES.get(row)) as server:
        CHECKS[row](Asked(server, patience=60))


@every_row
def test_row_switched_off(row):
    """The check of the row fails without it."""
    with HostedTracker(times=TIMES.get(row), without={row}) as server:
        try:
            CHECKS[row](Asked(server, patience=3))
        except (AssertionError, KeyError):
            return
    pytest.fail("the embedded tracker does the same by itself: the row needs an undo() instead of its answer()")


def test_every_row_has_a_check():
    assert CHECKS.keys() == NAMES


def test_an_unknown_row_is_an_error():
    with pytest.raises(ValueError, match="no row is called"):
        HostedTracker(without={"resumes wake"})


def test_the_table_is_the_rows():
    """The README's table has every row with its words, in the same order."""
    table = re.findall(r"^\| (.+) \| (.+) \| (.+) \| `(.+)` \|$", README, re.MULTILINE)
    assert table == [(row.name, row.does, row.measured, f"test_row[{row.name}]") for row in ROWS]
