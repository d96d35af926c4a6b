"""Two columns of the tests of a run's life: the embedded tracker and the hosted one.

A test, or a module, with the mark ``both_trackers`` that uses the fixture ``tracker_class`` (through ``tracker``, say)
runs twice. The hosted column is ``exhaustive`` unless the mark says ``by_default=True``.
"""

from __future__ import annotations

import pytest

from hosted.tracker import HostedTracker
from pluto_dist.server import LocalServer

AnyTracker = LocalServer | HostedTracker
TrackerClass = type[LocalServer] | type[HostedTracker]


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Gives a test with the mark its two columns."""
    mark = metafunc.definition.get_closest_marker("both_trackers")
    if mark is None or "tracker_class" not in metafunc.fixturenames:
        return
    marks = () if mark.kwargs.get("by_default") else pytest.mark.exhaustive
    columns = [pytest.param(LocalServer, id="embedded"), pytest.param(HostedTracker, id="hosted", marks=marks)]
    metafunc.parametrize("tracker_class", columns)
