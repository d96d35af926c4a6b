"""All rows, outermost first. A request passes those before it reaches the embedded tracker."""

from __future__ import annotations

from collections.abc import Collection

from hosted.layer import Handler, Row
from hosted.rows.answers import Details, History, ListItems, Notes, SixteenDigits
from hosted.rows.creation import AtLimit, BurnedNumbers, CreatorsMetadata, FirstEvent, LostConfigKeys, ProjectRace
from hosted.rows.liveness import CancelStays, CoalescedHeartbeats, MonitorRow, Times, TriggerAtPy
from hosted.rows.refusals import (
    BodiesWithoutType,
    DisplayIdsAreAscii,
    NoEmbeddedEndpoints,
    NumbersOutOfRange,
    ResumeShapes,
    UnstorableConfig,
    UnstorableCreate,
    UnstorableStatus,
    UnstorableTexts,
)
from hosted.rows.status import (
    CreateWakes,
    DatesEvents,
    LaterChangesMoveUpdatedAt,
    LoggerSettingsMerged,
    NullClears,
    Precedence,
    Refreshes,
    ResumeWakes,
    UpdatedAfterStatus,
)


def all_rows(times: Times) -> tuple[Row, ...]:
    return (
        TriggerAtPy(),
        NoEmbeddedEndpoints(),
        # What is wrong with the request itself.
        BodiesWithoutType(),
        ResumeShapes(),
        DisplayIdsAreAscii(),
        UnstorableTexts(),
        NumbersOutOfRange(),
        # Races: these rows wait.
        ProjectRace(),
        BurnedNumbers(),
        AtLimit(),
        UnstorableCreate(),
        UnstorableStatus(),
        UnstorableConfig(),
        LostConfigKeys(),
        LaterChangesMoveUpdatedAt(),
        UpdatedAfterStatus(),
        # From here on a request is handled at once.
        Refreshes(),
        ResumeWakes(),
        CreateWakes(),
        Precedence(),
        NullClears(),
        LoggerSettingsMerged(),
        DatesEvents(),
        CreatorsMetadata(),
        FirstEvent(),
        CancelStays(),
        CoalescedHeartbeats(times),
        MonitorRow(),
        SixteenDigits(),
        Details(),
        ListItems(),
        History(),
        Notes(),
    )


NAMES = frozenset(row.name for row in all_rows(Times()))


def chosen(times: Times, without: Collection[str]) -> tuple[Handler, ...]:
    """What every row does: those in ``without`` undo what the embedded tracker does by itself.

    Raises:
        ValueError: no row has one of these names.
    """
    if unknown := set(without) - NAMES:
        raise ValueError(f"no row is called {sorted(unknown)}; there are {sorted(NAMES)}")
    return tuple(row.undo if row.name in without else row.answer for row in all_rows(times))
