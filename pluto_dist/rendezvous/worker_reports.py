"""What the workers of one node leave for the launcher above them, in the launch folder that it made for them.

Written by workers that may be killed at any moment, read by the launcher that outlives them; small JSON, checked
when it is read. Nothing secret is in it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from pluto_dist.rendezvous.node_state import NodeState

T = TypeVar("T", bound="RunReport | FailureNote")
_RUN, _FAILURE = "noted run", "noted failure"
_TRACEBACK_LIMIT = 2500  # a note has 8,192 characters


@dataclass(frozen=True, slots=True)
class RunReport:
    """The run that this node's workers are in.

    Attributes:
        run_id: the tracker's number; 0 while the tracker has not answered.
        display_id: what people call it, or "".
        nth: which run of the launch it is, from 1.
        nonce: of this node's attempt, as its failure notes have it.
        node_rank: this node's number in the attempt; 0 where rank 0 is.
        origin: of the tracker's API.
        project: the run's.
        kind: how it is named to the tracker: an "external id", "number" or "display id".
        value: that name.
        launch: the launch's token.
    """

    run_id: int
    display_id: str
    nth: int
    nonce: str
    node_rank: int
    origin: str
    project: str
    kind: str
    value: str
    launch: str


@dataclass(frozen=True, slots=True)
class FailureNote:
    """Why a rank ends, as it said itself.

    Attributes:
        at: when, seconds since 1970.
        rank: global rank.
        host: its node's name.
        reason: the exception's type and message.
        traceback: the end of its traceback.
    """

    at: float
    rank: int
    host: str
    reason: str
    traceback: str


def note_run(folder: NodeState, note: RunReport) -> None:
    """Tell the launcher which run its workers are in."""
    folder.set(_RUN, json.dumps(asdict(note)))


def note_failure(folder: NodeState, nonce: str, note: FailureNote) -> None:
    """Tell the launcher why this rank ends; of an attempt's ranks on this node the first word counts."""
    text = json.dumps({**asdict(note), "traceback": note.traceback[-_TRACEBACK_LIMIT:], "reason": note.reason[:500]})
    folder.set_default(f"{_FAILURE} {nonce}", text)


def noted_run(folder: NodeState) -> RunReport | None:
    """The run of the node's workers, once they are in one."""
    return _read(RunReport, folder.get(_RUN))


def noted_failure(folder: NodeState, nonce: str) -> FailureNote | None:
    """The first failure that a worker of the node told of in the attempt with this nonce."""
    return _read(FailureNote, folder.get(f"{_FAILURE} {nonce}"))


def _read(kind: type[T], text: str | None) -> T | None:
    try:
        values: Any = json.loads(text or "")
        wanted = {field.name: field.type for field in fields(kind)}
        if all(type(values[name]).__name__ == type_name for name, type_name in wanted.items()):
            return kind(**{name: values[name] for name in wanted})
    except (ValueError, TypeError, KeyError):
        pass  # no note, or one of another version
    return None
