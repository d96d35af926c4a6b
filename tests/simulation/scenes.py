"""Scenes: two things that meet, since what is spread over a whole job seldom does.

A schedule of the profile "scenes" is a calm job with one or two of them. A scene says what meets; when exactly, on
which rank and for how long is left to chance. :func:`draw` is what turns a seed into a schedule, of any profile.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from simulation.schedule import EXPERIMENT, HAVE_AGENT, Death, Fault, Launch, Profile, Schedule, spread

Scene = Callable[[Schedule, random.Random], Schedule]
_NAMED = (("SLURM_CLUSTER_NAME", "lab"), ("SLURM_JOB_ID", "4711"), ("rdzv", "my-job"))
_QUICK = ("PLUTO_DIST_METADATA", "0")  # no probes, which take as long as they like
_STARTED = 2.0  # seconds that agents take to start their workers, at most


def draw(seed: int, profile: Profile) -> Schedule:
    """The schedule of a seed."""
    schedule = spread(seed, profile)
    if not profile.scenes:
        return schedule
    chance = random.Random(f"scenes {profile.name} {seed}")
    schedule = _calmed(schedule, chance)
    for scene in sorted(chance.sample(SCENES, chance.choice((1, 1, 1, 2))), key=SCENES.index):
        schedule = scene(schedule, chance)
    return _alike(schedule)


def twins(schedule: Schedule, chance: random.Random) -> Schedule:
    """Launches of one job begin at the same moment, and are restarted."""
    launches = _with_another(schedule.launches)
    start, spread = 0.0, chance.choice((0.0, 0.0, 0.02, 2.0))
    for number, launch in enumerate(launches):
        quick = replace(launch, start=start, spread=spread, late=(), variables=(*launch.variables, _QUICK))
        launches[number] = _restarted(quick, chance)
        start += chance.choice((0.0, 0.0, chance.uniform(0, 0.1), chance.uniform(0, 2)))
    schedule = replace(schedule, launches=tuple(launches))
    what = chance.choice(("nothing", "strike", "strike", "strike", "weather"))
    if what == "strike":
        return replace(schedule, faults=(*schedule.faults, _strike(chance, chance.randrange(len(launches)))))
    kinds = ("500", "500 after", "refuse", "cut", "late")
    return _with_weather(schedule, chance, chance.uniform(0, _STARTED), kinds) if what == "weather" else schedule


def a_launch_beside_another(schedule: Schedule, chance: random.Random) -> Schedule:
    """A launch begins while another one lives; a person cancels, or the tracker or a host fails while it waits."""
    launches = _with_another(schedule.launches)
    begin = launches[0].start + chance.choice((chance.uniform(3, 20), chance.uniform(20, 90)))
    launches[0] = replace(launches[0], work=begin + chance.choice((chance.uniform(0, 10), chance.uniform(10, 60))))
    launches[1] = replace(_restarted(launches[1], chance), start=begin, spread=0.5)
    waits = (begin + 0.5, begin + chance.choice((2, 4, 40)))
    schedule = replace(schedule, launches=tuple(launches))
    what = chance.choice(("nothing", "cancel", "weather", "freeze", "preempt", "strike"))
    if what == "strike":
        return replace(schedule, faults=(*schedule.faults, _strike(chance, 1)))
    if what == "cancel":
        return replace(schedule, cancels=(chance.uniform(*waits),))
    if what == "weather":
        return _with_weather(
            schedule, chance, chance.uniform(begin, waits[1]), ("late", "stall", "refuse", "cut", "429")
        )
    if what == "freeze":
        return _with_fault(schedule, chance, "freeze", 0, chance.uniform(*waits), seconds=chance.uniform(1, 200))
    return _with_fault(schedule, chance, "preempt", 1, chance.uniform(*waits)) if what == "preempt" else schedule


def a_launch_after_a_lost_one(schedule: Schedule, chance: random.Random) -> Schedule:
    """A launch is lost without a word, and the next one waits until that is sure; a person may cancel meanwhile."""
    launches = _with_another(schedule.launches)
    launches[0] = replace(launches[0], nodes=1, restarts=0, work=60.0)
    lost = _STARTED + chance.uniform(1, 10)
    begin = lost + chance.choice((chance.uniform(0, 5), chance.uniform(0, 60)))
    launches[1] = replace(_restarted(launches[1], chance), start=begin, spread=0.5)
    schedule = replace(schedule, launches=tuple(launches), faults=(Fault("lose node", 0, 0, at=lost - 1),))
    what = chance.choice(("cancel", "cancel", "weather", "nothing"))
    if what == "cancel":
        return replace(schedule, cancels=(begin + chance.uniform(0, 20),))
    if what == "weather":
        return _with_weather(schedule, chance, begin + chance.uniform(0, 20), ("late", "stall", "refuse", "429"))
    return schedule


def a_run_of_another_program(schedule: Schedule, chance: random.Random) -> Schedule:
    """The run of this name was created by a program that does not write into its config as this package does."""
    first = schedule.launches[0]
    kept = tuple((name, value) for name, value in first.variables if name.startswith("PLUTO_DIST_"))
    options = (("resume", chance.choice((True, False))),)
    launch = replace(first, start=1.0, options=options, variables=(*kept, ("PLUTO_RUN_ID", EXPERIMENT)))
    status = chance.choice(("COMPLETED", "FAILED", "CANCELLED", "RUNNING"))
    return replace(schedule, launches=(launch,), foreign=status, limit=False)


def a_cancel_before_a_restart(schedule: Schedule, chance: random.Random) -> Schedule:
    """A person cancels the run, and a rank fails before its owner has seen that."""
    launches = list(schedule.launches)
    launches[0] = replace(_restarted(launches[0], chance, always=True), work=chance.uniform(5, 30))
    schedule = replace(schedule, launches=tuple(launches))
    cancel = launches[0].start + _STARTED + chance.uniform(0, 4)
    what: Death = chance.choice(("raise", "kill", "lose node"))
    return replace(_with_fault(schedule, chance, what, 0, cancel + chance.uniform(-1, 3)), cancels=(cancel,))


def a_silent_creator(schedule: Schedule, chance: random.Random) -> Schedule:
    """Rank 0 is stopped, or killed, while it creates the run; or the tracker stalls then."""
    launches = list(schedule.launches)
    number = chance.randrange(len(launches))
    launch = replace(_many_ranks(launches[number], chance), work=chance.uniform(3, 40), late=(), spread=0.1)
    launches[number] = launch
    schedule = replace(schedule, launches=tuple(launches))
    begin = launches[number].start
    if chance.random() < 0.2:
        kinds = ("late", "stall", "500 after", "cut")
        return _with_weather(schedule, chance, begin + chance.uniform(0, _STARTED), kinds)
    return replace(schedule, faults=(*schedule.faults, _strike(chance, number)))


def another_name(schedule: Schedule, chance: random.Random) -> Schedule:
    """A rank names another run than the others."""
    launches = list(schedule.launches)
    launches[0] = _many_ranks(launches[0], chance)
    if launches[0].launcher == "elastic":
        launches[0] = replace(launches[0], launcher="torchrun")
    odd = (chance.randrange(launches[0].world_size),)
    variables = tuple((name, "30" if name == "PLUTO_DIST_TIMEOUT" else value) for name, value in launches[0].variables)
    launches[0] = replace(launches[0], odd=odd, late=(), variables=variables)
    return replace(schedule, launches=tuple(launches[:1]), faults=(), weather=())


def a_restart_elsewhere(schedule: Schedule, chance: random.Random) -> Schedule:
    """A rank fails, and its launch goes on with a store of its own, in another order of its nodes, or without one."""
    launches = list(schedule.launches)
    number = chance.randrange(len(launches))
    launch = _restarted(_many_ranks(launches[number], chance), chance, always=True)
    launches[number] = replace(
        launch, work=chance.uniform(2, 30), same_store=chance.random() < 0.5, shuffles=chance.random() < 0.5
    )
    schedule = replace(schedule, launches=tuple(launches))
    what: Death = chance.choice(("raise", "kill", "lose node", "_exit"))
    return _with_fault(schedule, chance, what, number, launches[number].start + chance.uniform(1, 2 + launch.work))


def a_node_that_is_new(schedule: Schedule, chance: random.Random) -> Schedule:
    """A node whose ranks have called nothing yet is in the next attempt, maybe as the first one."""
    launches = list(schedule.launches)
    launch = _restarted(_many_ranks(launches[0], chance), chance, always=True)
    launch = replace(
        launch, nodes=chance.choice((2, 3)), per_node=chance.choice((1, 2)), shuffles=chance.random() < 0.8
    )
    launch = replace(launch, launcher=chance.choice(("elastic", "torchrun")), same_store=chance.random() < 0.8)
    node = chance.randrange(launch.nodes)
    ranks = range(node * launch.per_node, (node + 1) * launch.per_node)
    late = tuple((rank, chance.choice((3.0, 8.0, 25.0))) for rank in ranks)
    launches[0] = replace(launch, late=late, work=chance.uniform(1, 20))
    schedule = replace(schedule, launches=tuple(launches))
    what: Death = chance.choice(("raise", "kill", "lose node", "_exit"))
    return _with_fault(schedule, chance, what, 0, launch.start + chance.uniform(0.5, 6))


def a_silent_store(schedule: Schedule, chance: random.Random) -> Schedule:
    """The host of the ranks' store is stopped, or cut off from another host, as the job begins, trains or ends."""
    launches = list(schedule.launches)
    launch = replace(_many_ranks(launches[0], chance), nodes=chance.choice((2, 3)), per_node=chance.choice((1, 2)))
    launches[0] = replace(launch, work=chance.choice((0.5, chance.uniform(1, 20))))
    begin = launch.start + chance.choice((chance.uniform(0, 4), _STARTED + launches[0].work + chance.uniform(-2, 2)))
    end = begin + chance.choice((chance.uniform(1, 10), chance.uniform(10, 150)))
    schedule = replace(schedule, launches=tuple(launches))
    if chance.random() < 0.3:
        what: Death = chance.choice(("raise", "kill", "preempt"))
        schedule = _with_fault(schedule, chance, what, 0, begin + chance.uniform(0, 3))
    if chance.random() < 0.5:
        return replace(schedule, frozen=((begin, end, 0),))
    return replace(schedule, partitions=((begin, end, chance.randrange(2), chance.choice(("drop", "reset"))),))


def an_offline_part(schedule: Schedule, chance: random.Random) -> Schedule:
    """A launch, or one of its hosts, does not reach the tracker; another one goes on, and a sync comes between."""
    launches = _with_another(schedule.launches) if chance.random() < 0.7 else list(schedule.launches)
    number = chance.randrange(len(launches))
    end = launches[number].start + launches[number].work + chance.uniform(-5, 30)
    schedule = replace(schedule, launches=tuple(launches))
    if chance.random() < 0.4:
        launches[number] = replace(launches[number], options=(*launches[number].options, ("mode", "offline")))
        schedule = replace(schedule, launches=tuple(launches))
    elif chance.random() < 0.5:
        schedule = replace(schedule, cuts=((launches[number].start, end, chance.randrange(2)),))
    else:
        weather = (launches[number].start, end, chance.choice(("refuse", "stall", "500", "garbage", "500 after")), 1.0)
        schedule = replace(schedule, weather=(weather,))
    what: Death = chance.choice(("raise", "preempt", "kill", "SystemExit"))
    schedule = _with_fault(schedule, chance, what, number, end + chance.uniform(-20, 1))
    syncs = tuple(sorted((end + chance.uniform(0, 60), host) for host in range(chance.randrange(4))))
    return replace(schedule, syncs=syncs, shared_spool=chance.random() < 0.3)


def an_outage_at_the_start(schedule: Schedule, chance: random.Random) -> Schedule:
    """The tracker is away as a job begins, and comes back while it trains."""
    launches = list(schedule.launches)
    end = chance.uniform(5, 60)
    launches[0] = replace(_many_ranks(launches[0], chance), start=0.0, work=end + chance.uniform(100, 200))
    weather = (0.0, end, chance.choice(("refuse", "stall", "500", "429", "garbage")), 1.0)
    return replace(schedule, launches=tuple(launches), weather=(weather,), faults=())


def an_outage_in_training(schedule: Schedule, chance: random.Random) -> Schedule:
    """The tracker is away while a job trains, for as long as its monitor waits, or until after the end."""
    launches = list(schedule.launches)
    launches[0] = replace(launches[0], work=chance.choice((chance.uniform(20, 60), chance.uniform(200, 400))))
    begin = _STARTED + chance.uniform(0, 5)
    end = begin + chance.choice((chance.uniform(3, 30), chance.uniform(150, 300), launches[0].work))
    weather = (
        begin,
        end,
        chance.choice(("refuse", "stall", "429", "500", "late", "garbage")),
        chance.choice((1.0, 0.8)),
    )
    schedule = replace(schedule, launches=tuple(launches), weather=(weather,), hosted=chance.random() < 0.7)
    if chance.random() < 0.3:
        return replace(schedule, cancels=(chance.uniform(begin, end + 10),))
    return schedule


def no_heartbeats(schedule: Schedule, chance: random.Random) -> Schedule:
    """The hosted tracker's address for heartbeats is away, its monitor ends the run, and another launch asks for it."""
    launches = _with_another(schedule.launches)
    begin = chance.uniform(100, 300)
    launches[0] = replace(launches[0], start=0.0, work=begin + chance.uniform(30, 100), late=())
    launches[1] = replace(launches[1], start=begin, spread=0.5)
    weather = (chance.uniform(0, 30), chance.choice((begin - 5, begin + 60)), "no heartbeats", 1.0)
    return replace(schedule, launches=tuple(launches), weather=(weather,), hosted=True)


def faults_at_the_end(schedule: Schedule, chance: random.Random) -> Schedule:
    """Ranks fail, are stopped, or come late while others end, and the tracker is slow to take it."""
    launches = list(schedule.launches)
    number = chance.randrange(len(launches))
    launch = _many_ranks(launches[number], chance)
    launches[number] = replace(launch, work=chance.choice((0.0, chance.uniform(0, 2), chance.uniform(3, 12))))
    schedule = replace(schedule, launches=tuple(launches))
    end = launch.start + _STARTED + launches[number].work
    for _ in range(chance.choice((0, 1, 1, 2))):
        what: Death = chance.choice(("raise", "kill", "preempt", "freeze", "_exit", "SystemExit"))
        schedule = _with_fault(
            schedule, chance, what, number, end + chance.uniform(-1.5, 1), seconds=chance.uniform(1, 60)
        )
    if chance.random() < 0.5:
        kinds = ("late", "stall", "500 after", "twice", "cut")
        schedule = _with_weather(schedule, chance, end + chance.uniform(-2, 1), kinds)
    return schedule


def many_attaches(schedule: Schedule, chance: random.Random) -> Schedule:
    """Ranks attach at a low rate, some come late, and the tracker refuses some or takes its time."""
    launches = list(schedule.launches)
    launch = replace(_many_ranks(launches[0], chance), nodes=3, per_node=chance.choice((2, 3)), launcher="torchrun")
    late = tuple((rank, chance.uniform(0, 10)) for rank in range(launch.world_size) if chance.random() < 0.3)
    rate = (("PLUTO_DIST_ATTACH_RATE", chance.choice(("1", "2", "5"))),)
    work = chance.choice((chance.uniform(0, 2), chance.uniform(3, 15)))
    launches[0] = replace(launch, late=late, work=work, variables=(*launch.variables, *rate))
    schedule = replace(schedule, launches=tuple(launches))
    return _with_weather(schedule, chance, chance.uniform(0, 5), ("429", "429", "late", "stall", "500"))


def a_full_disk(schedule: Schedule, chance: random.Random) -> Schedule:
    """The disk takes nothing while the tracker is away."""
    begin, host = chance.uniform(0, 5), chance.randrange(2)
    schedule = replace(schedule, disk=((begin, begin + chance.uniform(1, 60), host),))
    return _with_weather(schedule, chance, chance.uniform(0, 5), ("refuse", "stall", "500"))


def wrong_clocks(schedule: Schedule, chance: random.Random) -> Schedule:
    """The hosts' clocks differ while launches follow each other, or one has to judge whether another one is alive."""
    by = (chance.uniform(-3, 3), chance.uniform(-120, 120), chance.choice((-86400.0, 86400.0)))
    clocks = tuple((host, chance.choice(by), 0.0) for host in range(3) if chance.random() < 0.7)
    scene = chance.choice((twins, a_launch_beside_another, an_offline_part))
    return replace(scene(schedule, chance), clocks=clocks)


SCENES: tuple[Scene, ...] = (
    twins,
    a_launch_beside_another,
    a_launch_after_a_lost_one,
    a_cancel_before_a_restart,
    a_silent_creator,
    another_name,
    a_restart_elsewhere,
    a_node_that_is_new,
    a_silent_store,
    an_offline_part,
    an_outage_at_the_start,
    an_outage_in_training,
    no_heartbeats,
    faults_at_the_end,
    many_attaches,
    a_full_disk,
    wrong_clocks,
    a_run_of_another_program,
)


def _calmed(schedule: Schedule, chance: random.Random) -> Schedule:
    """The schedule without what is left to a scene; some of the rest stays."""
    keeps = chance.random() < 0.25
    launches = [replace(each, work=min(each.work, 30.0), late=each.late * keeps, odd=()) for each in schedule.launches]
    return replace(
        schedule,
        launches=tuple(launches),
        faults=schedule.faults * keeps,
        weather=schedule.weather * keeps,
        cuts=(),
        cancels=(),
        disk=(),
        syncs=schedule.syncs * keeps,
        clocks=schedule.clocks * keeps,
        limit=schedule.limit and keeps,
    )


def _alike(schedule: Schedule) -> Schedule:
    """The schedule with one launcher for all launches, by which their job is known: one that a scene asks for."""
    asked = [launch.launcher for launch in schedule.launches]
    chosen = next((launcher for launcher in asked if launcher in HAVE_AGENT), asked[0])
    return replace(schedule, launches=tuple(replace(each, launcher=chosen) for each in schedule.launches))


def _with_another(launches: tuple[Launch, ...]) -> list[Launch]:
    """At least two launches, which continue one job."""
    first = launches[0]
    if len(launches) > 1:
        return list(launches)
    kept = tuple((name, value) for name, value in first.variables if name.startswith("PLUTO_DIST_"))
    first = replace(first, options=(("resume", True),), variables=(*kept, *_NAMED))
    return [first, replace(first, start=first.start + first.work + 30.0)]


def _restarted(launch: Launch, chance: random.Random, *, always: bool = False) -> Launch:
    """The launch, with restarts left where it can have any."""
    if always and launch.launcher not in HAVE_AGENT:
        launch = replace(launch, launcher=chance.choice(HAVE_AGENT))
    if launch.launcher not in HAVE_AGENT or not (always or chance.random() < 0.5):
        return launch
    return replace(launch, restarts=max(1, launch.restarts))


def _many_ranks(launch: Launch, chance: random.Random) -> Launch:
    if launch.launcher == "single":
        launch = replace(launch, launcher="torchrun")
    return launch if launch.world_size > 1 else replace(launch, nodes=chance.choice((1, 2)), per_node=2)


def _with_fault(
    schedule: Schedule, chance: random.Random, what: Death, number: int, at: float, *, seconds: float = 0.0
) -> Schedule:
    """The schedule with a fault of a rank of launch ``number``, about ``at`` seconds after the job began."""
    launch = schedule.launches[number]
    rank = chance.choice((0, chance.randrange(launch.world_size)))
    after = max(0.0, at - launch.start - chance.uniform(0, _STARTED))
    fault = Fault(what, number, rank, at=after, seconds=seconds if what == "freeze" else 0.0)
    return replace(schedule, faults=(*schedule.faults, fault))


def _strike(chance: random.Random, number: int) -> Fault:
    """Rank 0 of launch ``number`` is killed, or stopped, during one of its first requests, or about then."""
    what: Death = chance.choice(("freeze", "kill"))
    seconds = chance.uniform(2, 80) if what == "freeze" else 0.0
    if chance.random() < 0.7:
        is_sent = chance.random() < 0.5
        return Fault(what, number, 0, request=chance.randrange(1, 7), is_sent=is_sent, seconds=seconds)
    return Fault(what, number, 0, at=chance.uniform(0, 1.5), seconds=seconds)


def _with_weather(schedule: Schedule, chance: random.Random, begin: float, kinds: tuple[str, ...]) -> Schedule:
    """The schedule with one spell of weather."""
    lasts = chance.choice((chance.uniform(0.1, 3), chance.uniform(3, 15), chance.uniform(15, 90)))
    spell: tuple[Any, ...] = (begin, begin + lasts, chance.choice(kinds), chance.choice((1.0, 0.5)))
    return replace(schedule, weather=(*schedule.weather, spell))
