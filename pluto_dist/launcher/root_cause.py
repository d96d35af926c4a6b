"""How did the job end? From what the agent saw of its workers to the status that the tracker is told.

Pure. The agent knows exit codes and signals, a worker's error file or note knows the exception, the kernel's
counters know about memory; together they name the root cause: the first rank of this node to fail, and why.

>>> ended(Failed((Ending(rank=1, exitcode=-9, at=5.0),), host="a"), memory="its cgroup reached its limit").reason
'killed by SIGKILL, probably by the out-of-memory killer (its cgroup reached its limit)'
"""

from __future__ import annotations

import signal
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pluto_dist.rendezvous.worker_reports import FailureNote

Status = Literal["COMPLETED", "FAILED", "TERMINATED", "CANCELLED"]


@dataclass(frozen=True, slots=True)
class Ending:
    """How one worker ended.

    Attributes:
        rank: global rank.
        exitcode: its exit code; negative is the signal that killed it.
        at: when, seconds since 1970.
        message: the exception, where torch's error file has it.
        traceback: its traceback, where torch's error file has it.
    """

    rank: int
    exitcode: int
    at: float
    message: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """Workers of this node failed, and no restart is left."""

    endings: tuple[Ending, ...]
    host: str


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a run did not complete; what goes into its statusMetadata.

    Attributes:
        reason: one line.
        at: when, seconds since 1970, by the clock of ``host``.
        host: the node's name.
        rank: global rank, where it was a rank.
        exitcode: of that rank, where it has one.
        traceback: of its exception, where there was one.
    """

    reason: str
    at: float
    host: str
    rank: int | None = None
    exitcode: int | None = None
    traceback: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


def ended(failed: Failed, *, memory: str | None = None, note: FailureNote | None = None) -> Cause:
    """The root cause on this node.

    Args:
        failed: the workers that the agent found dead.
        memory: how the kernel's counters say that memory ran out since the job began, if they do.
        note: what the first worker that could speak said.
    """
    # The agent ends the others of its node with SIGTERM, so whoever died of something else was before them.
    causes = [ending for ending in failed.endings if ending.exitcode != -signal.SIGTERM] or failed.endings
    first = min(causes, key=lambda ending: (ending.at, ending.rank))
    if note is not None and (note.rank == first.rank or note.at < first.at):
        exitcode = next((e.exitcode for e in failed.endings if e.rank == note.rank), None)
        return Cause(note.reason, note.at, note.host, note.rank, exitcode, note.traceback)
    reason = first.message.strip() or _in_words(first.exitcode, memory)
    return Cause(reason, first.at, failed.host, first.rank, first.exitcode, first.traceback or None)


def _in_words(exitcode: int, memory: str | None) -> str:
    if exitcode >= 0:
        return f"exit code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    if name == "SIGKILL" and memory is not None:
        return f"killed by {name}, probably by the out-of-memory killer ({memory})"
    return f"killed by {name}"
