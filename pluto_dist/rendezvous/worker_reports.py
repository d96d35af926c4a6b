"""Reports of a node's workers to the launcher above them, in the folder that it made for them.

Written by workers that may be killed at any moment, read by the launcher, which outlives them. Nothing in them is
secret.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Literal

from pluto_dist.contract.failure import Failure
from pluto_dist.contract.run_ref import Reference, RunName
from pluto_dist.contract.validation import parse_document
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.serialization.codec import (
    Record,
    decode_bool,
    decode_int,
    one_of,
    optional,
    record_class,
    required,
    text_of,
)

_RUN, _OWNER, _FAILURE, _END = "noted run", "noted owner ", "noted failure", "noted end"
Status = Literal["FAILED", "TERMINATED"]
_TRACEBACK_LIMIT = 2500  # characters; a text of a node's state has at most 8,192
_text = text_of(8192)


@record_class
class RunReport(Record):
    """The run that this node's workers are in.

    Attributes:
        run_id: the tracker's number; 0 while the tracker has not answered.
        display_id: what people call it, or "".
        nth: number of the run within the launch, from 1.
        nonce: of this node's attempt; its failures are reported under the same one.
        node_rank: this node's number in the attempt; read by earlier versions alone.
        owns: whether the run's owner is among this node's workers, so that this node's launcher ends it.
        is_settled: whether the run is in the tracker or kept; else it may be created in this moment.
        origin: of the tracker's API.
        project: the run's.
        kind: how the run is referred to: "external id", "number" or "display id".
        value: that reference.
        launch: the launch's token.
        continues_job: whether a later launch of the job may ask whether this one is alive (``contract.claims``).
        stays_offline: whether the script wants no tracker to be asked, or has no key for it.
        updated_at: the last change of a run of the past, in milliseconds since 1970, which is when it ended.
        url: of the run's page; "" while the tracker has not answered.
        is_refused: whether this launch was not let into the run, which it then does not end.
    """

    run_id: int = required(decode_int)
    display_id: str = required(_text)
    nth: int = required(decode_int)
    nonce: str = required(_text)
    node_rank: int = required(decode_int)
    origin: str = required(_text)
    project: str = required(_text)
    kind: str = required(one_of("external id", "number", "display id"))
    value: str = required(_text)
    launch: str = required(_text)
    continues_job: bool = optional(decode_bool, False)
    updated_at: int | None = optional(decode_int)
    owns: bool = optional(decode_bool, False)
    is_settled: bool = optional(decode_bool, True)
    stays_offline: bool = optional(decode_bool, False)
    url: str = optional(_text, "")
    is_refused: bool = optional(decode_bool, False)

    @property
    def name(self) -> RunName:
        """The run, as the tracker knows it."""
        return RunName(self.origin, self.project, Reference.of(self.kind, self.value))


def report_run(state: NodeState, report: RunReport) -> None:
    """Report which run the workers are in."""
    document = json.dumps(report.to_json())
    state.set(f"{_RUN} {report.nth}", document)
    state.set(_RUN, document)


def report_owner(state: NodeState, report: RunReport, rank: int) -> None:
    """Report whether this rank owns the run; no other rank's report changes that."""
    name, attempt = f"{_OWNER}{report.nth} {rank}", _attempt_of(report)
    if report.owns:
        state.set(name, attempt)
    elif state.get(name) == attempt:
        state.set(name, "another rank owns it")


def report_failure(state: NodeState, nonce: str, failure: Failure) -> None:
    """Report why this rank ends; of an attempt's ranks on this node the first report counts."""
    failure = dataclasses.replace(failure, traceback=(failure.traceback or "")[-_TRACEBACK_LIMIT:])
    state.set_default(f"{_FAILURE} {nonce}", json.dumps(failure.to_json()))


def report_end(state: NodeState, nonce: str, nth: int, status: str, failure: Failure) -> None:
    """Report how this rank ended its run, if not as a success; its process may go on, and end as one."""
    report_failure(state, nonce, failure)
    state.set_default(f"{_END} {nonce} {nth}", status)


def read_run(state: NodeState, nth: int | None = None) -> RunReport | None:
    """The last run of the node's workers, or the ``nth``; ``None`` if none is reported, or by another version."""
    try:
        found = RunReport.from_json(parse_document(state.get(_RUN if nth is None else f"{_RUN} {nth}") or "null"))
    except ValueError:
        return None
    owners = [state.get(name) for name in state.names(_OWNER)]
    return dataclasses.replace(found, owns=_attempt_of(found) in owners)


def _attempt_of(report: RunReport) -> str:
    return f"{report.nonce} {report.nth}"


def read_end(state: NodeState, run: RunReport) -> tuple[Status, Failure] | None:
    """How the first of the node's ranks that said so ended ``run``; ``None`` if none ended it but as a success."""
    status, failure = state.get(f"{_END} {run.nonce} {run.nth}"), read_failure(state, run.nonce)
    if failure is None or status is None:
        return None
    return ("FAILED" if status == "FAILED" else "TERMINATED"), failure


def read_failure(state: NodeState, nonce: str) -> Failure | None:
    """The first failure that a worker of the node reported in the attempt with this nonce."""
    try:
        return Failure.from_json(parse_document(state.get(f"{_FAILURE} {nonce}") or "null"))
    except ValueError:
        return None
