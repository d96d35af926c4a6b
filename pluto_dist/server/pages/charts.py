"""Line charts of metrics: the path of an inline SVG and the labels of its axes.

Pure geometry; only numbers become part of a path. A line of many points passes through the minimum and the
maximum of each bucket of adjacent points, so that no spike is lost.

>>> line_chart("loss", "step", bucket_line([Bucket(0, 0, 4.0, 4.0), Bucket(1, 1, 2.0, 2.0)])).path
'M0 4L300 96'
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pluto_dist.server.db.metrics import Bucket
from pluto_dist.server.db.records import iso

WIDTH, HEIGHT, MARGIN = 300, 100, 4
_DOT = "h2"  # drawn for a point without neighbours

Coordinates = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Chart:
    """The contents of a chart. All fields but ``path`` are texts to show."""

    name: str
    path: str
    minimum: str
    maximum: str
    first: str
    last: str
    latest: str


def bucket_line(buckets: Sequence[Bucket]) -> list[Coordinates]:
    """A line through the minimum and the maximum of each bucket, first to the one that is nearer to the line's end."""
    line: list[Coordinates] = []
    for index, bucket in enumerate(buckets):
        ends = [bucket.minimum, bucket.maximum]
        if line:
            ends.sort(key=lambda value: abs(value - line[-1][1]))
        elif len(buckets) > 1:
            ends.sort(key=lambda value: -abs(value - buckets[index + 1].minimum))
        line.append((bucket.first, ends[0]))
        if bucket.last > bucket.first or bucket.maximum > bucket.minimum:
            line.append((bucket.last, ends[1]))
    return line


def line_chart(name: str, axis: str, points: Sequence[Coordinates | None]) -> Chart | None:
    """The chart of a metric over steps or over time in milliseconds; ``None`` in ``points`` is a gap.

    ``None`` if no point has a value.
    """
    known = [point for point in points if point is not None]
    if not known:
        return None
    left, right = min(x for x, _ in known), max(x for x, _ in known)
    low, high = min(y for _, y in known), max(y for _, y in known)

    def to_svg(point: Coordinates) -> str:
        x = _fraction(point[0], left, right) * WIDTH
        y = HEIGHT - MARGIN - _fraction(point[1], low, high) * (HEIGHT - 2 * MARGIN)
        return f"{x:.5g} {y:.4g}"

    first, last = _labels(axis, left, right)
    return Chart(name, _path(points, to_svg), _number(low), _number(high), first, last, _number(known[-1][1]))


def _path(points: Iterable[Coordinates | None], to_svg: Callable[[Coordinates], str]) -> str:
    parts: list[str] = []
    length = 0  # of the current line
    for point in points:
        if point is None:
            parts.append(_DOT if length == 1 else "")
            length = 0
        else:
            parts.append(("L" if length else "M") + to_svg(point))
            length += 1
    return "".join(parts) + (_DOT if length == 1 else "")


def _fraction(value: float, low: float, high: float) -> float:
    # Halved, because the difference of two large doubles may exceed the largest double.
    return (value / 2 - low / 2) / (high / 2 - low / 2) if high / 2 > low / 2 else 0.5


def _labels(axis: str, left: float, right: float) -> tuple[str, str]:
    if axis == "time":
        return iso(int(left))[11:19], iso(int(right))[11:19]
    return f"step {left:.0f}", f"{right:.0f}"


def _number(value: float) -> str:
    return f"{value:.4g}"
