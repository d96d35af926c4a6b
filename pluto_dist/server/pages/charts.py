"""A metric as a curve: the path of an inline SVG, and the numbers at its edges.

Pure geometry; nothing a client sent becomes part of a path but numbers. A curve of many points goes
through the lowest and the highest of neighbouring ones, so that no spike is lost.

>>> curve("loss", "step", through([Bucket(0, 0, 4.0, 4.0), Bucket(1, 1, 2.0, 2.0)])).path
'M0 4L300 96'
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pluto_dist.server.db.metrics import Bucket
from pluto_dist.server.db.records import iso

WIDTH, HEIGHT, MARGIN = 300, 100, 4
_DOT = "h2"  # what a point without neighbours becomes

Place = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Chart:
    """What a chart shows; all but ``path`` is text for people."""

    name: str
    path: str
    lowest: str
    highest: str
    first: str
    last: str
    latest: str


def through(buckets: Sequence[Bucket]) -> list[Place]:
    """The places a line through the buckets goes: in each from the end that is nearer to where it comes from."""
    places: list[Place] = []
    for index, bucket in enumerate(buckets):
        ends = [bucket.lowest, bucket.highest]
        if places:
            ends.sort(key=lambda value: abs(value - places[-1][1]))
        elif len(buckets) > 1:
            ends.sort(key=lambda value: -abs(value - buckets[index + 1].lowest))
        places.append((bucket.first, ends[0]))
        if bucket.last > bucket.first or bucket.highest > bucket.lowest:
            places.append((bucket.last, ends[1]))
    return places


def curve(name: str, axis: str, places: Sequence[Place | None]) -> Chart | None:
    """The chart of a metric over steps or over time in milliseconds; ``None`` in ``places`` is a gap.

    There is no chart of nothing.
    """
    known = [place for place in places if place is not None]
    if not known:
        return None
    left, right = min(x for x, _ in known), max(x for x, _ in known)
    low, high = min(y for _, y in known), max(y for _, y in known)

    def at(place: Place) -> str:
        x = _share(place[0], left, right) * WIDTH
        y = HEIGHT - MARGIN - _share(place[1], low, high) * (HEIGHT - 2 * MARGIN)
        return f"{x:.5g} {y:.4g}"

    first, last = _labels(axis, left, right)
    return Chart(name, _path(places, at), _number(low), _number(high), first, last, _number(known[-1][1]))


def _path(places: Iterable[Place | None], at: Callable[[Place], str]) -> str:
    parts: list[str] = []
    run = 0
    for place in places:
        if place is None:
            parts.append(_DOT if run == 1 else "")
            run = 0
        else:
            parts.append(("L" if run else "M") + at(place))
            run += 1
    return "".join(parts) + (_DOT if run == 1 else "")


def _share(value: float, low: float, high: float) -> float:
    # Halves, for the distance of two large doubles may be beyond a double.
    return (value / 2 - low / 2) / (high / 2 - low / 2) if high / 2 > low / 2 else 0.5


def _labels(axis: str, left: float, right: float) -> tuple[str, str]:
    if axis == "time":
        return iso(int(left))[11:19], iso(int(right))[11:19]
    return f"step {left:.0f}", f"{right:.0f}"


def _number(value: float) -> str:
    return f"{value:.4g}"
