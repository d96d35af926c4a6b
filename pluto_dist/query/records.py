"""What a tracker has of a run, as typed records. Pure.

What a tracker returns is data: a field of another type than expected is ``None``, or the item is left out.

>>> RunSummary.of({"id": 7, "displayId": "DIG-1", "projectName": "digits", "status": "RUNNING"}).display_id
'DIG-1'
>>> RunSummary.of({"id": "7"}) is None
True
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from typing import Any, TypeVar

from pluto_dist.contract.validation import Json

T = TypeVar("T")

_NOT_FINITE = {1: math.nan, 2: math.inf, 4: -math.inf}  # by the flag of a raw point


@dataclass(frozen=True, slots=True)
class Project:
    """A project. ``updated_at`` is the time of its newest run or change, as the tracker counts it."""

    name: str
    run_count: int
    updated_at: datetime | None

    @classmethod
    def of(cls, body: Json) -> Project | None:
        name, count = _text(body, "name"), _number(body, "runCount")
        return None if not name else cls(name, count or 0, moment(_get(body, "updatedAt")))

    def to_json(self) -> dict[str, Json]:
        return {"name": self.name, "run_count": self.run_count, "updated_at": iso(self.updated_at)}


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run in a list.

    Attributes:
        id: the tracker's own number, unique over all projects.
        display_id: what people call it, such as DIG-7; unique in its project.
        project: the name of its project.
        name: its name.
        status: RUNNING, COMPLETED, FAILED, TERMINATED or CANCELLED.
        tags: its tags.
        created_at: when it was created.
    """

    id: int
    display_id: str | None
    project: str
    name: str
    status: str
    tags: tuple[str, ...]
    created_at: datetime | None

    @classmethod
    def of(cls, body: Json) -> RunSummary | None:
        """The run that a tracker's answer describes; ``None`` if it has no number."""
        number = _number(body, "id")
        return None if number is None else cls(**_summary(body, number))

    def to_json(self) -> dict[str, Json]:
        """The shape that ``--json`` prints."""
        return {**asdict(self), "tags": list(self.tags), "created_at": iso(self.created_at)}


@dataclass(frozen=True, slots=True)
class LogName:
    """A name under which a run has logged, and the type of what it has logged: METRIC, FILE, TEXT, ..."""

    name: str
    type: str

    @classmethod
    def of(cls, body: Json) -> LogName | None:
        name, type = _text(body, "logName"), _text(body, "logType")
        return cls(name, type) if name and type else None


@dataclass(frozen=True, slots=True)
class RunDetails(RunSummary):
    """A run with its documents.

    Attributes:
        external_id: the id that its creator chose.
        updated_at: its last change.
        status_updated: the last change of its status.
        status_metadata: what came with the status: why the run failed.
        config: its config.
        system_metadata: the hardware and software of the nodes, of the run's creator.
        logger_settings: settings of the SDK.
        log_names: under which it has logged; a tracker shows at most 1,000.
        forked_from, fork_step: the run that it continues from a step, if it is a fork.
        heartbeat_at: its last heartbeat; ``None`` on the hosted tracker, which does not show it.
        raw: the tracker's answer, as it came.
    """

    external_id: str | None
    updated_at: datetime | None
    status_updated: datetime | None
    status_metadata: Json
    config: Json
    system_metadata: Json
    logger_settings: Json
    log_names: tuple[LogName, ...]
    forked_from: int | None
    fork_step: int | None
    heartbeat_at: datetime | None
    raw: dict[str, Json]

    @classmethod
    def of(cls, body: Json) -> RunDetails | None:
        number = _number(body, "id")
        if number is None:
            return None
        return cls(
            **_summary(body, number),
            external_id=_text(body, "externalId") or None,
            updated_at=moment(body.get("updatedAt")),
            status_updated=moment(body.get("statusUpdated")),
            status_metadata=body.get("statusMetadata"),
            config=body.get("config"),
            system_metadata=body.get("systemMetadata"),
            logger_settings=body.get("loggerSettings"),
            log_names=all_of(LogName.of, body.get("logNames")),
            forked_from=_number(body, "forkedFromRunId"),
            fork_step=_number(body, "forkStep"),
            heartbeat_at=moment(body.get("heartbeatAt")),
            raw=body,
        )

    def summary(self) -> RunSummary:
        """The run without its documents."""
        return RunSummary(**{each.name: getattr(self, each.name) for each in fields(RunSummary)})

    def to_json(self) -> dict[str, Json]:
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "raw"}
        times = {name: iso(value) for name, value in values.items() if name.endswith(("_at", "_updated"))}
        names = [asdict(each) for each in self.log_names]
        return {**values, **times, "tags": list(self.tags), "log_names": names}


@dataclass(frozen=True, slots=True)
class Point:
    """A value of a metric. ``time_ms`` in milliseconds since 1970."""

    step: int
    time_ms: int
    value: float

    @classmethod
    def of(cls, body: Json) -> Point | None:
        step, at, flag = _number(body, "step"), moment(_get(body, "time")), _number(body, "nonFiniteFlags")
        value = _get(body, "value")
        if step is None or at is None or isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        return cls(step, milliseconds(at), _NOT_FINITE.get(flag or 0, float(value)))


@dataclass(frozen=True, slots=True)
class ConsoleLine:
    """A line that a rank printed. ``number`` counts the lines of one stream of one process."""

    time_ms: int
    type: str
    number: int
    message: str

    @classmethod
    def of(cls, body: Json) -> ConsoleLine | None:
        at, number, message = moment(_get(body, "time")), _number(body, "lineNumber"), _get(body, "message")
        if at is None or number is None or not isinstance(message, str):
            return None
        return cls(milliseconds(at), _text(body, "logType"), number, message)

    @property
    def rank(self) -> int | None:
        """The rank that printed it, which the official SDK writes before the line; ``None`` if it does not say.

        >>> ConsoleLine(0, "INFO", 1, "[rank3] epoch 1").rank
        3
        """
        mark = self.message.partition("] ")[0].removeprefix("[rank")
        is_marked = self.message.startswith("[rank") and mark.isascii() and mark.isalnum()
        with suppress(ValueError):
            return int(mark) if is_marked and len(mark) < 10 else None
        return None


@dataclass(frozen=True, slots=True)
class Datum:
    """A histogram, table or text; ``data`` is the text that was logged."""

    name: str
    type: str
    step: int
    time_ms: int
    data: str

    @classmethod
    def of(cls, body: Json) -> Datum | None:
        step, at, data = _number(body, "step"), moment(_get(body, "time")), _get(body, "data")
        if step is None or at is None or not isinstance(data, str):
            return None
        return cls(_text(body, "logName"), _text(body, "dataType"), step, milliseconds(at), data)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a run; ``url`` serves its bytes without a key, for a limited time."""

    log_name: str
    name: str
    type: str
    step: int
    time_ms: int
    size: int
    caption: str | None
    sample: int
    url: str

    @classmethod
    def of(cls, body: Json) -> StoredFile | None:
        at, url, name = moment(_get(body, "time")), _text(body, "url"), _text(body, "fileName")
        if at is None or not url or not name:
            return None
        step, size, sample = (_number(body, key) or 0 for key in ("step", "fileSize", "sampleIndex"))
        caption = _text(body, "caption") or None
        return cls(
            _text(body, "logName"), name, _text(body, "fileType"), step, milliseconds(at), size, caption, sample, url
        )


@dataclass(frozen=True, slots=True)
class StatusChange:
    """One change of a run's status. ``source`` is who made it: "api", "resume", "stale-monitor", ..."""

    from_status: str | None
    to_status: str
    source: str
    at: datetime | None

    @classmethod
    def of(cls, body: Json) -> StatusChange | None:
        before, after = _get(body, "fromStatus"), _text(body, "toStatus")
        if not after:
            return None
        from_status = before if isinstance(before, str) else None
        return cls(from_status, after, _text(body, "source"), moment(_get(body, "createdAt")))

    def to_json(self) -> dict[str, Json]:
        return {**asdict(self), "at": iso(self.at)}


def all_of(make: Callable[[Json], T | None], listed: Json) -> tuple[T, ...]:
    """The records in a list of an answer; items that are none are left out."""
    items: Iterable[Json] = listed if isinstance(listed, list) else ()
    return tuple(found for found in map(make, items) if found is not None)


def moment(value: Json) -> datetime | None:
    """A time of a tracker: ISO 8601 with Z, or without a zone, which is UTC; ``None`` for anything else.

    >>> moment("2026-01-01T00:00:00.5Z"), moment("soon")
    (datetime.datetime(2026, 1, 1, 0, 0, 0, 500000, tzinfo=datetime.timezone.utc), None)
    """
    if not isinstance(value, str):
        return None
    text = value.replace("Z", "+00:00")
    head, dot, rest = text.partition(".")
    if dot:  # Python 3.10 takes three or six digits of a second
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        text = f"{head}.{digits[:6].ljust(6, '0')}{rest[len(digits) :]}"
    with suppress(ValueError):
        found = datetime.fromisoformat(text)
        return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)
    return None


def iso(at: datetime | None) -> str | None:
    """``at`` in ISO 8601 with milliseconds and Z."""
    if at is None:
        return None
    return at.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(at: datetime) -> int:
    """``at`` in whole milliseconds since 1970."""
    return round(1000 * at.timestamp())


def _summary(body: dict[str, Json], number: int) -> dict[str, Any]:
    tags = body.get("tags")
    return {
        "id": number,
        "display_id": _text(body, "displayId") or None,
        "project": _text(body, "projectName"),
        "name": _text(body, "name"),
        "status": _text(body, "status"),
        "tags": tuple(tag for tag in (tags if isinstance(tags, list) else ()) if isinstance(tag, str)),
        "created_at": moment(body.get("createdAt")),
    }


def _get(body: Json, name: str) -> Json:
    return body.get(name) if isinstance(body, dict) else None


def _text(body: Json, name: str) -> str:
    value = _get(body, name)
    return value if isinstance(value, str) else ""


def _number(body: Json, name: str) -> int | None:
    value = _get(body, name)
    return value if type(value) is int else None
