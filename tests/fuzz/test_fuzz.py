"""Requests generated from the OpenAPI document cause no 5xx, no undocumented status and no schema violation."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.run import fuzz


@pytest.mark.parametrize(
    ("examples", "min_cases"),
    [pytest.param(5, 1000, id="some"), pytest.param(150, 5000, id="many", marks=pytest.mark.exhaustive)],
)
@pytest.mark.timeout(1500)
def test_every_operation(tmp_path: Path, examples: int, min_cases: int) -> None:
    """Every check of schemathesis passes, and every operation answers at least one request with 2xx."""
    done = fuzz(["--max-examples", str(examples), "--seed", "1"], tmp_path)
    print(done.output[-1200:])
    assert done.code == 0, done.output
    assert done.cases >= min_cases
    assert done.unreached == []
    assert not any(status >= 500 for seen in done.statuses.values() for status in seen)
