"""What the database hands out, and the one exception by which it says no.

Rows become frozen records here; nothing outside ``server`` sees them. What travels over HTTP is in
``wire``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from pluto_dist.contract.validation import Json
from pluto_dist.server.db import display_id

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class RefusalError(Exception):
    """A request that cannot be done: HTTP status and the answer's ``error`` text."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who sent a create or resume, and which fields of the contract its body carried."""

    user_agent: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Head:
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
class Landed:
    """What became of a create or resume. The fork is only told to the call that made the run."""

    run: Head
    resumed: bool


@dataclass(frozen=True, slots=True)
class StatusChange:
    """One real change of a run's status; ``before`` is ``None`` for its birth. Times in milliseconds."""

    before: str | None
    after: str
    at: int
    source: str

    def to_json(self) -> dict[str, Json]:
        return {"from": self.before, "to": self.after, "at": iso(self.at), "source": self.source}


@dataclass(frozen=True, slots=True)
class Attach:
    """One create or resume that named the run. ``at`` in milliseconds since 1970."""

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
class Summary:
    """A run as a line of a list."""

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
            "externalId": self.external_id,
            "status": self.status,
            "tags": list(self.tags),
            "createdAt": iso(self.created_at),
            "updatedAt": iso(self.updated_at),
        }


@dataclass(frozen=True, slots=True)
class LogName:
    """A name under which a run logs, as it was registered with ``logName/add``."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Project:
    """A project, how many runs it has, and the newest of them."""

    name: str
    prefix: str
    run_count: int
    newest: tuple[Summary, ...]
    id: int
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Details:
    """Everything that is known of a run. ``attaches`` are the newest, ``attach_count`` counts all."""

    summary: Summary
    project: str
    config: Json
    system_metadata: Json
    logger_settings: Json
    status_metadata: Json
    status_updated: int | None
    heartbeat_at: int | None
    forked_from: int | None
    fork_step: int | None
    history: tuple[StatusChange, ...]
    attaches: tuple[Attach, ...]
    attach_count: int
    log_names: tuple[LogName, ...]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def iso(at: int) -> str:
    """Milliseconds since 1970 as the tracker writes a time.

    >>> iso(253402300799999)
    '9999-12-31T23:59:59.999Z'
    """
    return (_EPOCH + timedelta(milliseconds=at)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


RUNNING = "RUNNING"


_GRAVITY = {"COMPLETED": 1, "TERMINATED": 2, "CANCELLED": 3, "FAILED": 4}


def accepts(current: str, wanted: str) -> bool:
    return _gravity(wanted) == 0 or _gravity(wanted) >= _gravity(current)


def has_ended(status: str) -> bool:
    return status != RUNNING


def _gravity(status: str) -> int:
    return _GRAVITY.get(status, 0)
