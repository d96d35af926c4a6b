"""What a rank tells the launcher above it, where `pluto-dist run` is above: the run is then its to end.

What a note is, and where it lies, is ``notes`` and ``launch_folder``; who reads it is ``launch``. Every rank sees to
it that its run is noted before its ``init()`` returns: the one that usually writes may be killed a moment later, and
a launcher that knows of no run ends none.
"""

from __future__ import annotations

import time
from typing import Any

from pluto_dist.lifecycle.creation import run_name
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.rendezvous import node_state, worker_reports
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import AgreedId, Outcome


def is_supervised(plan: Plan) -> bool:
    """Whether such a launcher is above this rank."""
    return node_state.is_supervised(plan.context)


def is_recorded(plan: Plan, outcome: Outcome) -> bool:
    """Whether a tracker has the run, or will have it once what is kept is sent."""
    return outcome.answer is not None or outcome.is_to_be_kept(plan.settings.on_error)


def note_run(plan: Plan, exchange: Membership, signed: AgreedId, outcome: Outcome) -> None:
    """Note which run it is. The node's leader tells what it knows by now; the others, where nothing is noted yet."""
    if not is_supervised(plan) or not is_recorded(plan, outcome):
        return
    nonce = node_state.attempt_nonce(plan.context)
    noted = None if exchange.is_node_leader else worker_reports.noted_run(exchange.folder)
    if noted is not None and (noted.nonce, noted.nth) == (nonce, plan.nth):
        return
    run_id, display_id = (outcome.answer.run_id, outcome.answer.display_id or "") if outcome.answer else (0, "")
    name = run_name(plan, signed.reference)
    note = worker_reports.RunReport(
        run_id,
        display_id,
        plan.nth,
        nonce,
        plan.context.topology.node_rank or 0,
        name.origin,
        name.project,
        name.reference.kind,
        name.reference.value,
        exchange.token,
    )
    worker_reports.note_run(exchange.folder, note)


def note_failure(plan: Plan, exchange: Membership, cause: dict[str, Any]) -> None:
    """Note why this rank ends, for the launcher sees exit codes alone."""
    note = worker_reports.FailureNote(time.time(), cause["rank"], cause["host"], cause["reason"], cause["traceback"])
    worker_reports.note_failure(exchange.folder, node_state.attempt_nonce(plan.context), note)
