"""What a rank tells the launcher above it, where `pluto-dist run` is above: the run is then its to end.

What a note is, and where it lies, is ``notes`` and ``launch_folder``; who reads it is ``launch``. Every rank sees to
it that its run is noted before its ``init()`` returns: the one that usually writes may be killed a moment later, and
a launcher that knows of no run ends none.
"""

from __future__ import annotations

import time
from typing import Any

from pluto_dist import launch_folder, notes
from pluto_dist.creating import run_name
from pluto_dist.exchange import Exchange, Outcome, SignedId
from pluto_dist.plan import Plan


def is_supervised(plan: Plan) -> bool:
    """Whether such a launcher is above this rank."""
    return launch_folder.is_supervised(plan.context)


def is_recorded(plan: Plan, outcome: Outcome) -> bool:
    """Whether a tracker has the run, or will have it once what is kept is sent."""
    return outcome.answer is not None or outcome.is_to_be_kept(plan.settings.on_error)


def note_run(plan: Plan, exchange: Exchange, signed: SignedId, outcome: Outcome) -> None:
    """Note which run it is. The node's leader tells what it knows by now; the others, where nothing is noted yet."""
    if not is_supervised(plan) or not is_recorded(plan, outcome):
        return
    nonce = launch_folder.attempt_nonce(plan.context)
    noted = None if exchange.is_node_leader else notes.noted_run(exchange.folder)
    if noted is not None and (noted.nonce, noted.nth) == (nonce, plan.nth):
        return
    run_id, display_id = (outcome.answer.run_id, outcome.answer.display_id or "") if outcome.answer else (0, "")
    name = run_name(plan, signed.reference)
    note = notes.RunNote(
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
    notes.note_run(exchange.folder, note)


def note_failure(plan: Plan, exchange: Exchange, cause: dict[str, Any]) -> None:
    """Note why this rank ends, for the launcher sees exit codes alone."""
    note = notes.FailureNote(time.time(), cause["rank"], cause["host"], cause["reason"], cause["traceback"])
    notes.note_failure(exchange.folder, launch_folder.attempt_nonce(plan.context), note)
