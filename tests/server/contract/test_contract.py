"""The embedded tracker answers every row of the contract as the real server was measured to, or better.

With PLUTO_DIST_CONTRACT_URL and PLUTO_DIST_CONTRACT_KEY set, another server is asked instead.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from server.contract.row import Row, judge
from server.contract.table import ROWS, URL, target
from server.contract.target import Target


@pytest.fixture(scope="module")
def asked() -> Iterator[Target]:
    with target(os.environ) as one:
        yield one


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.section}: {row.name}")
def test_row(asked: Target, row: Row) -> None:
    """As measured; better where, and only where, the table says so."""
    verdict = judge(row, asked)
    if verdict.word == "not asked":
        pytest.skip(f"needs {row.needs}; only the embedded tracker is asked this")
    assert verdict.word != "differs", str(verdict)
    if not os.environ.get(URL):
        assert (verdict.word == "better") == bool(row.better), str(verdict)


def test_every_row_has_a_name_of_its_own() -> None:
    names = Counter((row.section, row.name) for row in ROWS)
    assert [name for name, count in names.items() if count > 1] == []
