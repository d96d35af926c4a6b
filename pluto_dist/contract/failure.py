"""Why a rank, an attempt or a run failed: one record for what workers report, launchers conclude and trackers store."""

from __future__ import annotations

import time
from collections.abc import Iterable
from traceback import TracebackException
from typing import Any

from pluto_dist.contract.secret import Secret
from pluto_dist.serialization.codec import (
    LARGEST_INTEGER,
    Record,
    decode_bool,
    decode_int,
    decode_signed,
    optional,
    record_class,
    required,
    text_of,
)

REASON_LIMIT = 500  # characters
TRACEBACK_LIMIT = 4000  # characters, from its end
KILL_MS = 3000  # torch notices a dead worker within 0.1 s, and gives the others 30 s before it kills them
_KILLS = (-4, -7, -8, -9, -11)  # SIGILL, SIGBUS, SIGFPE, SIGKILL, SIGSEGV; not every system has their names


def now_ms() -> int:
    """This moment in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def time_of(fields: Any) -> int | None:
    """When the failure in a run's statusMetadata was, in milliseconds since 1970; ``None`` if that is not known.

    >>> time_of({"at_ms": 1500}), time_of({"at": 1.5}), time_of({"at": True}), time_of(None)
    (1500, 1500, None, None)
    """
    if not isinstance(fields, dict):
        return None
    at = fields.get("at_ms")
    if type(at) is int:
        return at
    seconds = fields.get("at")  # of an earlier version
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not abs(seconds) < LARGEST_INTEGER:
        return None
    return round(1000 * seconds)


def precedes(mine: Any, recorded: Any) -> bool:
    """Whether a failure came before the one that a tracker has on record; both as a run's statusMetadata has them.

    Nodes have clocks of their own, so what the ranks' store has as the first failure of the attempt is the first. A
    process that was killed wrote nothing there, and the others fail because of it: its failure is before theirs unless
    it came :data:`KILL_MS` later (launchers kill what they cannot stop). Else times are compared, which launchers
    correct by the tracker's clock.

    >>> first, killed = {"is_first": True, "at_ms": 9000}, {"exitcode": -9, "at_ms": 9500}
    >>> precedes(first, {"at_ms": 1000}), precedes({"at_ms": 1000}, first), precedes(killed, first)
    (True, False, True)
    """
    at, theirs = time_of(mine), time_of(recorded)
    if theirs is None:
        return True
    if at is None:
        return False
    if _is_kill(mine) != _is_kill(recorded):
        return at <= theirs + KILL_MS if _is_kill(mine) else theirs > at + KILL_MS
    if (is_first := _is_first(mine)) != _is_first(recorded):
        return is_first
    return at < theirs


def _is_kill(fields: Any) -> bool:
    return isinstance(fields, dict) and fields.get("exitcode") in _KILLS


def _is_first(fields: Any) -> bool:
    return isinstance(fields, dict) and fields.get("is_first") is True


@record_class
class Failure(Record):
    """Why a rank, an attempt or a run failed.

    Attributes:
        reason: one line: the exception with its message, or the signal or exit code in words; "" if not known.
        host: name of the node.
        rank: global rank; ``None`` if no rank failed (the launcher did).
        at_ms: when, in whole milliseconds since 1970 by the clock of ``host``, or the tracker's if that differs much;
            trackers return a float changed.
        exitcode: of the process; negative is the number of the signal that killed it.
        traceback: the end of the exception's traceback.
        is_first: whether the ranks' store has it as the first failure of its attempt.
    """

    reason: str = required(text_of(4 * REASON_LIMIT))
    host: str = required(text_of(1024))
    rank: int | None = optional(decode_int)
    at_ms: int | None = optional(decode_int)
    exitcode: int | None = optional(decode_signed)
    traceback: str | None = optional(text_of(4 * TRACEBACK_LIMIT))
    is_first: bool = optional(decode_bool, False)

    @classmethod
    def of_exception(
        cls, error: BaseException | TracebackException, *, rank: int, host: str, key: Secret | None
    ) -> Failure:
        """The failure of a rank that ends by ``error``; the API key is masked in its texts."""

        def shown(lines: Iterable[str]) -> str:
            text = "".join(lines).strip()
            return text if key is None else key.masked(text)

        told = TracebackException.from_exception(error) if isinstance(error, BaseException) else error

        return cls(
            shown(list(told.format_exception_only())[-1:])[:REASON_LIMIT],
            host,
            rank,
            traceback=shown(told.format())[-TRACEBACK_LIMIT:],
        )

    @classmethod
    def of_status(cls, metadata: Any) -> Failure | None:
        """The failure in a run's statusMetadata, which other programs write too; ``None`` if there is none in it."""
        fields = metadata if isinstance(metadata, dict) else {}
        reason, host, rank = fields.get("reason"), fields.get("host"), fields.get("rank")
        if not isinstance(reason, str) or not isinstance(host, str):
            return None
        return cls(reason, host, rank if isinstance(rank, int) else None)

    def summary(self) -> dict[str, Any]:
        """Reason, rank and host: what the record of the next attempt has."""
        return {"reason": self.reason, "rank": self.rank, "host": self.host}
