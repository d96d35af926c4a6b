"""The embedded tracker's result of every row of the contract is the hosted tracker's, or one in the closed list.

PLUTO_DIST_CONTRACT_URL, PLUTO_DIST_CONTRACT_KEY and PLUTO_DIST_CONTRACT_PY select another tracker to check.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import pluto_dist.server
from server.contract.row import Row, check, closed_list
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


def test_the_closed_list() -> None:
    """README.md lists every row that the embedded tracker answers differently, each with its reason, and no other."""
    readme = Path(pluto_dist.server.__file__).with_name("README.md").read_text()
    section = readme.split("## Where it differs from the hosted tracker")[1].split("\n## ")[0]
    written = [line for line in section.splitlines() if line.startswith("|")]
    assert written == closed_list(ROWS), "run scripts/contract --closed-list for the new table"


def test_names_are_unique() -> None:
    """No two rows of a section have the same name."""
    names = Counter((row.section, row.name) for row in ROWS)
    assert [name for name, count in names.items() if count > 1] == []
