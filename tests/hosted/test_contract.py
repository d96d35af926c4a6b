"""The hosted tracker of these tests gives the answers of the real one, in every row of the contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hosted.tracker import HostedTracker
from server.contract.row import Row, check
from server.contract.table import ROWS, target_of
from server.contract.target import Target

pytestmark = pytest.mark.exhaustive

# What the layer leaves as the embedded tracker does it.
NOT_HERE = {
    "project whose prefix grows in upper case",
    "systemMetadata of 100 MB",
    "metrics/raw: a point that was sent twice",
    "a batch of points with an invalid line",
    "console lines of type info, as the SDK documents it",
    "the code in a run's URL",
}


@pytest.fixture(scope="module")
def tracker() -> Iterator[Target]:
    with HostedTracker() as server, target_of(server) as asked:
        asked.heartbeats = server.py_url
        yield asked


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.section}: {row.name}")
def test_row(tracker: Target, row: Row) -> None:
    """The answer is the one that was measured, not the embedded tracker's better one."""
    verdict = check(row, tracker)
    assert verdict.word == ("better" if row.name in NOT_HERE else "same"), str(verdict)
