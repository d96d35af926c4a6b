"""The player of launchers: starts the ranks of a launch as torchrun, srun or a shell would, and ends them so.

Scripts are :func:`_script`: ``init()``, a training whose collectives break when another rank is gone, the end. What the
player does not share with the package is how torch's agents meet: they know of each other here.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pluto_dist import api
from pluto_dist.client import tracker_client
from pluto_dist.contract.failure import Failure, now_ms
from pluto_dist.errors import PlutoDistError
from pluto_dist.launcher import root_cause
from pluto_dist.launcher.supervisor import Supervisor
from pluto_dist.lifecycle.process_end import Ending
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.session import Session
from pluto_dist.rendezvous.worker_reports import read_failure, read_run
from pluto_dist.run import Run
from pluto_dist.settings import settings
from pluto_dist.settings.arguments import Arguments
from simulation.kernel import BOOTED, Host, Process, World
from simulation.schedule import HAVE_AGENT, Fault, Launch
from simulation.tracker import KEY, PY, WEB
from simulation.transport import Stores, StoreServer

ODD = "another-run"  # what an odd rank of a launch names
GRACE = 30.0  # seconds that torch's agent, and srun, give a worker after SIGTERM
EXIT_BARRIER = 300.0  # seconds that an agent whose workers are done waits for the others
LOOK = 0.2  # seconds between two looks of an agent at its workers
BREAK = (0.0, 4.0)  # how long a collective takes to notice that another rank is gone


@dataclass(eq=False)
class Part:
    """One rank of one attempt, as its script saw it.

    Attributes:
        end: how the process ended: "done", "raised", "SIGTERM", "killed", "exit N".
        facts: what the run said: id, mode, resumed, ...
    """

    launch: int
    attempt: int
    rank: int
    process: Process
    timeout: float
    began: float | None = None
    returned: float | None = None
    error: str | None = None
    run: Run | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    finishing: float | None = None
    finished: float | None = None
    intended: str = "done"
    signalled: float | None = None
    session: Session | None = None

    @property
    def token(self) -> str:
        """Its launch's token, as far as it came to know it."""
        membership = None if self.session is None else self.session._membership
        return "" if membership is None else membership.token

    @property
    def tokens(self) -> set[str]:
        """The same, and the one that it makes if it is alone."""
        return {self.token} | (set() if self.session is None else {self.session._fresh_token})

    @property
    def settled_at(self) -> float:
        """When this rank learnt of the run; never, if that was offline then."""
        participant = None if self.run is None else self.run._participant
        if participant is None or not participant.settled.done() or participant.settled.exception() is not None:
            return math.inf
        return participant._settled_at - BOOTED if participant.settled.result().kind == "online" else math.inf

    @property
    def end(self) -> str:
        code = self.process.exit_code
        if code is None:
            return "alive"
        return {0: "done", -9: "killed", -15: "SIGTERM"}.get(
            code, "raised" if self.intended == "raise" else f"exit {code}"
        )


@dataclass(eq=False)
class Attempt:
    """The workers that run at the same time, which have their collectives in common."""

    number: int
    parts: list[Part] = field(default_factory=list)
    is_broken: bool = False
    _wakers: list[Callable[..., None]] = field(default_factory=list)

    def break_up(self) -> None:
        self.is_broken = True
        wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake(True)

    def train(self, world: World, part: Part, seconds: float) -> None:
        """Raises RuntimeError if another rank is gone meanwhile, as a collective does."""
        if not self.is_broken:
            self._wakers.append(world.waker())
            if not world.block(seconds):
                return
        world.sleep(world.random.uniform(*BREAK))
        part.intended = "raise"
        raise RuntimeError("Connection closed by peer")


@dataclass(eq=False)
class Job:
    """All launches of a schedule.

    Attributes:
        attempts: of each launch, by its number.
        ends: how each launch's launcher saw the end: "success", "failure", "signal"; absent while it runs.
    """

    world: World
    hosts: list[Host]
    stores: Stores
    launches: tuple[Launch, ...]
    faults: tuple[Fault, ...]
    attempts: dict[int, list[Attempt]] = field(default_factory=dict)
    ends: dict[int, str] = field(default_factory=dict)
    agents: dict[int, list[Process]] = field(default_factory=dict)

    @property
    def parts(self) -> list[Part]:
        return [part for attempts in self.attempts.values() for attempt in attempts for part in attempt.parts]

    def start(self) -> None:
        for number, launch in enumerate(self.launches):
            play = _Agents(self, number, launch) if launch.launcher in HAVE_AGENT else _Tasks(self, number, launch)
            self.world.at(launch.start, play.start)


class _Play:
    """What all launchers do: start a worker, and let its faults happen."""

    def __init__(self, job: Job, number: int, launch: Launch) -> None:
        self.job, self.world, self.number, self.launch = job, job.world, number, launch
        self.attempts: list[Attempt] = []
        job.attempts[number] = self.attempts
        job.agents[number] = []

    def base_environ(self, host: Host) -> dict[str, str]:
        named = {name: value for name, value in self.launch.variables if name != "rdzv"}
        return {
            "PLUTO_API_KEY": KEY,
            "PLUTO_URL_API": WEB,
            "PLUTO_URL_PY": PY,
            "PLUTO_DIR": f"{host.folder}/state",
            **named,
        }

    def worker(self, attempt: Attempt, host: Host, rank: int, environ: dict[str, str], local_rank: int) -> Part:
        world, launch = self.world, self.launch
        name = f"L{self.number}.{attempt.number} rank {rank}"
        process = world.process(host, name, {**self.base_environ(host), **environ, "LOCAL_RANK": str(local_rank)})
        if rank in launch.odd:
            process.environ["PLUTO_RUN_ID"] = ODD
        timeout = float(dict(launch.variables)["PLUTO_DIST_TIMEOUT"])
        part = Part(self.number, attempt.number, rank, process, timeout)
        attempt.parts.append(part)
        late = dict(launch.late).get(rank, 0.0) if attempt.number == 0 else 0.0
        faults = [fault for fault in self.job.faults if (fault.launch, fault.attempt, fault.rank) == part_key(part)]
        for fault in faults:
            self._arrange(fault, part, late)
        process.on_end.append(lambda code: code and attempt.break_up())
        task = world.spawn(process, "main", lambda: _main(self, attempt, part, faults), late)
        process.state["main"] = task
        return part

    def _arrange(self, fault: Fault, part: Part, late: float) -> None:
        world, process = self.world, part.process

        def at(action: Callable[[], None]) -> None:
            world.after(late + fault.at, lambda: action() if process.is_alive else None)

        def kill() -> None:
            world.tell(process.name, "SIGKILL")
            world.kill(process)

        def freeze() -> None:
            world.freeze(process, fault.seconds)

        if fault.request:
            process.strikes[fault.request] = (fault.is_sent, kill if fault.what == "kill" else freeze)
        elif fault.what == "kill" and fault.operation:
            process.killed_at_operation = fault.operation
        elif fault.what == "kill":
            at(kill)
        elif fault.what == "freeze":
            at(freeze)
        elif fault.what == "lose node":
            at(lambda: self._lose(process.host))
        elif fault.what == "preempt":
            at(self.preempt)

    def _lose(self, host: Host) -> None:
        self.world.tell(host.name, f"is lost, with all processes of launch {self.number}")
        members = [part.process for attempt in self.attempts for part in attempt.parts] + self.job.agents[self.number]
        for process in members:
            if process.host is host:
                self.world.kill(process)

    def preempt(self) -> None:
        raise NotImplementedError


def part_key(part: Part) -> tuple[int, int, int]:
    return part.launch, part.attempt, part.rank


class _Agents(_Play):
    """torchrun, and `pluto-dist run`: one agent on each node."""

    def start(self) -> None:
        launch, world = self.launch, self.world
        self.nodes = list(range(launch.nodes))
        self.ready: dict[int, set[int]] = {}
        self.round = 0
        self.port = 29500 + 100 * self.number
        self.is_closed = False
        for node in self.nodes:
            host = self.job.hosts[node]
            agent = world.process(host, f"L{self.number} agent {node}", self.base_environ(host))
            agent.state["node"] = node
            agent.on_sigterm = lambda agent=agent: agent.state.setdefault("signalled", True)  # type: ignore[misc]
            self.job.agents[self.number].append(agent)
        first = self.job.agents[self.number][0]
        self.job.stores.servers[("host-0", self.port)] = StoreServer(world, first)
        for agent in self.job.agents[self.number]:
            world.spawn(agent, "main", lambda agent=agent: self._main(agent), world.random.uniform(0, launch.spread))  # type: ignore[misc]

    def preempt(self) -> None:
        for agent in self.job.agents[self.number]:
            if agent.is_alive:
                self.world.signal(agent)

    def _main(self, agent: Process) -> None:
        node = agent.state["node"]
        supervisor, folder = None, None
        if self.launch.launcher == "supervised":
            path = Path(agent.host.folder) / f"launch-{self.number}-{agent.pid}"
            path.mkdir(mode=0o700)
            folder = NodeState(path)
            chosen = settings.load(agent.environ)
            supervisor = Supervisor(
                folder,
                lambda: tracker_client.from_settings(chosen, f"launcher; {agent.host.name}"),
                chosen.spool,
                chosen.heartbeat,
                lambda: agent.state.setdefault("signalled", True),
            )
            agent.state["folder"] = str(path)
        end, failures = self._attempts(agent, node)
        self.job.ends[self.number] = max(end, self.job.ends.get(self.number, ""), key=_GRAVER.index)
        if supervisor is not None and folder is not None:
            self._report(agent, supervisor, folder, end, failures)
        self.world.kill(agent, 0 if end == "success" else 1)

    def _report(
        self, agent: Process, supervisor: Supervisor, folder: NodeState, end: str, failures: list[Failure]
    ) -> None:
        """As ``launcher.agent.run`` does."""
        host = agent.host.name
        if end == "success":
            supervisor.end("COMPLETED")
        elif end == "signal" and supervisor.cancelled:
            supervisor.end("CANCELLED")
        elif end == "signal":
            supervisor.end("TERMINATED", Failure("SIGTERM to the launcher", host, at_ms=now_ms()))
        elif failures:
            run = read_run(folder)
            reported = None if run is None else read_failure(folder, run.nonce)
            supervisor.end("FAILED", root_cause.find(failures, reported=reported))
        else:
            supervisor.end("FAILED", Failure("the launcher failed: rendezvous", host, at_ms=now_ms()))

    def _attempts(self, agent: Process, node: int) -> tuple[str, list[Failure]]:
        """Run this node's workers until the end: "success", "failure" or "signal", and who failed."""
        world, launch = self.world, self.launch
        restarts = 0
        while True:
            members = self._meet(agent, node)
            if members is None:
                return ("signal" if agent.state.get("signalled") else "failure"), []
            mine = self._start_workers(agent, node, members, restarts)
            begun = self.round
            while True:
                world.sleep(LOOK)
                codes = [part.process.exit_code for part in mine]
                if agent.state.get("signalled"):
                    self._stop(mine)
                    return "signal", []
                failed = [part for part in mine if part.process.exit_code not in (None, 0)]
                if failed:
                    failures = [self._failure(part) for part in failed]
                    self._stop(mine)
                    failures += [self._failure(part) for part in mine if part not in failed and part.process.exit_code]
                    if restarts < launch.restarts and not self.is_closed:
                        restarts += 1
                        self.round = max(self.round, begun + 1)
                        break
                    self.is_closed = launch.launcher != "elastic" or self.is_closed
                    return "failure", failures
                if all(code == 0 for code in codes):
                    self._exit_barrier(agent)
                    return ("signal" if agent.state.get("signalled") else "success"), []
                if self.round > begun:  # another node restarts; this one's workers go too
                    self._stop(mine)
                    break

    def _exit_barrier(self, agent: Process) -> None:
        """Wait for the other agents, as torch's does before it returns."""
        agent.state["done"] = True
        until = self.world.now + EXIT_BARRIER
        while self.world.now < until and not agent.state.get("signalled"):
            if all(each.state.get("done") or not each.is_alive for each in self.job.agents[self.number]):
                return
            self.world.sleep(LOOK)

    def _meet(self, agent: Process, node: int) -> list[int] | None:
        """The nodes of the next attempt, in order; ``None`` if there will be none."""
        world = self.world
        number = self.round
        self.ready.setdefault(number, set()).add(node)
        until = world.now + 60
        while True:
            alive = {each.state["node"] for each in self.job.agents[self.number] if each.is_alive}
            least = 1 if self.launch.launcher == "elastic" else self.launch.nodes
            ready = self.ready[number] & alive
            if self.round > number:
                number = self.round
                self.ready.setdefault(number, set()).add(node)
                continue
            if len(ready) >= least and (ready == alive or number in self._settled):
                return self._settled.setdefault(number, self._order(number, ready))
            if self.is_closed or agent.state.get("signalled") or world.now > until or len(alive) < least:
                return None
            world.sleep(LOOK)

    @property
    def _settled(self) -> dict[int, list[int]]:
        return self.__dict__.setdefault("settled", {})

    def _order(self, number: int, ready: set[int]) -> list[int]:
        order = sorted(ready)
        if self.launch.shuffles and number:
            self.world.random.shuffle(order)
        return order

    def _start_workers(self, agent: Process, node: int, members: list[int], restarts: int) -> list[Part]:
        launch, world, host = self.launch, self.world, agent.host
        number = self.round
        while len(self.attempts) <= number:
            self.attempts.append(Attempt(len(self.attempts)))
        attempt = self.attempts[number]
        place = members.index(node) if node in members else 0
        first = self.job.hosts[members[0]]
        address, port = "host-0", self.port
        if not launch.same_store:
            address, port = first.name, self.port + 1 + number
            if place == 0:
                self.job.stores.servers[(address, port)] = StoreServer(world, agent)
            else:
                while (address, port) not in self.job.stores.servers and not agent.state.get("signalled"):
                    if not any(each.is_alive and each.host is first for each in self.job.agents[self.number]):
                        break
                    world.sleep(LOOK)
        logs = Path(host.folder) / f"logs-{self.number}-{agent.pid}"
        folder = logs / f"attempt_{restarts}"
        if not logs.exists():
            logs.mkdir(mode=0o700)
        if folder.exists():
            for file in sorted(folder.iterdir()):
                file.unlink()
            folder.rmdir()
        folder.mkdir(mode=0o700)
        named = dict(launch.variables).get("rdzv", "none")
        common = {
            "TORCHELASTIC_RUN_ID": named,
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": str(restarts),
            "TORCHELASTIC_MAX_RESTARTS": str(launch.restarts),
            "MASTER_ADDR": address,
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(len(members) * launch.per_node),
            "LOCAL_WORLD_SIZE": str(launch.per_node),
            "GROUP_RANK": str(place),
            "GROUP_WORLD_SIZE": str(len(members)),
        }
        if "folder" in agent.state:
            common |= {"PLUTO_DIST_LAUNCH_FOLDER": agent.state["folder"], "PLUTO_DIST_SUPERVISOR": f"{agent.pid} 1"}
        parts = []
        for local in range(launch.per_node):
            rank = place * launch.per_node + local
            file = str(folder / str(local) / "error.json")
            environ = {**common, "RANK": str(rank), "TORCHELASTIC_ERROR_FILE": file}
            part = self.worker(attempt, host, rank, environ, local)
            agent.on_end.append(lambda code, part=part: self.world.kill(part.process) if code == -9 else None)  # type: ignore[misc]
            parts.append(part)
        return parts

    def _stop(self, parts: list[Part]) -> None:
        """SIGTERM, and SIGKILL after the grace."""
        world = self.world
        for part in parts:
            if part.process.is_alive:
                part.signalled = world.now
                world.signal(part.process)
        until = world.now + GRACE
        while any(part.process.is_alive for part in parts) and world.now < until:
            world.sleep(LOOK)
        for part in parts:
            world.kill(part.process)

    def _failure(self, part: Part) -> Failure:
        reason = "RuntimeError: it raised" if part.intended == "raise" else ""
        return Failure(reason, part.process.host.name, part.rank, now_ms(), part.process.exit_code)


_GRAVER = ("", "success", "signal", "failure")


class _Tasks(_Play):
    """srun, which ends all tasks when one fails; a shell, which ends none; and one process alone."""

    def start(self) -> None:
        launch, world = self.launch, self.world
        attempt = Attempt(0)
        self.attempts.append(attempt)
        port = 26000 + 100 * self.number
        for rank in range(launch.world_size):
            node, local = divmod(rank, launch.per_node)
            host = self.job.hosts[node]
            part = self.worker(attempt, host, rank, self._environ(rank, node, local, port), local)
            if launch.launcher == "srun":
                part.process.on_end.append(lambda code: code and self._kill_all())
        world.spawn(world.process(self.job.hosts[0], f"L{self.number} waits"), "main", lambda: self._await(attempt))

    def _environ(self, rank: int, node: int, local: int, port: int) -> dict[str, str]:
        launch = self.launch
        if launch.launcher == "single":
            return {}
        address = {"MASTER_ADDR": "host-0", "MASTER_PORT": str(port)}
        if launch.launcher == "bare":
            return {**address, "RANK": str(rank), "WORLD_SIZE": str(launch.world_size)}
        return {
            **address,
            "SLURM_JOB_ID": dict(launch.variables).get("SLURM_JOB_ID", str(100 + self.number)),
            "SLURM_STEP_ID": "0",
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(local),
            "SLURM_NODEID": str(node),
            "SLURM_STEP_NUM_TASKS": str(launch.world_size),
            "SLURM_STEP_NUM_NODES": str(launch.nodes),
            "SLURM_STEP_TASKS_PER_NODE": f"{launch.per_node}(x{launch.nodes})",
        }

    def preempt(self) -> None:
        self._kill_all()

    def _kill_all(self) -> None:
        if self.__dict__.setdefault("ending", False):
            return
        self.ending = True
        delay = self.world.random.uniform(0, 2)
        self.world.after(delay, self._signal_all)
        self.world.after(delay + GRACE, lambda: [self.world.kill(part.process) for part in self.attempts[0].parts])

    def _signal_all(self) -> None:
        for part in self.attempts[0].parts:
            if part.process.is_alive:
                part.signalled = self.world.now
                self.world.signal(part.process)

    def _await(self, attempt: Attempt) -> None:
        while any(part.process.is_alive for part in attempt.parts):
            self.world.sleep(1.0)
        codes = [part.process.exit_code for part in attempt.parts]
        assert self.world.task is not None
        self.world.after(0.0, lambda process=self.world.task.process: self.world.kill(process, 0))  # type: ignore[misc]
        self.job.ends[self.number] = "success" if not any(codes) else "signal" if -15 in codes else "failure"


# One rank's process.


def _main(play: _Play, attempt: Attempt, part: Part, faults: list[Fault]) -> None:
    """The script, and what Python does at its end."""
    world, process = play.world, part.process
    code, ending = 0, Ending()
    try:
        _script(play, attempt, part, faults)
    except SystemExit as error:
        code, ending = int(error.code or 0), Ending.of_exception(error)
    except Exception as error:  # noqa: BLE001  # what the script raises goes to the hooks, as in Python
        part.intended = "raise"
        world.tell(process.name, f"{type(error).__name__}: {str(error).splitlines()[0]}")
        code = 1
        part.finishing = part.finishing or world.now
        for hooks in list(process.state.get("hooks", ())):
            hooks.on_end(Ending.of_exception(error))
    part.finishing = part.finishing or world.now
    for hooks in list(process.state.get("hooks", ())):
        hooks.on_end(ending)
    part.finished = part.finished or world.now
    world.tell(process.name, f"ends with exit code {code}")
    world.kill(process, code)


def _script(play: _Play, attempt: Attempt, part: Part, faults: list[Fault]) -> None:
    world, launch, process = play.world, play.launch, part.process
    started = world.now
    if part.rank in launch.absent:
        _train(world, launch.work, attempt, part, faults, started)
        return
    part.began = world.now
    try:
        arguments = Arguments(**dict(launch.options), config={"lr": 0.1})  # type: ignore[arg-type]
        part.session = (state := api.ProcessState(pid=process.pid)).session
        run = api.begin(arguments, state, process.environ, wait=launch.waits)
    except PlutoDistError as error:
        part.returned, part.error = world.now, type(error).__name__
        raise
    part.returned, part.run = world.now, run
    world.tell(process.name, f"init() returns: {_facts(part, run)}")
    if launch.ending == "with":
        with run:
            _train(world, launch.work, attempt, part, faults, started, run, launch.updates)
            part.finishing = world.now
    else:
        _train(world, launch.work, attempt, part, faults, started, run, launch.updates)
        part.finishing = world.now
        if launch.ending == "finish":
            run.finish()
            part.finished = world.now
            world.tell(process.name, "finish() returns")


def _facts(part: Part, run: Run) -> dict[str, Any]:
    participant = run._participant
    if participant is not None and participant.settled.done() and participant.settled.exception() is None:
        part.facts = {"id": run.id, "mode": run.mode, "resumed": run.resumed, "run_id": run.run_id}
    else:
        part.facts = {}
    return part.facts


def _train(
    world: World,
    seconds: float,
    attempt: Attempt,
    part: Part,
    faults: list[Fault],
    started: float,
    run: Run | None = None,
    updates: int = 0,
) -> None:
    """The training, with what the script itself does wrong in it."""
    own = sorted((fault for fault in faults if fault.what in ("raise", "SystemExit", "_exit")), key=lambda f: f.at)
    moments = [(world.now + seconds * (n + 1) / (updates + 1), n) for n in range(updates)] if run is not None else []
    until = world.now + seconds
    for when, n in [*moments, (until, None)]:
        if own and own[0].at + started < when:
            attempt.train(world, part, max(0.0, own[0].at + started - world.now))
            _fail(own[0].what, part, world)
        attempt.train(world, part, max(0.0, when - world.now))
        if n is not None and run is not None:
            run.update_config({f"step{n}": part.rank})
    if run is not None:
        _facts(part, run)


def _fail(what: str, part: Part, world: World) -> None:
    if what == "raise":
        part.intended = "raise"
        raise ValueError("loss is NaN")
    if what == "SystemExit":
        part.intended = what
        raise SystemExit(3)
    part.intended = what
    world.tell(part.process.name, "os._exit(4)")
    part.finishing = world.now
    for hooks in list(part.process.state.get("hooks", ())):
        hooks.on_end(Ending.of_exit(4, None, "os._exit(4)"))
    world.kill(part.process, 4)
    world.block()


# Hooks, in place of those of lifecycle.exit_hooks and lifecycle.termination.


class ExitHooks:
    """``lifecycle.exit_hooks.ExitHooks``: what Python calls at the end of a process."""

    def __init__(self, listener: Any) -> None:
        task = _world().task
        assert task is not None
        self._listener, self._process = listener, task.process
        self._process.state.setdefault("hooks", []).append(self)

    def remove(self) -> None:
        hooks = self._process.state["hooks"]
        if self in hooks:
            hooks.remove(self)

    def ending(self) -> Ending:
        return Ending()

    def on_end(self, ending: Ending) -> None:
        self._listener.on_end(ending)


_HANDLED_SECONDS = 20.0  # of lifecycle.termination


class TerminationHook:
    """``lifecycle.termination.TerminationHook``: the listener is called in a thread, then the process dies of it."""

    was_called = False

    def __init__(self, listener: Any) -> None:
        world = _world()
        assert world.task is not None
        self._process = process = world.task.process

        def listen() -> None:
            listener.on_sigterm()
            world.kill(process, -int(signal.SIGTERM))

        def give_up() -> None:
            world.sleep(_HANDLED_SECONDS)
            world.kill(process, -int(signal.SIGTERM))

        def handle() -> None:
            if not process.is_terminating:
                process.is_terminating = True
                world.spawn(process, "SIGTERM", listen)
                world.spawn(process, "SIGTERM limit", give_up)

        self._process.on_sigterm = handle

    def remove(self) -> None:
        self._process.on_sigterm = None


def _world() -> World:
    from simulation import stdlib

    return stdlib.current()
