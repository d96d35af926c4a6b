"""Makes a failing schedule smaller for as long as it still fails: fewer launches, faults and ranks, shorter."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from simulation.schedule import SPELLS, Fault, Launch, Schedule

TRIES = 400  # schedules that a shrink may run


def shrunk(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """The smallest schedule found that still fails."""
    tries = 0
    while True:
        for smaller in _smaller(schedule):
            tries += 1
            if fails(smaller):
                schedule = smaller
                break
            if tries >= TRIES:
                return schedule
        else:
            return schedule


def _smaller(schedule: Schedule) -> Iterator[Schedule]:
    """Schedules with one thing less, the largest things first."""
    for number in range(len(schedule.launches)):
        if len(schedule.launches) > 1:
            yield _without_launch(schedule, number)
    for name in ("faults", "weather", *SPELLS):
        things: tuple[Any, ...] = getattr(schedule, name)
        for index in range(len(things)):
            yield dataclasses.replace(schedule, **{name: things[:index] + things[index + 1 :]})
    for name in ("hosted", "shared_spool", "limit"):
        if getattr(schedule, name):
            yield dataclasses.replace(schedule, **{name: False})
    for number, launch in enumerate(schedule.launches):
        for smaller in _smaller_launches(launch):
            launches = (*schedule.launches[:number], smaller, *schedule.launches[number + 1 :])
            yield dataclasses.replace(schedule, launches=launches)
    for index, (begin, end, what, part) in enumerate(schedule.weather):
        if part < 1:
            weather = list(schedule.weather)
            weather[index] = (begin, end, what, 1.0)
            yield dataclasses.replace(schedule, weather=tuple(weather))


def _without_launch(schedule: Schedule, number: int) -> Schedule:
    faults = tuple(_renumbered(fault, number) for fault in schedule.faults if fault.launch != number)
    launches = schedule.launches[:number] + schedule.launches[number + 1 :]
    return dataclasses.replace(schedule, launches=launches, faults=faults)


def _renumbered(fault: Fault, removed: int) -> Fault:
    return dataclasses.replace(fault, launch=fault.launch - (fault.launch > removed))


def _smaller_launches(launch: Launch) -> Iterator[Launch]:
    if launch.nodes > 1:
        yield dataclasses.replace(launch, nodes=launch.nodes - 1)
    if launch.per_node > 1 and not (launch.launcher in ("srun", "bare") and launch.world_size <= 2):
        yield dataclasses.replace(launch, per_node=launch.per_node - 1)
    simpler: dict[str, Any] = {
        "restarts": 0,
        "shuffles": False,
        "same_store": True,
        "late": (),
        "absent": (),
        "updates": 0,
        "waits": True,
        "ending": "finish",
    }
    for name, value in simpler.items():
        if getattr(launch, name) != value:
            yield dataclasses.replace(launch, **{name: value})
    for work in (0.0, 5.0, launch.work / 2):
        if work < launch.work:
            yield dataclasses.replace(launch, work=round(work, 3))
