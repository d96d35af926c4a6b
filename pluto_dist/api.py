"""``init()``: gathers facts, decides which run this process belongs to, connects to the other ranks, joins the run.

Reads ``os.environ`` and the state of the process; the modules below take both as arguments.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pluto_dist import background, environments, identity, log
from pluto_dist.contract.secret import Environ
from pluto_dist.environments import single_process
from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.launch_environ import as_launched
from pluto_dist.environments.process_facts import ProcessFacts, gather, hydra_job
from pluto_dist.errors import AuthenticationError, ExchangeError, PlutoDistError, received
from pluto_dist.inventory.gpu import torch_device
from pluto_dist.lifecycle import announce
from pluto_dist.lifecycle.participant import Participant
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.lifecycle.process_end import Ending
from pluto_dist.log import logger
from pluto_dist.rendezvous.connect import process_group
from pluto_dist.rendezvous.messages import Outcome
from pluto_dist.rendezvous.session import Session
from pluto_dist.run import Run
from pluto_dist.settings import keychain
from pluto_dist.settings.arguments import Arguments, ResolvedArguments, resolve
from pluto_dist.settings.settings import Settings


def init(
    project: str | None = None,
    name: str | None = None,
    config: Any = None,
    tags: Sequence[str] | str | None = None,
    *,
    run_id: str | int | None = None,
    resume: bool | None = None,
    fork_run_id: int | str | None = None,
    fork_step: int | None = None,
    inherit_config: bool | None = None,
    inherit_tags: bool | None = None,
    logger_settings: Mapping[str, Any] | None = None,
    created_at: int | None = None,
    updated_at: int | None = None,
    mode: Literal["online", "offline", "disabled"] | None = None,
    timeout: float | None = None,
    on_error: Literal["raise", "warn"] | None = None,
    metadata: bool | Mapping[str, bool] | None = None,
    wait: bool = True,
) -> Run:
    """Join the one run of this job. Call it on every rank, before or after ``init_process_group``.

    Args:
        project: project name; made if it does not exist. PLUTO_PROJECT, default "pluto".
        name: the run's name, default its external id. A run that exists keeps its own.
        config: a dict, namespace, dataclass, pydantic, attrs or OmegaConf object, or the path of a JSON or YAML file;
            merged into the config of a run that exists.
        tags: at most 50, at most one of them ``group:*``.
        run_id: the run's external id, verbatim; digits or a display id mean that run of the tracker. PLUTO_RUN_ID.
        resume: True continues the run of an earlier launch of this job; False makes it an error if a given
            ``run_id`` is already taken. PLUTO_DIST_RESUME.
        fork_run_id: the tracker's number, or the display id, of a run of the project to fork from, at ``fork_step``.
        fork_step: the last step to inherit.
        inherit_config: whether a fork starts from its parent's config (the tracker's default: yes).
        inherit_tags: whether a fork starts with its parent's tags (the tracker's default: no).
        logger_settings: kept by the tracker as they are.
        created_at: start of the run in ms since 1970, for runs brought in from elsewhere.
        updated_at: its last change in ms since 1970, which is when it ended.
        mode: "offline" asks no tracker; "disabled" does nothing at all. PLUTO_DIST_MODE.
        timeout: the longest that this call blocks, in seconds. PLUTO_DIST_TIMEOUT, default 30.
        on_error: "warn" continues offline if a wrong key or argument would raise. PLUTO_DIST_ON_ERROR.
        metadata: what of the machines and the code is recorded. False: nothing; ``{"git": False}``: all but that.
            Parts: argv, env, git, gpu, host, network, packages, software. PLUTO_DIST_METADATA ("0", "git=0,env=0").
        wait: False returns as soon as the id is agreed; what needs the tracker's answer waits on first use.

    Returns:
        The run. While it is open, another ``init()`` returns it again.

    Raises:
        ConfigurationError: an argument or setting cannot be used; lists all that is wrong.
        LaunchError: the ranks cannot form one run.
        AuthenticationError: the tracker refused the key.
        RequestRefusedError: the tracker refused the request.
        RunError: the run exists and cannot be used like this.
    """
    log.set_up()
    arguments = Arguments(
        project, name, config, tags, run_id, resume, fork_run_id, fork_step, inherit_config, inherit_tags,
        logger_settings, created_at, updated_at, mode, timeout, on_error, metadata,
    )  # fmt: skip
    return begin(arguments, current_process(), as_launched(Environ(os.environ)), wait=wait)


def begin(arguments: Arguments, process: ProcessState, environ: Mapping[str, str], *, wait: bool = True) -> Run:
    """:func:`init`, for a process whose state and environment are given; returns and raises the same."""
    started, environ = time.monotonic(), Environ(environ)
    if (run := process.open_run) is not None:
        if process.is_opened_for_script:
            process.is_opened_for_script = False
            _amend(run, arguments, process.command_line, environ)
        elif changed := process.arguments.changed(arguments):
            logger.warning("a run is open: init() returns it, and ignores %s", ", ".join(changed))
        return run
    process.begin_run(arguments)
    participant = run = None
    try:
        facts = _gather_facts(arguments, environ, process)
        plan = _decide(facts, nth=process.runs, started=started)
        participant = _connect(plan, process.session)
        run = Run(plan, participant)
        _join(run, participant, wait=wait)
    except PlutoDistError as error:
        if (arguments.on_error or environ.get("PLUTO_DIST_ON_ERROR")) != "warn":
            raise
        logger.warning("going on without a tracker: %s", error)
        facts = _gather_facts(Arguments(mode="offline"), {}, process)
        run = Run(_decide(facts, nth=process.runs, started=started), None)
    except Exception as error:  # border: no thread or file to be had, or a fault of ours, ends no training
        if background.is_scripts_own(error):
            raise
        logger.warning("going on without a run: %s: %s", type(error).__name__, error)
        logger.debug("init() failed", exc_info=True)
        if participant is not None:
            participant.abandon()
        run = Run(_decide(_no_facts(), nth=process.runs, started=started), None)
    except BaseException as error:  # ctrl-C, say: the script may handle it, and go on
        if run is not None:
            run.on_end(Ending.of_exception(error))
        raise
    process.run = run
    run.export_to_sdk()
    return run


def _amend(run: Run, arguments: Arguments, command_line: Arguments, environ: Mapping[str, str]) -> None:
    """Add to ``run``, which the command line opened, what the script's ``init()`` says: config and tags."""
    plan, tags = run.plan, run.plan.request.tags
    name = plan.request.run_name or run.run_id
    is_so = Arguments(project=run.project, name=name, run_id=run.run_id, mode=plan.settings.mode)
    overruled = arguments.contradicted_by(is_so)
    announce.report_overruled(plan.is_rank_zero, overruled, "the run was opened before the script; its")
    resolved = resolve(arguments, environ, dataclasses.replace(command_line, tags=None if tags is None else list(tags)))
    if plan.is_rank_zero:
        announce.warn_of_losses(resolved.config)
    run.amend(resolved.config.value if arguments.config is not None else {}, resolved.request.tags or ())


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is known before any other rank or the tracker is asked."""

    resolved: ResolvedArguments
    settings: Settings
    context: LaunchContext
    environ: Mapping[str, str]
    cuda_device: int | None
    overruled: tuple[tuple[str, Any, Any], ...] = ()


def _gather_facts(arguments: Arguments, environ: Mapping[str, str], process: ProcessState) -> _Facts:
    """The arguments, the environment and the state of this process, checked."""
    resolved = resolve(arguments, environ, process.command_line)
    settings = resolved.settings
    facts = gather(environ, process_group(), began_alone=process.session.began_alone)
    context = environments.single(environ)
    if settings.mode != "disabled" and not process.parent_has_run:
        context = environments.detect(environ, facts)
    if process.parent_has_run or not context.has_part:
        if settings.mode != "disabled" and _has_own_run(arguments, facts):
            context = environments.single(environ)
        else:
            announce.report_no_part(is_importing=facts.is_importing)
            settings = replace(settings, mode="disabled")
    elif facts.spawned and context.launcher == "single" and settings.mode != "disabled":
        announce.report_trial()
    if settings.mode == "disabled":  # asks nobody, so nothing can be wrong with the launch
        environ, settings = {}, replace(settings, resume=None)
        context = environments.detect({}, ProcessFacts(group=facts.group))
    if settings.mode == "online":
        settings = keychain.with_stored_key(settings)
    device = torch_device.current_device(sys.modules.get("torch")) if "gpu" in settings.metadata else None
    overruled = arguments.contradicted_by(process.command_line)
    return _Facts(resolved, settings, context, environ, device, overruled)


def _has_own_run(arguments: Arguments, facts: ProcessFacts) -> bool:
    """Whether a child of a process with a run, or of a rank, asks for another run than that: a trial of a sweep."""
    if arguments.run_id is None or facts.is_importing:
        return False
    return facts.parent is None or str(arguments.run_id) != facts.parent.run_id


def _no_facts() -> _Facts:
    """What is known of a run that does nothing; reads no file."""
    resolved, context = resolve(Arguments(mode="disabled"), {}), single_process.detect({}, ProcessFacts())
    context = replace(context, topology=process_group() or context.topology)
    return _Facts(resolved, resolved.settings, context, {}, None)


def _decide(facts: _Facts, *, nth: int, started: float) -> Plan:
    """Which run this process belongs to, and what is sent to create it."""
    settings, resolved = facts.settings, facts.resolved
    decision = identity.decide(facts.context, run_id=settings.run_id, resume=settings.resume)
    if facts.context.topology.is_rank_zero:
        announce.warn_of_losses(resolved.config)
    announce.report_overruled(facts.context.topology.is_rank_zero, facts.overruled, "the command line wins;")
    return Plan(
        settings,
        facts.context,
        decision,
        resolved.request,
        resolved.config.value,
        nth,
        socket.gethostname(),
        started,
        resolved.fork_of,
        facts.environ,
        facts.cuda_device,
    )


def _connect(plan: Plan, session: Session) -> Participant | None:
    """Start the thread that connects to the other ranks and joins the run; ``None`` for a disabled run."""
    if plan.settings.mode == "disabled":
        return None
    if plan.is_rank_zero:
        announce.warn_of_plain_http(plan.settings)
        announce.report_requeue(plan)
        announce.warn_of_nodes(plan)
    return Participant(plan, session)


def _join(run: Run, participant: Participant | None, *, wait: bool) -> None:
    """Wait until the run is joined, or (``wait=False``) until its id is agreed; no longer than the timeout."""
    plan = run.plan
    if participant is None:
        return
    try:
        outcome = _await_outcome(plan, participant, wait=wait)
        if outcome is not None and outcome.kind == "error":
            raise received(outcome.error, outcome.message)
    except PlutoDistError as error:
        if plan.settings.on_error == "raise":
            run.abandon()
            raise
        kept = announce.kept_in(plan, participant.trouble) if isinstance(error, AuthenticationError) else ""
        announce.warn_once_per_node(plan, "going on without a tracker%s: %s", kept, error)
        participant.has_told = bool(kept)
    else:
        if outcome is not None:
            announce.report_outcome(plan, outcome, participant.trouble)
            participant.has_told = plan.is_rank_zero


def _await_outcome(plan: Plan, participant: Participant, *, wait: bool) -> Outcome | None:
    """The outcome of creating the run; ``None`` if it is not there in time, or not waited for: then the run is kept."""
    left = max(0.0, plan.started + plan.settings.timeout - time.monotonic())
    try:
        if wait:
            return participant.settled.result(timeout=left)
        participant.agreed.result(timeout=left)
        participant.is_awaited = False
        participant.keep()
        participant.settled.add_done_callback(
            lambda settled: announce.report_outcome_late(plan, settled, participant.trouble)
        )
    except FutureTimeoutError:
        participant.is_awaited = False
        kept, waited = _kept(plan, participant), plan.settings.timeout
        told = "init() took longer than %.3g s; going on%s, the run may still come"
        announce.warn_once_per_node(plan, told, waited, kept)
    except ExchangeError as error:
        # The ranks' store, not the user, is at fault; a training that does without it must go on.
        announce.warn_once_per_node(plan, "going on without the other ranks%s: %s", _kept(plan, participant), error)
    return None


def _kept(plan: Plan, participant: Participant) -> str:
    """Keep the run as it is known by now; where it is kept, in brackets."""
    participant.has_told = True
    if participant.keep():
        return announce.kept_in(plan, participant.trouble)
    return " (not kept: this rank does not know which run the others are in)"


@dataclass
class ProcessState:
    """What this process keeps between two calls of ``init()``.

    Attributes:
        parent_has_run: whether this is a forked child of a process whose run was open.
        runs: number of runs that this process has begun to join.
        run: the last of them, open or not.
        arguments: with which it was begun.
        command_line: the options of `pluto-dist run` or ``python -m pluto_dist``, on top of those of every ``init()``.
        is_opened_for_script: whether the run was opened before the first line of a script, whose ``init()`` adds to it.
        session: the connection to the other ranks.
        job: of several that Hydra runs in this process, the number of that which began the run.
        pid: of this process.
    """

    parent_has_run: bool = False
    runs: int = 0
    run: Run | None = None
    arguments: Arguments = field(default_factory=Arguments)
    command_line: Arguments = field(default_factory=Arguments)
    is_opened_for_script: bool = False
    session: Session = field(default_factory=Session)
    job: int | None = None
    pid: int = field(default_factory=os.getpid)

    @property
    def open_run(self) -> Run | None:
        """The run that another ``init()`` returns; one whose ``with`` block failed, or Hydra's job, is ended first."""
        if self.run is not None and (self.run.failed or hydra_job() != self.job):
            self.run.on_end(Ending())
        return None if self.run is None or self.run.finished else self.run

    def begin_run(self, arguments: Arguments) -> None:
        """Count another run, begun with ``arguments``."""
        self.runs += 1
        self.arguments, self.job = arguments, hydra_job()


_process = ProcessState()


def current_process() -> ProcessState:
    """The state of this process; a forked child begins with an empty one."""
    global _process  # noqa: PLW0603  # a forked child must not use its parent's run and store client
    if _process.pid != os.getpid():
        run = _process.run
        _process = ProcessState(parent_has_run=run is not None and not run.finished)
    return _process
