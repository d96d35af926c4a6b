"""What a seed means: the launches of one job, and what goes wrong. Plain data, so that a schedule can be shrunk."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal

Launcher = Literal["torchrun", "elastic", "supervised", "srun", "bare", "single"]
Ending = Literal["finish", "with", "exit"]
Death = Literal["raise", "SystemExit", "kill", "_exit", "preempt", "lose node", "freeze"]

EXPERIMENT = "my-experiment"  # a run that the user has named
Names = tuple[tuple[tuple[str, object], ...], tuple[tuple[str, str], ...]]  # arguments and variables


@dataclass(frozen=True)
class Fault:
    """Something that happens to a process.

    Attributes:
        what: "preempt" is SIGTERM to the agent, or to all tasks; "lose node" ends all processes of a host.
        launch: number of the launch.
        attempt: in which attempt; only its workers are meant.
        rank: the worker, whose node is meant for "lose node" and "preempt".
        at: seconds after the worker's start, if ``operation`` is 0.
        operation: the call of store, HTTP or disk at which a "kill" comes.
        request: the call of HTTP at which a "kill" or a "freeze" comes.
        is_sent: whether that request is on its way by then.
        seconds: how long a "freeze" lasts.
    """

    what: Death
    launch: int
    rank: int
    attempt: int = 0
    at: float = 0.0
    operation: int = 0
    request: int = 0
    is_sent: bool = True
    seconds: float = 0.0


@dataclass(frozen=True)
class Launch:
    """One start of the job.

    Attributes:
        start: when, in seconds.
        spread: within how many seconds its agents, or tasks, start.
        nodes, per_node: how many ranks.
        restarts: the agent's ``--max-restarts``.
        same_store: whether the store outlives the attempts, as torchrun's own does.
        shuffles: whether the nodes change places from one attempt to the next.
        late: seconds by which a rank starts later than the others, by rank.
        work: how long the training takes, in seconds.
        ending: how the script ends its run.
        waits: ``init(wait=)``.
        updates: calls of ``update_config``.
        absent: ranks that never call ``init()``.
        options: arguments of ``init()``.
        variables: of the environment.
        odd: ranks whose environment names another run.
    """

    launcher: Launcher
    start: float = 0.0
    spread: float = 2.0
    nodes: int = 1
    per_node: int = 1
    restarts: int = 0
    same_store: bool = True
    shuffles: bool = False
    late: tuple[tuple[int, float], ...] = ()
    work: float = 10.0
    ending: Ending = "finish"
    waits: bool = True
    updates: int = 0
    absent: tuple[int, ...] = ()
    options: tuple[tuple[str, object], ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    odd: tuple[int, ...] = ()

    @property
    def world_size(self) -> int:
        return self.nodes * self.per_node


@dataclass(frozen=True)
class Schedule:
    """One job.

    Attributes:
        seed: of what is left to chance while it runs.
        hosted: whether the tracker has the hosted one's manners.
        launches: in order of their start.
        faults: of processes.
        weather: what requests meet: (from, to, what, part of them).
        cuts: hosts that do not reach the tracker: (from, to, number of the host).
        partitions: hosts that do not reach the stores of other hosts, nor these its own: (from, to, number of the host,
            how). "drop": a call waits until it is over; "reset": it fails at once.
        frozen: SIGSTOP of all processes of a host: (from, to, number of the host).
        cancels: when a person cancels the run.
        syncs: when ``pluto-dist sync`` runs, and on which host.
        clocks: by how much a host's wall clock is wrong, by number of the host; a second number is a step at 20 s.
        disk: (from, to, number of the host): no call of the disk succeeds.
        threadless: hosts where no thread can be started: (from, to, number of the host).
        shared_spool: whether the hosts share the folder of kept requests.
        limit: whether the organization is at its limit.
        foreign: the status of a run with the job's id that another program has created before; "" if there is none.
    """

    seed: int
    hosted: bool = False
    launches: tuple[Launch, ...] = ()
    faults: tuple[Fault, ...] = ()
    weather: tuple[tuple[float, float, str, float], ...] = ()
    cuts: tuple[tuple[float, float, int], ...] = ()
    partitions: tuple[tuple[float, float, int, str], ...] = ()
    frozen: tuple[tuple[float, float, int], ...] = ()
    cancels: tuple[float, ...] = ()
    syncs: tuple[tuple[float, int], ...] = ()
    clocks: tuple[tuple[int, float, float], ...] = ()
    disk: tuple[tuple[float, float, int], ...] = ()
    threadless: tuple[tuple[float, float, int], ...] = ()
    shared_spool: bool = False
    limit: bool = False
    foreign: str = ""


@dataclass(frozen=True)
class Profile:
    """From what schedules are drawn.

    Attributes:
        timeouts, heartbeats: in seconds; one is drawn for a schedule.
        launches: how often there are one, two, three.
        scenes: whether each schedule has one or two of the scenes in which faults meet.
    """

    name: str
    timeouts: tuple[float, ...] = (30.0,)
    heartbeats: tuple[float, ...] = (10.0,)
    launches: tuple[int, int, int] = (70, 22, 8)
    scenes: bool = False


PROFILES = {
    "scenes": Profile("scenes", (3.0, 10.0, 30.0), (1.0, 10.0), launches=(45, 45, 10), scenes=True),
    "default": Profile("default"),
    "short": Profile("short", timeouts=(0.5, 1.0, 3.0, 10.0), heartbeats=(0.5, 1.0, 3.0)),
}
_LAUNCHERS: tuple[Launcher, ...] = ("torchrun", "elastic", "supervised", "srun", "bare", "single")
SPELLS = ("cuts", "partitions", "frozen", "cancels", "syncs", "clocks", "disk", "threadless")  # of a schedule
HAVE_AGENT: tuple[Launcher, ...] = ("torchrun", "elastic", "supervised")
WEATHERS = ("refuse", "stall", "429", "500", "500 after", "garbage", "cut", "late", "twice")


def spread(seed: int, profile: Profile) -> Schedule:
    """The schedule of a seed, with what happens spread over the whole job."""
    chance = random.Random(f"schedule {profile.name} {seed}")
    count = chance.choices((1, 2, 3), profile.launches)[0]
    names = _identity(chance, count)
    timeout, heartbeat = chance.choice(profile.timeouts), chance.choice(profile.heartbeats)
    common = (("PLUTO_DIST_TIMEOUT", f"{timeout:g}"), ("PLUTO_DIST_HEARTBEAT", f"{heartbeat:g}"))
    launches: list[Launch] = []
    start = 0.0
    launcher = chance.choices(_LAUNCHERS, (30, 15, 25, 12, 10, 8))[0]
    for _ in range(count):
        launch = _launch(chance, launcher, names, common)
        launches.append(replace(launch, start=start))
        # The next one beside it, soon after it, or long after it.
        start += chance.choice((chance.uniform(0, 3), launch.work + chance.uniform(0, 60), chance.uniform(100, 400)))
    faults = tuple(
        _fault(chance, number, launch)
        for number, launch in enumerate(launches)
        for _ in range(chance.choices((0, 1, 2, 3), (45, 35, 15, 5))[0])
    )
    schedule = Schedule(
        seed,
        hosted=chance.random() < 0.5,
        launches=tuple(launches),
        faults=faults,
        weather=_weather(chance, start + 60),
        cuts=((0.0, chance.uniform(5, 100), chance.randrange(3)),) if chance.random() < 0.08 else (),
        cancels=(chance.uniform(0, start + 40),) if chance.random() < 0.08 else (),
        syncs=_syncs(chance, start + 60),
        clocks=_clocks(chance),
        shared_spool=chance.random() < 0.3,
        limit=chance.random() < 0.02,
    )
    schedule = _with_rarities(schedule, random.Random(f"rarities {profile.name} {seed}"), start + 60)
    return _with_broken_hosts(schedule, random.Random(f"hosts {profile.name} {seed}"), start + 60)


def _with_rarities(schedule: Schedule, chance: random.Random, length: float) -> Schedule:
    """The schedule with what is rare: a low rate of attaches, a rank that names another run, a disk that is full."""
    launches = []
    for launch in schedule.launches:
        rate = (("PLUTO_DIST_ATTACH_RATE", "2"),) if chance.random() < 0.1 else ()
        is_calm = not (schedule.faults or schedule.weather or launch.late) and launch.launcher != "elastic"
        is_slow = ("PLUTO_DIST_TIMEOUT", "30") in launch.variables  # every rank is there before another takes over
        is_odd = launch.world_size > 1 and chance.random() < 0.1 and is_calm and is_slow
        odd = (chance.randrange(launch.world_size),) if is_odd else ()
        launches.append(replace(launch, variables=launch.variables + rate, odd=odd))
    begin = chance.choice((0.0, chance.uniform(0, length)))
    disk = ((begin, begin + chance.uniform(1, length), chance.randrange(3)),) if chance.random() < 0.05 else ()
    return replace(schedule, launches=tuple(launches), disk=disk)


def _with_broken_hosts(schedule: Schedule, chance: random.Random, length: float) -> Schedule:
    """The schedule with what befalls all of a host: it is cut off from the stores, is frozen, or has no threads."""

    def spells(part: float) -> tuple[tuple[float, float, int], ...]:
        if chance.random() > part:
            return ()
        begin = chance.choice((0.0, chance.uniform(0, 8), chance.uniform(0, length)))
        return ((begin, begin + chance.choice((chance.uniform(0.2, 8), chance.uniform(8, 200))), chance.randrange(3)),)

    return replace(
        schedule,
        partitions=tuple((*spell, chance.choice(("drop", "reset"))) for spell in spells(0.04)),
        frozen=spells(0.04),
        threadless=spells(0.02),
    )


def _identity(
    chance: random.Random, launches: int
) -> tuple[tuple[tuple[str, object], ...], tuple[tuple[str, str], ...]]:
    """Arguments and variables by which the launches of the job are one run, or are not."""
    kind = chance.choice(("token", "token", "rdzv", "run_id", "resume", "resume")) if launches == 1 else "resume"
    if kind == "run_id" or (launches > 1 and chance.random() < 0.25):
        return (("resume", True),) * (launches > 1), (("PLUTO_RUN_ID", EXPERIMENT),)
    if kind == "resume":
        return (("resume", True),), (("SLURM_CLUSTER_NAME", "lab"), ("SLURM_JOB_ID", "4711"), ("rdzv", "my-job"))
    return (), (("rdzv", "my-job"),) * (kind == "rdzv")


def _launch(
    chance: random.Random,
    launcher: Launcher,
    names: Names,
    common: tuple[tuple[str, str], ...],
) -> Launch:
    nodes = 1 if launcher == "single" else chance.choices((1, 2, 3), (45, 40, 15))[0]
    per_node = 1 if launcher == "single" else chance.choices((1, 2, 3), (45, 40, 15))[0]
    if launcher in ("srun", "bare") and nodes * per_node == 1:
        per_node = 2
    ranks = range(nodes * per_node)
    has_agent = launcher in HAVE_AGENT
    options, variables = names
    if chance.random() < 0.7:
        variables = (*variables, ("PLUTO_DIST_METADATA", "0"))
    return Launch(
        launcher,
        nodes=nodes,
        per_node=per_node,
        restarts=chance.choices((0, 1, 2), (50, 30, 20))[0] if has_agent else 0,
        same_store=chance.random() < 0.7,
        shuffles=chance.random() < 0.3,
        late=tuple((rank, chance.uniform(0, 25)) for rank in ranks if chance.random() < 0.1),
        work=chance.choice((0.0, chance.uniform(0, 3), chance.uniform(3, 30), chance.uniform(30, 100))),
        ending=chance.choice(("finish", "with", "exit")),
        waits=chance.random() < 0.8,
        updates=chance.choice((0, 0, 1, 3)),
        absent=tuple(rank for rank in ranks if chance.random() < 0.03) if len(ranks) > 1 else (),
        options=options + ((("mode", "offline"),) if chance.random() < 0.05 else ()),
        variables=(*common, *variables),
    )


def _fault(chance: random.Random, number: int, launch: Launch) -> Fault:
    rank = chance.randrange(launch.world_size)
    attempt = chance.choices((0, 1, 2), (70, 22, 8))[0]
    what = chance.choices(
        ("raise", "SystemExit", "kill", "_exit", "preempt", "lose node", "freeze"), (25, 8, 25, 5, 17, 8, 12)
    )[0]
    at = chance.choice((chance.uniform(0, 1), chance.uniform(0, 10), chance.uniform(0, 10 + launch.work)))
    operation = chance.randrange(1, 80) if what == "kill" and chance.random() < 0.6 else 0
    seconds = chance.choice((chance.uniform(0.1, 3), chance.uniform(3, 40), chance.uniform(40, 200)))
    return Fault(what, number, rank, attempt, at, operation, seconds=seconds if what == "freeze" else 0.0)


def _weather(chance: random.Random, length: float) -> tuple[tuple[float, float, str, float], ...]:
    spells = []
    for _ in range(chance.choices((0, 1, 2, 3), (45, 30, 15, 10))[0]):
        begin = chance.choice((0.0, chance.uniform(0, 5), chance.uniform(0, length)))
        lasts = chance.choice((chance.uniform(0.1, 5), chance.uniform(5, 60), chance.uniform(60, 300)))
        spells.append((begin, begin + lasts, chance.choice(WEATHERS), chance.choice((1.0, 1.0, 0.5, 0.2))))
    return tuple(spells)


def _syncs(chance: random.Random, length: float) -> tuple[tuple[float, int], ...]:
    count = chance.choices((0, 1, 2), (75, 15, 10))[0]
    return tuple(sorted((chance.uniform(0, length + 60), chance.randrange(3)) for _ in range(count)))


def _clocks(chance: random.Random) -> tuple[tuple[int, float, float], ...]:
    if chance.random() > 0.25:
        return ()
    wrong = (chance.uniform(-3, 3), chance.uniform(-90, 90), chance.choice((-86400.0, -3600.0, 3600.0, 86400.0)))
    return tuple(
        (host, chance.choice(wrong), chance.choice((0.0, 0.0, chance.uniform(-60, 60))))
        for host in range(3)
        if chance.random() < 0.5
    )
