"""The embedded tracker's result of every row of the contract is the hosted tracker's, or a better one.

PLUTO_DIST_CONTRACT_URL and PLUTO_DIST_CONTRACT_KEY select another tracker to check.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from server.contract.row import Row, check
from server.contract.table import ROWS, URL, target
from server.contract.target import Target


@pytest.fixture(scope="module")
def tracker() -> Iterator[Target]:
    with target(os.environ) as running:
        yield running


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.section}: {row.name}")
def test_row(tracker: Target, row: Row) -> None:
    """The result is better if and only if the row has a reason for it."""
    verdict = check(row, tracker)
    if verdict.word == "skipped":
        pytest.skip(f"needs {row.needs}, which only the embedded tracker has")
    assert verdict.word != "differs", str(verdict)
    if not os.environ.get(URL):
        assert (verdict.word == "better") == bool(row.better), str(verdict)


def test_names_are_unique() -> None:
    """No two rows of a section have the same name."""
    names = Counter((row.section, row.name) for row in ROWS)
    assert [name for name, count in names.items() if count > 1] == []
