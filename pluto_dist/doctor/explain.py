"""The run that an environment would join, and why: what ``pluto-dist explain`` prints before anything is started.

Pure: the environment comes in as a Mapping; network, torch and disk are not used. Only the token that the ranks have
yet to agree on is left open.

>>> explanation = explain({"TORCHELASTIC_RUN_ID": "123", "RANK": "0", "WORLD_SIZE": "8"})
>>> explanation.external_id, explanation.second_launch
('torchrun-123-<token>', 'a run of its own')
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pluto_dist import environments, identity
from pluto_dist.client import rate_limit
from pluto_dist.contract.secret import Environ
from pluto_dist.doctor.finding import CheckGroup, Finding, Machine, ok, problem
from pluto_dist.environments import scheduler_jobs
from pluto_dist.environments.context import LaunchContext
from pluto_dist.errors import PlutoDistError
from pluto_dist.identity import Decision, Named
from pluto_dist.settings import settings
from pluto_dist.settings.settings import Settings

_REQUESTS_OF_THE_OWNER = 2  # the create and the end


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests of one attempt of the job to the tracker.

    Attributes:
        creates: create-run requests, one of each rank; the first carries everything, the others the id alone.
        last_create_after: seconds after the first until the last is sent.
        heartbeats_a_minute: of the whole job.
        others: the end, and the owner's requests about an earlier launch before the create.
    """

    creates: int
    last_create_after: float
    heartbeats_a_minute: float
    others: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """The facts about the run that are known before the ranks exchange anything.

    Attributes:
        sentence: which run it is, new or continued, and what would change that, in everyday words.
        launcher: the launcher that started this process.
        rank, world_size, node_rank, node_count: its place; ``None`` if the launcher does not give it.
        external_id: the run's id; ``<token>`` stands for what the ranks will agree on.
        source: the reason for that id, as in ``run.run_id_source``.
        row: the row of the identity table that applied.
        meet: the store in which the ranks agree.
        restart, requeue, second_launch: the run that each of them would join.
        job: the scheduler job that names this launch for ``resume``, with its variables.
        also_named: other names of a job in the environment, and why they are not used.
        tracker: the tracker that would record it, or why there is none.
        requests: the requests to the tracker.
    """

    sentence: str
    launcher: str
    rank: int
    world_size: int
    node_rank: int | None
    node_count: int | None
    external_id: str
    source: str
    row: str
    meet: str
    restart: str
    requeue: str
    second_launch: str
    job: str | None
    also_named: tuple[str, ...]
    tracker: str
    requests: Requests

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def explain(environ: Mapping[str, str], *, run_id: str | None = None, resume: bool | None = None) -> Explanation:
    """The decisions that ``init()`` would make in ``environ``.

    Args:
        environ: the worker's environment.
        run_id: as given to ``init()``.
        resume: as given to ``init()``.

    Raises:
        ConfigurationError: a setting cannot be used.
        LaunchError: the error that ``init()`` would raise.
    """
    environ = Environ(environ)
    chosen = settings.load(environ, run_id=run_id, resume=resume)
    context = environments.detect(environ)
    decision = identity.decide(context, run_id=chosen.run_id, resume=chosen.resume)
    topology, scope = context.topology, context.scope
    return Explanation(
        sentence=_sentence(context, decision),
        launcher=context.launcher,
        rank=topology.rank,
        world_size=topology.world_size,
        node_rank=topology.node_rank,
        node_count=topology.node_count,
        external_id=_external_id(decision),
        source=decision.source,
        row=decision.row,
        meet=_meet(context),
        restart=_restart(context),
        requeue=_requeue(context, decision),
        second_launch=_second_launch(decision),
        job=None if scope is None else f"{scope.scheduler} {scope.value} ({_assignments(scope.variables)})",
        also_named=tuple(
            _why_unused(row)
            for row in scheduler_jobs.named(environ)
            if scope is None or row.scheduler != scope.scheduler
        ),
        tracker=_tracker(chosen),
        requests=_requests(chosen, context, decision),
    )


def _sentence(context: LaunchContext, decision: Decision) -> str:
    """Which run, in everyday words, and what would change that."""
    ranks = context.topology.world_size
    who = "This process" if ranks == 1 else f"All {ranks} ranks together"
    if isinstance(decision, Named) and not decision.derived:
        name = decision.reference.value
        if decision.reference.kind != "external id":
            return f"{who} will continue the run {name}, which must exist; for a new run, unset PLUTO_RUN_ID."
        return (
            f"{who} will be in the run named {name!r}: a new one the first time, the same one at every later start; "
            "for a new run at each start, unset PLUTO_RUN_ID (or run_id=)."
        )
    if isinstance(decision, Named):
        return (
            f"{who} will continue the run that an earlier start of this job began, or begin it; for a new run at each "
            "start, unset PLUTO_DIST_RESUME (or resume=)."
        )
    if context.scope is not None or identity.chosen_id(context) is not None:
        change = "set PLUTO_DIST_RESUME=1 at every start"
    else:
        change = "set one PLUTO_RUN_ID for all starts"
    return f"{who} will be in {'a' if ranks == 1 else 'one'} new run; to continue it at the next start, {change}."


def _external_id(decision: Decision) -> str:
    return decision.reference.value if isinstance(decision, Named) else decision.external_id("<token>")


def _meet(context: LaunchContext) -> str:
    if context.store_address is not None:
        return "the store that torchrun's agent hosts at {}:{}".format(*context.store_address)
    if context.topology.world_size == 1:
        return "none: there is one rank"
    if context.hosted_address is not None:
        return "a store that rank 0 hosts at {}:{}".format(*context.hosted_address)
    if context.worker_marks and context.is_on_one_node:
        return "a store that rank 0 hosts on this node"
    return "the store of the default process group: call init() after init_process_group(), or it is an error"


def _restart(context: LaunchContext) -> str:
    if context.restart_count is None:
        return "nobody restarts workers here: a new start is a new launch"
    if context.store_address is not None:
        return "the same run: torchrun's store and every node keep the launch's token"
    return "the same run: every node keeps the launch's token"


def _requeue(context: LaunchContext, decision: Decision) -> str:
    if isinstance(decision, Named):
        return "the same run" if decision.derived else "the same run: you named it"
    if context.scope is not None or identity.chosen_id(context) is not None:
        return "a new run; the same one with PLUTO_DIST_RESUME=1 on every launch"
    return "a new run; the same one with one PLUTO_RUN_ID for all launches"


def _second_launch(decision: Decision) -> str:
    if isinstance(decision, Named) and not decision.derived:
        return "the same run: you named it"
    if isinstance(decision, Named):
        return "the same run, once this launch has ended; an error while it lives"
    return "a run of its own"


def _assignments(variables: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{name}={value}" for name, value in variables)


def _why_unused(row: scheduler_jobs.JobNaming) -> str:
    lacks = {
        "not the same on all ranks": row.shared,
        "shared with other jobs": row.unique,
        "another one after a requeue": row.stable,
    }
    why = [reason for reason, known in lacks.items() if known == "no"]
    why += [f"whether it is {reason} is not known" for reason, known in lacks.items() if known == "unknown"][: not why]
    return f"{row.title} ({', '.join(row.names)}): {'; '.join(why) or 'another name goes before it'}"


def _tracker(chosen: Settings) -> str:
    if chosen.mode != "online":
        return f"none: mode is {chosen.mode}"
    if chosen.api_key is None:
        return "none: PLUTO_API_KEY is not set (a key that `pluto login` stored would be found)"
    return f"{chosen.url_api}, project {chosen.project!r}"


def _requests(chosen: Settings, context: LaunchContext, decision: Decision) -> Requests:
    ranks = context.topology.world_size
    asked = 2 if isinstance(decision, Named) and decision.derived else 0  # whether the run exists, whether it is in use
    return Requests(
        creates=ranks,
        last_create_after=round(rate_limit.due(ranks - 1, chosen.attach_rate), 1),
        heartbeats_a_minute=round(60 / chosen.heartbeat, 1),
        others=_REQUESTS_OF_THE_OWNER - 1 + asked,
    )


def probe(machine: Machine) -> Explanation | PlutoDistError:
    try:
        return explain(machine.environ)
    except PlutoDistError as error:
        return error


def run_to_join(facts: Explanation | PlutoDistError) -> Finding:
    """One line of the output of ``pluto-dist explain``, or the error that ``init()`` would raise."""
    if isinstance(facts, PlutoDistError):
        saw, _, fix = str(facts).partition("\n")
        return problem(f"init() would raise {type(facts).__name__}: {saw}", fix.strip() or "pluto-dist explain")
    return ok(f"{facts.external_id} ({facts.launcher}, rank {facts.rank} of {facts.world_size}): {facts.source}")


GROUP = CheckGroup(probe, (("run", run_to_join),))
