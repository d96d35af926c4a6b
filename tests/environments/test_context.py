"""What a launch context derives from its fields."""

from __future__ import annotations

import pytest

from environments.typical import worker
from pluto_dist.environments import detect


@pytest.mark.parametrize(
    ("count", "most", "left"),
    [("0", "3", 3), ("2", "3", 1), ("3", "3", 0), ("4", "3", 0), (None, "3", 3), ("1", None, 0), (None, None, 0)],
)
def test_restarts_left(count, most, left):
    """The restarts that the agent has left, never below 0; unknown counts as none."""
    context = detect(worker(TORCHELASTIC_RESTART_COUNT=count, TORCHELASTIC_MAX_RESTARTS=most))
    assert context.restarts_left == left
