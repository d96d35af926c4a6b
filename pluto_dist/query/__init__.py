"""Reads runs from a tracker, hosted or embedded: projects, runs, metrics, console lines, files.

::

    from pluto_dist.query import Tracker

    with Tracker() as tracker:
        for each in tracker.runs("digits", status=["COMPLETED"], limit=10):
            print(each.display_id, each.status, tracker.metrics(each, "loss")[-1].value)

The commands ``runs``, ``show``, ``logs``, ``open``, ``cancel``, ``rm`` and ``export`` are made of it. Reading leaves a
run as it is. Importing this package imports no torch.
"""

from __future__ import annotations

from pluto_dist.query.records import (
    ConsoleLine,
    Datum,
    LogName,
    Point,
    Project,
    RunDetails,
    RunSummary,
    StatusChange,
    StoredFile,
)
from pluto_dist.query.tracker import Tracker

__all__ = [
    "ConsoleLine",
    "Datum",
    "LogName",
    "Point",
    "Project",
    "RunDetails",
    "RunSummary",
    "StatusChange",
    "StoredFile",
    "Tracker",
]
