"""Line charts: paths, gaps and buckets."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pluto_dist.server.db.metrics import Bucket
from pluto_dist.server.pages.charts import HEIGHT, WIDTH, bucket_line, line_chart

FINITE = st.floats(allow_nan=False, allow_infinity=False)
COORDINATES = st.lists(st.none() | st.tuples(st.integers(0, 2**53), FINITE), max_size=30)
NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"


@given(COORDINATES)
def test_path_stays_within_the_frame(points: list[Any]) -> None:
    """A path of any values consists of moves, lines and dots inside the frame."""
    chart = line_chart("name", "step", points)
    if chart is None:
        assert not any(points)
        return
    steps = re.findall(rf"([ML])({NUMBER}) ({NUMBER})", chart.path)
    assert "".join(f"{letter}{x} {y}" for letter, x, y in steps) == chart.path.replace("h2", "")
    assert len(steps) == sum(place is not None for place in points)
    assert all(0 <= float(x) <= WIDTH and 0 <= float(y) <= HEIGHT for _, x, y in steps)


def test_gaps() -> None:
    """A point without a value interrupts the line; a point without neighbours is a dot."""
    chart = line_chart("name", "step", [(0, 1.0), (1, 2.0), None, (3, 1.0), None, (5, 1.0), (6, 2.0)])
    assert chart is not None
    assert list(re.sub(r"[\d. ]+", "", chart.path.replace("h2", "h"))) == list("MLMhML")
    assert line_chart("name", "step", [None]) is None


@given(st.lists(st.tuples(st.integers(0, 9), FINITE, FINITE), min_size=1, max_size=20))
def test_bucket_line(parts: list[tuple[int, float, float]]) -> None:
    """The line passes through the minimum and the maximum of each bucket, from left to right."""
    buckets = [Bucket(10 * n, 10 * n + width, min(a, b), max(a, b)) for n, (width, a, b) in enumerate(parts)]
    points = bucket_line(buckets)
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert {y for _, y in points} == {y for bucket in buckets for y in (bucket.minimum, bucket.maximum)}
