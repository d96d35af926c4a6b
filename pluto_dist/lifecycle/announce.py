"""What ``init()`` logs for people: one line for the job, one per node for what all its ranks have in common."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from typing import Any
from urllib.parse import urlsplit

from pluto_dist.identity import NeedsLaunchToken
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.log import logger
from pluto_dist.rendezvous.messages import Outcome
from pluto_dist.serialization.types import Encoded, summary
from pluto_dist.settings.settings import Settings


def report_outcome(plan: Plan, outcome: Outcome, trouble: str) -> None:
    """The job's line, logged by rank 0: which run it is, or that the job is offline and why.

    Args:
        plan: what ``init()`` decided.
        outcome: of creating the run.
        trouble: why the disk does not take what is kept; "" if it does.
    """
    if not plan.is_rank_zero:
        return
    if outcome.answer is None:
        logger.warning("going on offline%s: %s", kept_in(plan, trouble), outcome.message)
        return
    ranks = f"{plan.topology.world_size} rank" + "s" * (plan.topology.world_size > 1)
    resumed = ", resumed" if outcome.resumed else ""
    at = f" at {outcome.answer.url}" if outcome.answer.url else ""
    logger.info("run %s (%s%s)%s", outcome.answer.display_id, ranks, resumed, at)


def report_overruled(is_rank_zero: bool, overruled: tuple[tuple[str, Any, Any], ...], why: str) -> None:
    """One line for the arguments of a script's ``init()`` that another value is used for; logged by rank 0."""
    if is_rank_zero and overruled:
        words = ", ".join(f"{name} {used!r} is used, not {given!r}" for name, given, used in overruled)
        logger.warning("%s %s", why, words)


def report_no_part(*, is_importing: bool) -> None:
    """That ``init()`` does nothing in a child of a rank; at debug level if only the script's top level runs again."""
    told = (
        "init() does nothing in a child of a process that is in a run: call it in that process alone, or pass the "
        "child a run_id of its own"
    )
    logger.log(logging.DEBUG if is_importing else logging.WARNING, told)


def report_trial() -> None:
    """That a child of multiprocessing is a process of its own: if it is a rank, each rank has a run by mistake."""
    logger.info(
        "multiprocessing started this process, and it has a run of its own; if it is one of several ranks, call "
        "pluto_dist.init() after torch.distributed.init_process_group()"
    )


def report_outcome_late(plan: Plan, settled: Future[Outcome], trouble: str) -> None:
    """The same after ``init(wait=False)`` has returned; ``settled`` is done."""
    if settled.exception() is None:
        report_outcome(plan, settled.result(), trouble)


def kept_in(plan: Plan, trouble: str) -> str:
    """Where the requests of a run that is offline are found, in brackets; ``trouble`` if that is not the disk."""
    folder = plan.settings.spool
    if folder is None:
        return " (kept in memory only: set PLUTO_DIR or HOME)"
    if trouble:
        return f" (kept in memory only: {trouble})"
    return f" (kept in {folder}; `pluto-dist sync` sends it)"


def warn_once_per_node(plan: Plan, message: str, *values: object) -> None:
    """A warning that every rank of a node has; one of them logs it, the others at debug level."""
    first = plan.is_rank_zero or plan.topology.local_rank in (None, 0)
    logger.log(logging.WARNING if first else logging.DEBUG, message, *values)


def warn_of_plain_http(settings: Settings) -> None:
    """A warning if the API key travels over http beyond this machine."""
    parts = urlsplit(settings.url_api)
    local = parts.hostname in ("localhost", "::1") or (parts.hostname or "").startswith("127.")
    if parts.scheme == "http" and not local and settings.api_key is not None and settings.mode == "online":
        logger.warning("the API key travels unencrypted to %s: use https where the network is not yours", parts.netloc)


def warn_of_nodes(plan: Plan) -> None:
    """A warning that each node has a run of its own, if the environment shows several nodes and no ranks."""
    if (shown := plan.context.several_nodes) is not None:
        logger.warning(
            "%s, but no launcher started this process: its run is that of one process, and each node has its own. "
            "Start the script on every node with torchrun (--nnodes, --rdzv-backend=c10d, --rdzv-endpoint), or call "
            "pluto_dist.init() after torch.distributed.init_process_group()",
            shown,
        )


def report_requeue(plan: Plan) -> None:
    """How to continue the earlier run, if the scheduler has requeued the job and this launch is a run of its own."""
    scope = plan.context.scope
    if scope is not None and scope.requeues and isinstance(plan.decision, NeedsLaunchToken):
        logger.info(
            "%s job %s was requeued, and this launch is a run of its own; PLUTO_DIST_RESUME=1 in its script keeps "
            "one run over its launches, and PLUTO_RUN_ID=<external id> goes on with an earlier one",
            scope.scheduler,
            scope.value,
        )


def warn_of_losses(config: Encoded) -> None:
    """What of the config could not be stored, and what in it looks like a secret."""
    for line in summary(config.losses):
        logger.warning("config: %s", line)
    if config.suspects:
        logger.warning("config: %s may be a secret, and is sent as it is", ", ".join(config.suspects))
