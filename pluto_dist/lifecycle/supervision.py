"""What a rank reports to the launcher above it; under `pluto-dist run` that ends the run.

Every rank makes sure that its run is reported before its ``init()`` returns: the one that usually reports it may be
killed a moment later, and a launcher that knows of no run ends none.
"""

from __future__ import annotations

import dataclasses

from pluto_dist.contract.failure import Failure, now_ms
from pluto_dist.errors import RunError, received
from pluto_dist.lifecycle.context import RankContext
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.rendezvous import node_state, worker_reports
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import Outcome
from pluto_dist.rendezvous.worker_reports import RunReport


def is_supervised(plan: Plan) -> bool:
    """Whether `pluto-dist run` is above this rank, and ends its run.

    It cannot if the script has set a key or an address of its own, which the launcher does not know.
    """
    trackers = (None, plan.settings.url_api)
    is_known = _stays_offline(plan) or plan.context.supervisor_tracker in trackers
    return is_known and node_state.is_supervised(plan.context)


def launcher_knows(context: RankContext, *, owns: bool) -> bool:
    """Whether `pluto-dist run` is above this rank, and has the report of its run, so that it ends the run.

    The folder of the reports may be lost, full or read-only; then the ranks do themselves what they do under torchrun.

    Args:
        context: this rank.
        owns: whether this rank owns the run, which the launcher must know.
    """
    told = _reported(context) if is_supervised(context.plan) else None
    return told is not None and (told.owns or not owns)


def launcher_sends_heartbeats(context: RankContext) -> bool:
    """Whether the launcher above this rank knows the tracker's number of the run, and so sends its heartbeats."""
    told = _reported(context) if is_supervised(context.plan) else None
    return told is not None and told.run_id != 0


def _stays_offline(plan: Plan) -> bool:
    return plan.settings.mode != "online" or plan.settings.api_key is None


def is_recorded(plan: Plan, outcome: Outcome) -> bool:
    """Whether a tracker has the run, or will have it once its requests are sent."""
    return outcome.answer is not None or outcome.is_to_be_kept(plan.settings.on_error)


def report_begin(context: RankContext) -> None:
    """Report that this rank is about to create the run, unless another rank has reported that it is settled.

    A rank that is killed before the answer leaves this report.
    """
    if is_supervised(context.plan) and _settled(context) is None:
        report, state = _report(context, None, owns=True), context.membership.node_state
        worker_reports.report_owner(state, report, context.plan.topology.rank)
        worker_reports.report_run(state, report)


def report_run(context: RankContext, outcome: Outcome, *, owns: bool, is_late: bool = False) -> None:
    """Report the run: its owner and the node leader what they know by now, the others only if nothing is reported yet.

    Args:
        context: this rank.
        outcome: of creating the run.
        owns: whether this rank owns the run.
        is_late: whether this rank ends before its run is settled: it knows less than any other.
    """
    plan, membership = context.plan, context.membership
    if not is_supervised(plan):
        return
    if not is_recorded(plan, outcome):
        begun = _reported(context)
        if begun is not None:  # as a run that is created, or is offline: the launcher is to end nothing
            is_refused = isinstance(received(outcome.error, ""), RunError)
            refused = dataclasses.replace(begun, is_settled=False, is_refused=is_refused)
            worker_reports.report_run(membership.node_state, refused)
        return
    told = _settled(context)
    report = _report(context, outcome, owns=owns)
    worker_reports.report_owner(membership.node_state, report, plan.topology.rank)
    if told is None or owns or (membership.is_node_leader and not is_late):
        worker_reports.report_run(membership.node_state, report)


def _settled(context: RankContext) -> RunReport | None:
    """What a rank of this node has reported of the run of this attempt, if that is settled."""
    told = _reported(context)
    return told if told is not None and told.is_settled else None


def _reported(context: RankContext) -> RunReport | None:
    """What a rank of this node has reported of the run of this attempt."""
    told = worker_reports.read_run(context.membership.node_state)
    mine = _nonce(context), context.plan.nth
    return told if told is not None and (told.nonce, told.nth) == mine else None


def _report(context: RankContext, outcome: Outcome | None, *, owns: bool) -> RunReport:
    plan, name = context.plan, context.run_name
    answer = None if outcome is None else outcome.answer
    return RunReport(
        run_id=answer.run_id if answer else 0,
        display_id=(answer.display_id if answer else None) or "",
        url=answer.url if answer else "",
        nth=plan.nth,
        nonce=_nonce(context),
        node_rank=plan.topology.node_rank or 0,
        origin=name.origin,
        project=name.project,
        kind=name.reference.kind,
        value=name.reference.value,
        launch=context.membership.token,
        continues_job=plan.continues_job,
        updated_at=plan.request.updated_at,
        owns=owns,
        is_settled=outcome is not None,
        stays_offline=_stays_offline(plan),
    )


def _nonce(context: RankContext) -> str:
    return node_state.attempt_nonce(context.plan.context)


def report_end(plan: Plan, membership: Membership, status: str, failure: Failure) -> None:
    """Report how and why this rank ends its run, since the launcher sees only an exit code, which may be 0."""
    failure = dataclasses.replace(failure, at_ms=now_ms())
    nonce = node_state.attempt_nonce(plan.context)
    worker_reports.report_end(membership.node_state, nonce, plan.nth, status, failure)
