"""``init()``: facts in at the door, a decision, and a run.

The only module that reads ``os.environ`` and the process; everything below takes it as arguments.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pluto_dist import environments, identity
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.environments.context import ProcessFacts
from pluto_dist.errors import AuthenticationError, ExchangeError, PlutoDistError, received
from pluto_dist.identity import NeedsLaunchToken
from pluto_dist.inventory.gpu import torch_device
from pluto_dist.lifecycle.participant import Participant
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.log import logger, set_up
from pluto_dist.process import Process, current
from pluto_dist.rendezvous import connect
from pluto_dist.rendezvous.messages import Outcome
from pluto_dist.run import Run
from pluto_dist.serialization.types import summary
from pluto_dist.settings import keychain, settings
from pluto_dist.settings.arguments import Arguments, Prepared, prepare
from pluto_dist.version import __version__


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
        project: project name; made where it does not exist. PLUTO_PROJECT, default "pluto".
        name: the run's name, default its external id. A run that exists keeps its own.
        config: a dict, namespace, dataclass, pydantic, attrs or OmegaConf object, or the path of a JSON or YAML file;
            merged into the config of a run that exists.
        tags: at most 50, at most one of them ``group:*``.
        run_id: the run's external id, verbatim; digits or a display id mean that run of the tracker. PLUTO_RUN_ID.
        resume: True goes on with the run of an earlier launch of this job; False makes it an error if a given
            ``run_id`` is already taken. PLUTO_DIST_RESUME.
        fork_run_id: the tracker's number, or the display id, of a run of the project to fork from, at ``fork_step``.
        fork_step: the last step to inherit.
        inherit_config: whether a fork starts from its parent's config (the tracker's default: yes).
        inherit_tags: whether a fork starts with its parent's tags (the tracker's default: no).
        logger_settings: kept by the tracker as they are.
        created_at: start of the run in ms since 1970, for runs brought in from elsewhere.
        updated_at: its last change in ms since 1970.
        mode: "offline" asks no tracker; "disabled" does nothing at all. PLUTO_DIST_MODE.
        timeout: the most that this call blocks, in seconds. PLUTO_DIST_TIMEOUT, default 30.
        on_error: "warn" goes on offline where a wrong key or argument would raise. PLUTO_DIST_ON_ERROR.
        metadata: what the run tells of its machines and its code. False: nothing; ``{"git": False}``: all but that.
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
    began = time.monotonic()
    set_up()
    given = Arguments(
        project, name, config, tags, run_id, resume, fork_run_id, fork_step, inherit_config, inherit_tags,
        logger_settings, created_at, updated_at, mode, timeout, on_error, metadata,
    )  # fmt: skip
    process, environ = current(), dict(os.environ)
    if process.open_run is not None:
        if changed := process.given.changed(given):
            logger.warning("a run is open: init() returns it, and leaves aside %s", ", ".join(changed))
        return process.open_run
    process.runs += 1
    process.given = given
    try:
        plan = _plan(given, environ, process, began)
        process.run = _join(plan, process, wait=wait)
        process.run.hand_over()
    except PlutoDistError as error:
        if (on_error or environ.get("PLUTO_DIST_ON_ERROR")) != "warn":
            raise
        logger.warning("going on without a tracker: %s", error)
        process.run = Run(_plan(Arguments(mode="offline"), {}, process, began), None)
    return process.run


def _plan(given: Arguments, environ: Mapping[str, str], process: Process, began: float) -> Plan:
    """The decision: which run, from what was given and what the launcher tells."""
    prepared = prepare(given, environ)
    chosen = prepared.settings
    if process.parent_has_run:
        logger.warning("init() in a forked child of a process with an open run does nothing; call it in the parent")
        chosen = replace(chosen, mode="disabled")
    if chosen.mode == "disabled":  # asks nobody, so nothing can be wrong with the launch
        environ, chosen = {}, replace(chosen, resume=None)
    if chosen.mode == "online":
        chosen = keychain.with_stored_key(chosen)
    facts = ProcessFacts(group=connect.process_group(), spawned=_is_spawned(environ))
    context = environments.detect(environ, facts)
    decision = identity.decide(context, run_id=chosen.run_id, resume=chosen.resume)
    if context.topology.is_rank_zero:
        _warn_of_losses(prepared)
    config, host = prepared.config.value, socket.gethostname()
    fork_of, nth = prepared.fork_of, process.runs
    device = torch_device.current_device(sys.modules.get("torch")) if "gpu" in chosen.metadata else None
    return Plan(chosen, context, decision, prepared.request, config, nth, host, began, fork_of, environ, device)


def _join(plan: Plan, process: Process, *, wait: bool) -> Run:
    if plan.settings.mode == "disabled":
        return Run(plan, None)
    if plan.is_rank_zero:
        _warn_of_plain_http(plan.settings)
        _tell_of_requeue(plan)
    participation = Participant(plan, lambda stop: process.meet(plan, stop), lambda: _client(plan))
    run = Run(plan, participation)
    try:
        _await(plan, participation, wait=wait)
    except PlutoDistError as error:
        if plan.settings.on_error == "raise":
            run.give_up()
            raise
        kept = _kept(plan) if isinstance(error, AuthenticationError) else ""
        _say_for_node(plan, "going on without a tracker%s: %s", kept, error)
    return run


def _await(plan: Plan, participation: Participant, *, wait: bool) -> None:
    """Block until the run is settled (or only its id agreed), and no longer than the timeout."""
    left = max(0.0, plan.began + plan.settings.timeout - time.monotonic())
    try:
        if not wait:
            participation.agreed.result(timeout=left)
            participation.settled.add_done_callback(lambda settled: _report_late(plan, settled))
            return
        outcome = participation.settled.result(timeout=left)
    except FutureTimeoutError:
        waited = plan.settings.timeout
        _say_for_node(plan, "init() took longer than %.0f s; going on, the run may still come", waited)
        return
    except ExchangeError as error:
        # The ranks' store, not the user, is at fault; a training that does without it must go on.
        _say_for_node(plan, "going on without a run: %s", error)
        return
    if outcome.kind == "error":
        raise received(outcome.error, outcome.message)
    _report(plan, outcome)


def _report(plan: Plan, outcome: Outcome) -> None:
    """What the leader says of the job, once."""
    if plan.is_rank_zero and outcome.answer is not None:
        topology = plan.context.topology
        ranks = f"{topology.world_size} rank" + "s" * (topology.world_size > 1)
        again = ", resumed" if outcome.resumed else ""
        logger.info("run %s (%s%s) at %s", outcome.answer.display_id, ranks, again, outcome.answer.url)
    elif plan.is_rank_zero:
        logger.warning("going on offline%s: %s", _kept(plan), outcome.message)


def _kept(plan: Plan) -> str:
    """Where the run is found once the job has ended."""
    folder = plan.settings.spool
    if folder is None:
        return " (kept in memory only: set PLUTO_DIR or HOME)"
    return f" (kept in {folder}; `pluto-dist sync` sends it)"


def _report_late(plan: Plan, settled: Future[Outcome]) -> None:
    """What ``init(wait=False)`` was not there to say."""
    if settled.exception() is None:
        _report(plan, settled.result())


def _say_for_node(plan: Plan, message: str, *values: object) -> None:
    """Warn of what every rank of a node sees alike; one of them says it."""
    first = plan.is_rank_zero or plan.context.topology.local_rank in (None, 0)
    logger.log(logging.WARNING if first else logging.DEBUG, message, *values)


def _warn_of_plain_http(chosen: settings.Settings) -> None:
    parts = urlsplit(chosen.url_api)
    local = parts.hostname in ("localhost", "::1") or (parts.hostname or "").startswith("127.")
    if parts.scheme == "http" and not local and chosen.api_key is not None and chosen.mode == "online":
        logger.warning("the API key travels unencrypted to %s: use https where the network is not yours", parts.netloc)


def _tell_of_requeue(plan: Plan) -> None:
    scope = plan.context.scope
    if scope is not None and scope.requeues and isinstance(plan.decision, NeedsLaunchToken):
        logger.info(
            "%s job %s was requeued, and this launch is a run of its own; PLUTO_DIST_RESUME=1 in its script keeps "
            "one run over its launches, and PLUTO_RUN_ID=<external id> goes on with an earlier one",
            scope.scheduler,
            scope.value,
        )


def _client(plan: Plan) -> TrackerClient | None:
    chosen, topology = plan.settings, plan.context.topology
    if chosen.mode == "offline" or chosen.api_key is None:
        return None
    agent = f"pluto-dist/{__version__} (rank {topology.rank} of {topology.world_size}; {plan.host})"
    return TrackerClient(chosen.url_api, chosen.url_py, chosen.api_key, user_agent=agent)


def _is_spawned(environ: Mapping[str, str]) -> bool:
    """Whether multiprocessing started this process with its parent's launcher variables.

    torch's elastic agent starts Python functions through multiprocessing too, but sets the variables in the
    worker itself: they are then not those that the kernel handed the process.
    """
    if multiprocessing.parent_process() is None:
        return False
    try:
        handed = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return True
    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_ERROR_FILE", "RANK")
    return all(name not in environ or f"{name}={environ[name]}".encode() in handed for name in names)


def _warn_of_losses(prepared: Prepared) -> None:
    for line in summary(prepared.config.losses):
        logger.warning("config: %s", line)
    if prepared.config.suspects:
        logger.warning("config: %s may be a secret, and is sent as it is", ", ".join(prepared.config.suspects))
