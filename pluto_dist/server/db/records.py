"""Records of the database, the precedence of run statuses, and the exception for rejected requests.

These records are internal to the server; those that are sent over HTTP are in ``pluto_dist.contract``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from pluto_dist.contract.validation import Json
from pluto_dist.server.db import display_id

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class RequestRejectedError(Exception):
    """A valid HTTP request that cannot be fulfilled; ``status`` and ``message`` of the error response."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """The client of a create or resume request, and the fields of the contract in its body."""

    user_agent: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunHeader:
    """A run without its documents."""

    id: int
    number: int
    project_id: int
    project: str
    prefix: str
    status: str
    forked_from: int | None
    fork_step: int | None

    @property
    def display_id(self) -> str:
        return display_id.display_id(self.prefix, self.number)


@dataclass(frozen=True, slots=True)
class AttachResult:
    """The run that a create or resume request returned, and whether it existed before."""

    run: RunHeader
    resumed: bool


@dataclass(frozen=True, slots=True)
class StatusChange:
    """One change of a run's status.

    Attributes:
        before: the status before; ``None`` for the creation.
        after: the status after.
        at: when, in milliseconds since 1970.
        source: the request that changed it: "create", "resume" or "update".
        metadata: what came with the status.
        id: the number of the change; 0 if it is not stored yet.
    """

    before: str | None
    after: str
    at: int
    source: str
    metadata: Json = None
    id: int = 0

    def to_json(self) -> dict[str, Json]:
        return {"from": self.before, "to": self.after, "at": iso(self.at), "source": self.source}

    def to_event(self, run: int) -> dict[str, Json]:
        """The change in the hosted tracker's form. There are no users here, and keys are known by their hashes only.

        There a create, like an update, is an "api" request, unless it finds a run that has ended.
        """
        is_resume = self.source == "resume" or (self.source == "create" and self.before is not None)
        return {
            "id": str(self.id),
            "runId": run,
            "fromStatus": self.before,
            "toStatus": self.after,
            "source": "resume" if is_resume else "api",
            "metadata": self.metadata,
            "actorId": None,
            "apiKeyId": None,
            "createdAt": iso(self.at),
        }


@dataclass(frozen=True, slots=True)
class Attach:
    """One create or resume request for the run. ``at`` in milliseconds since 1970."""

    at: int
    user_agent: str
    outcome: str
    fields: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        return {
            "at": iso(self.at),
            "atMs": self.at,
            "userAgent": self.user_agent,
            "outcome": self.outcome,
            "fields": list(self.fields),
        }


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run in a list. Times in milliseconds since 1970."""

    id: int
    number: int
    display_id: str
    name: str
    external_id: str | None
    status: str
    tags: tuple[str, ...]
    created_at: int
    updated_at: int

    def to_json(self) -> dict[str, Json]:
        return {
            "id": self.id,
            "name": self.name,
            "number": self.number,
            "displayId": self.display_id,
            "status": self.status,
            "tags": list(self.tags),
            "createdAt": iso(self.created_at),
        }


@dataclass(frozen=True, slots=True)
class LogName:
    """A log name of a run, registered with ``logName/add``."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Project:
    """A project, the number of its runs, and the newest of them."""

    name: str
    prefix: str
    run_count: int
    newest: tuple[RunSummary, ...]
    id: int
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class RunDetails:
    """All facts about a run. ``attaches`` are the newest ones, ``attach_count`` counts all."""

    summary: RunSummary
    project: str
    config: Json
    system_metadata: Json
    logger_settings: Json
    status_metadata: Json
    status_updated: int | None
    heartbeat_at: int | None
    forked_from: int | None
    fork_step: int | None
    notes: str | None
    history: tuple[StatusChange, ...]
    attaches: tuple[Attach, ...]
    attach_count: int
    log_names: tuple[LogName, ...]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def iso(at: int) -> str:
    """Milliseconds since 1970 in ISO 8601, as the tracker sends times.

    >>> iso(253402300799999)
    '9999-12-31T23:59:59.999Z'
    """
    return (_EPOCH + timedelta(milliseconds=at)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


RUNNING = "RUNNING"
_PRECEDENCE = {RUNNING: 0, "COMPLETED": 1, "TERMINATED": 2, "CANCELLED": 3, "FAILED": 4}


def allows_transition(current: str, requested: str) -> bool:
    """Whether a status update takes effect: one to RUNNING always does, an end only over one of lower precedence.

    >>> allows_transition("COMPLETED", "FAILED"), allows_transition("FAILED", "COMPLETED")
    (True, False)
    """
    return requested == RUNNING or _PRECEDENCE.get(requested, 0) >= _PRECEDENCE.get(current, 0)


def has_ended(status: str) -> bool:
    return status != RUNNING
