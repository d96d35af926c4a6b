"""Requests to the tracker and its answers, as records.

Used by the client and by the embedded tracker alike. Field names, types and limits are those of the published operation
``POST /api/runs/create`` and of the requests that the official SDK sends beside it; limits that the document does not
state were measured on the open-source server.

>>> CreateRunRequest(run_name="ddp", project_name="digits", external_id="job-7").to_json()
{'runName': 'ddp', 'projectName': 'digits', 'externalId': 'job-7'}
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar

from pluto_dist.contract.validation import (
    LARGEST_WHOLE,
    ContractError,
    Issue,
    Json,
    Record,
    contract_field,
    unstorable,
    unstorable_in,
)
from pluto_dist.errors import readable
from pluto_dist.serialization.text import parse_digits

STATUSES = ("RUNNING", "COMPLETED", "FAILED", "TERMINATED", "CANCELLED")
NAME_LIMIT = 255  # characters, not bytes: run name, project name, external id
PRECEDENCE = ("COMPLETED", "TERMINATED", "CANCELLED", "FAILED")  # of ends: the tracker ignores one before the run's own
AT_LIMIT = "Organization is at limit"  # the error of a create while the organization may store nothing more
LATEST_MS = 253_402_300_799_999  # the last millisecond of the year 9999; the server cannot store a later one


@dataclass(frozen=True, slots=True)
class CreateRunRequest(Record):
    """``POST /api/runs/create``. Times in milliseconds since 1970; JSON documents travel as strings."""

    run_name: str = contract_field("runName", "string", required=True, is_name=True)
    project_name: str = contract_field("projectName", "string", required=True, is_name=True)
    external_id: str | None = contract_field("externalId", "string", nullable=True, min_length=1, is_name=True)
    tags: tuple[str, ...] | None = contract_field("tags", "array", nullable=True)
    logger_settings: str | None = contract_field("loggerSettings", "string", nullable=True, is_document=True)
    system_metadata: str | None = contract_field("systemMetadata", "string", nullable=True, is_document=True)
    config: str | None = contract_field("config", "string", nullable=True, is_document=True)
    created_at: int | None = contract_field("createdAt", "number", nullable=True, date_ms=True)
    updated_at: int | None = contract_field("updatedAt", "number", nullable=True, date_ms=True)
    fork_run_id: int | None = contract_field("forkRunId", "number", nullable=True)
    fork_step: int | None = contract_field("forkStep", "number", nullable=True)
    inherit_config: bool | None = contract_field("inheritConfig", "boolean", nullable=True)
    inherit_tags: bool | None = contract_field("inheritTags", "boolean", nullable=True)


@dataclass(frozen=True, slots=True)
class CreateRunResponse(Record):
    """The answer to create and to resume. ``run_id`` is the tracker's number, unique over all projects."""

    nulls: ClassVar[bool] = True

    run_id: int = contract_field("runId", "number", required=True, whole=True)
    number: int | None = contract_field("number", "number", required=True, nullable=True, whole=True)
    display_id: str | None = contract_field("displayId", "string", required=True, nullable=True)
    project_name: str = contract_field("projectName", "string", required=True)
    organization_slug: str = contract_field("organizationSlug", "string", required=True)
    url: str = contract_field("url", "string", required=True)
    resumed: bool = contract_field("resumed", "boolean", required=True)
    forked_from_run_id: int | None = contract_field("forkedFromRunId", "number", nullable=True, whole=True)
    fork_step: int | None = contract_field("forkStep", "number", nullable=True)

    def __post_init__(self) -> None:
        """Escape what is not printable in what scripts print; the project's name is sent again as it is."""
        for name in ("display_id", "organization_slug", "url"):
            if isinstance(text := getattr(self, name), str):
                object.__setattr__(self, name, readable(text, kept=""))


@dataclass(frozen=True, slots=True)
class ResumeRunRequest(Record):
    """``POST /api/runs/resume``: exactly one of the three ids, none of them null; an external id needs its project."""

    run_id: int | None = contract_field("runId", "number")
    display_id: str | None = contract_field("displayId", "string")
    external_id: str | None = contract_field("externalId", "string", is_name=True)
    project_name: str | None = contract_field("projectName", "string", is_name=True)


@dataclass(frozen=True, slots=True)
class UpdateStatusRequest(Record):
    """``POST /api/runs/status/update``.

    Attributes:
        run_id: the tracker's number.
        status: one of :data:`STATUSES`.
        status_metadata: a JSON document as a string; ``None`` clears what an earlier end left.
        logger_settings: the same, merged into what is stored; ``None`` leaves it.
        status_updated: when the status changed, in milliseconds since 1970; ``None`` is now.
    """

    run_id: int = contract_field("runId", "number", required=True)
    status: str = contract_field("status", "string", required=True, choices=STATUSES)
    status_metadata: str | None = contract_field(
        "statusMetadata", "string", nullable=True, is_document=True, is_cleared=True
    )
    logger_settings: str | None = contract_field("loggerSettings", "string", nullable=True, is_document=True)
    status_updated: int | None = contract_field("statusUpdated", "number", nullable=True, date_ms=True)

    @classmethod
    def of(cls, run_id: int, status: str, document: Json = None, at_ms: int | None = None) -> UpdateStatusRequest:
        """The request that sends ``document``, unless it is ``None``, with the status, which changed ``at_ms``."""
        return cls(run_id, status, None if document is None else json.dumps(document), status_updated=at_ms)

    def told_by(self, launch: str, attempt: str = "") -> UpdateStatusRequest:
        """The same as the end of a launch and of its attempt: by its token and the key of its record.

        An end by failure says so, and can be told from that of an earlier one.
        """
        document = json.loads(self.status_metadata or "null")
        if not isinstance(document, dict):
            return self
        teller = {"launch": launch} | ({"attempt": attempt} if attempt else {})
        return replace(self, status_metadata=json.dumps({**document, **teller}))


@dataclass(frozen=True, slots=True)
class UpdateConfigRequest(Record):
    """``POST /api/runs/config/update``: merged into the stored config, key by key, later wins."""

    run_id: int = contract_field("runId", "number", required=True)
    config: str = contract_field("config", "string", required=True, is_document=True)


@dataclass(frozen=True, slots=True)
class UpdateTagsRequest(Record):
    """``POST /api/runs/tags/update``: replaces the run's tags. The SDK's endpoint."""

    run_id: int = contract_field("runId", "number", required=True)
    tags: tuple[str, ...] = contract_field("tags", "array", required=True)


@dataclass(frozen=True, slots=True)
class SuccessResponse(Record):
    """The answer to these updates: the tracker has taken the change, or ignored an end of lower precedence."""

    success: bool = contract_field("success", "boolean", required=True)


@dataclass(frozen=True, slots=True)
class TriggerRequest(Record):
    """``POST /api/runs/trigger``: the heartbeat of a run."""

    run_id: int = contract_field("runId", "number", required=True)


@dataclass(frozen=True, slots=True)
class TriggerResponse(Record):
    """The run's status as the tracker has it; CANCELLED is how a cancel reaches a job."""

    status: str | None = contract_field("status", "string", nullable=True)


@dataclass(frozen=True, slots=True)
class RunState:
    """The part of ``GET /api/runs/details/{id}`` that this package needs. Times in seconds since 1970.

    Attributes:
        status: one of :data:`STATUSES`.
        config: the run's config as it is stored.
        status_updated: when the status last changed; ``None`` if the tracker does not return it.
        last_sign: the last heartbeat or change.
        status_metadata: what came with the status.
        system_metadata: of the run's creator.
        heartbeat: the last heartbeat; ``None`` if there was none, and on the hosted tracker, which does not show it
            (2026).
        run_id: the tracker's number.
        display_id: what people call the run.
        external_id: the id with which it was created.
    """

    status: str
    config: Json
    status_updated: float | None = None
    last_sign: float | None = None
    status_metadata: Json = None
    system_metadata: Json = None
    heartbeat: float | None = None
    run_id: int = 0
    display_id: str | None = None
    external_id: str | None = None

    @classmethod
    def from_details(cls, body: Json, run_id: int = 0) -> RunState:
        """The state of the run with that number, in the answer's body.

        Raises:
            ContractError: there is no status in it.
        """
        if not isinstance(body, dict) or not isinstance(body.get("status"), str):
            raise ContractError("run", (Issue(("status",), "Required"),))
        heartbeat, updated = _seconds(body.get("heartbeatAt")), _seconds(body.get("updatedAt"))
        names = {name: body.get(key) for name, key in (("display_id", "displayId"), ("external_id", "externalId"))}
        return cls(
            status=body["status"],
            config=body.get("config"),
            status_updated=_seconds(body.get("statusUpdated")),
            last_sign=max((at for at in (heartbeat, updated) if at is not None), default=None),
            status_metadata=body.get("statusMetadata"),
            system_metadata=body.get("systemMetadata"),
            heartbeat=heartbeat,
            run_id=run_id,
            **{name: value if isinstance(value, str) else None for name, value in names.items()},
        )


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """One change of a run's status, as ``GET /api/runs/status/history`` lists it.

    Attributes:
        number: of the event; later ones have higher numbers, whatever their times.
        from_status: ``None`` for the run's creation.
        to_status: one of :data:`STATUSES`.
        source: "api", "resume", "stale-monitor" (the tracker ended a silent run), ...
        at: seconds since 1970; an end of the past has its own time.
    """

    number: int
    from_status: str | None
    to_status: str
    source: str
    at: float

    @classmethod
    def all_of(cls, body: Json) -> tuple[StatusEvent, ...]:
        """The events in the answer's body, in order of their numbers; what is none is left out."""
        listed = body.get("events") if isinstance(body, dict) else None
        found = (cls._of(each) for each in (listed if isinstance(listed, list) else ()))
        return tuple(sorted((event for event in found if event is not None), key=lambda event: event.number))

    @classmethod
    def _of(cls, body: Json) -> StatusEvent | None:
        number = parse_digits(str(body.get("id"))) if isinstance(body, dict) else None
        if number is None:
            return None
        source, before, after, at = (body.get(name) for name in ("source", "fromStatus", "toStatus", "createdAt"))
        moment = _seconds(at)
        if after not in STATUSES or before not in (None, *STATUSES) or moment is None:
            return None
        return cls(number, before, after, str(source), moment)


def _seconds(moment: Json) -> float | None:
    """An ISO 8601 time with Z as seconds since 1970; ``None`` for anything else."""
    if isinstance(moment, str):
        with suppress(ValueError):
            return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
    return None


def refusals(request: CreateRunRequest) -> tuple[str, ...]:
    """Why a well-typed request would be refused all the same; empty if it would not be.

    The client raises all of them before anything is sent, the embedded server answers the first. The hosted server
    answers 500 to most of these, and burns a run number.
    """
    found: list[str] = []
    names = {
        "runName": request.run_name,
        "projectName": request.project_name,
        "externalId": request.external_id,
    }
    for name, value in names.items():
        if value is not None and len(value) > NAME_LIMIT:
            found.append(f"{name} has {len(value)} characters; at most {NAME_LIMIT} can be stored")
    texts = {**names, **{f"tags[{n}]": tag for n, tag in enumerate(request.tags or ())}}
    found.extend(f"{name} contains {bad}" for name, text in texts.items() if (bad := unstorable(text or "")))
    documents = {"config": request.config, "systemMetadata": request.system_metadata}
    for name, document in {**documents, "loggerSettings": request.logger_settings}.items():
        found.extend(f"{name} contains {bad}" for bad in sorted(unstorable_in(document)))
    if sum(tag.startswith("group:") for tag in request.tags or ()) > 1:
        found.append("A run can have at most one group:* tag.")
    for name, at in (("createdAt", request.created_at), ("updatedAt", request.updated_at)):
        if at is not None and at > LATEST_MS:
            found.append(f"{name} is {at:.0f} ms, which is after the year 9999")
    for name, number in (("forkRunId", request.fork_run_id), ("forkStep", request.fork_step)):
        if number is not None and not (abs(number) <= LARGEST_WHOLE and number == int(number)):  # NaN neither
            found.append(f"{name} is {number}; it must be a whole number of at most 2**53 - 1")
    if request.fork_run_id and request.fork_step is None:
        found.append("forkStep is required when forkRunId is provided")
    return tuple(found)
