"""The tracker's contract as records: what is sent, what comes back, what makes either invalid.

Used by the client and by the embedded server alike, so both read the contract from one place. This
module knows nothing of HTTP, retries or storage. Field names, types and limits are those of the
published operation ``POST /api/runs/create`` and of the requests the official SDK sends beside it;
limits that the document does not state were measured on the open-source server.

>>> CreateRunRequest(run_name="ddp", project_name="digits", external_id="job-7").to_json()
{'runName': 'ddp', 'projectName': 'digits', 'externalId': 'job-7'}
>>> [issue.message for issue in issues(CreateRunRequest, {"runName": None})]
['Expected string, received null', 'Required']
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal, TypeVar

Json = Any
"""A value that ``json.loads`` can give. Checked by :func:`issues` before it becomes a record."""

JsonType = Literal["string", "number", "boolean", "array"]

STATUSES = ("RUNNING", "COMPLETED", "FAILED", "TERMINATED", "CANCELLED")
NAME_LIMIT = 255  # characters, not bytes: run name, project name, external id
TAG_LIMIT = 50
LATEST_MS = 253_402_300_799_999  # the last millisecond of the year 9999; the server cannot store a later one
_LATEST_DATE_MS = 8_640_000_000_000_000  # the last millisecond an ECMAScript Date can hold


@dataclass(frozen=True, slots=True)
class Rule:
    """How one field stands in the contract: its JSON name, type and limits."""

    json: str
    type: JsonType
    nullable: bool = False
    min_length: int | None = None
    date_ms: bool = False
    whole: bool = False
    choices: tuple[str, ...] = ()


def _field(
    name: str,
    type: JsonType,
    *,
    required: bool = False,
    nullable: bool = False,
    min_length: int | None = None,
    date_ms: bool = False,
    whole: bool = False,
    choices: tuple[str, ...] = (),
) -> Any:
    rule = Rule(name, type, nullable, min_length, date_ms, whole, choices)
    if required:
        return dataclasses.field(metadata={"rule": rule})
    return dataclasses.field(default=None, metadata={"rule": rule})


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing wrong with a JSON body, in the words and the shape of the server's validator (zod)."""

    path: tuple[str | int, ...]
    message: str
    detail: dict[str, Json] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        return {**self.detail, "path": list(self.path), "message": self.message}


class ContractError(ValueError):
    """A JSON value that is not the record it should be; ``issues`` says why."""

    def __init__(self, record: str, found: tuple[Issue, ...]) -> None:
        self.issues = found
        where = "; ".join(f"{'.'.join(map(str, i.path)) or 'body'}: {i.message}" for i in found)
        super().__init__(f"not a {record}: {where}")


R = TypeVar("R", bound="Record")


@dataclass(frozen=True, slots=True)
class Record:
    """A JSON object of the contract. ``None`` means absent."""

    nulls: ClassVar[bool] = False  # answers spell out their nulls, requests leave them out

    def to_json(self) -> dict[str, Json]:
        out: dict[str, Json] = {}
        for attribute, rule, _ in _rules(type(self)):
            value = getattr(self, attribute)
            if value is not None or self.nulls:
                out[rule.json] = list(value) if isinstance(value, tuple) else value
        return out

    @classmethod
    def from_json(cls: type[R], body: Json) -> R:
        """The record in ``body``; unknown fields are dropped, as the server does.

        Raises:
            ContractError: a field is missing or has another type than the contract's.
        """
        if found := issues(cls, body):
            raise ContractError(cls.__name__, found)
        values = {}
        for attribute, rule, _ in _rules(cls):
            value = body.get(rule.json)
            if isinstance(value, list):
                value = tuple(value)
            values[attribute] = int(value) if rule.whole and value is not None else value
        return cls(**values)


@dataclass(frozen=True, slots=True)
class CreateRunRequest(Record):
    """``POST /api/runs/create``. Times in milliseconds since 1970; JSON documents travel as strings."""

    run_name: str = _field("runName", "string", required=True)
    project_name: str = _field("projectName", "string", required=True)
    external_id: str | None = _field("externalId", "string", nullable=True, min_length=1)
    tags: tuple[str, ...] | None = _field("tags", "array", nullable=True)
    logger_settings: str | None = _field("loggerSettings", "string", nullable=True)
    system_metadata: str | None = _field("systemMetadata", "string", nullable=True)
    config: str | None = _field("config", "string", nullable=True)
    created_at: float | None = _field("createdAt", "number", nullable=True, date_ms=True)
    updated_at: float | None = _field("updatedAt", "number", nullable=True, date_ms=True)
    fork_run_id: float | None = _field("forkRunId", "number", nullable=True)
    fork_step: float | None = _field("forkStep", "number", nullable=True)
    inherit_config: bool | None = _field("inheritConfig", "boolean", nullable=True)
    inherit_tags: bool | None = _field("inheritTags", "boolean", nullable=True)


@dataclass(frozen=True, slots=True)
class CreateRunResponse(Record):
    """The answer of create and of resume. ``run_id`` is the tracker's number, unique over all projects."""

    nulls: ClassVar[bool] = True

    run_id: int = _field("runId", "number", required=True, whole=True)
    number: int | None = _field("number", "number", required=True, nullable=True, whole=True)
    display_id: str | None = _field("displayId", "string", required=True, nullable=True)
    project_name: str = _field("projectName", "string", required=True)
    organization_slug: str = _field("organizationSlug", "string", required=True)
    url: str = _field("url", "string", required=True)
    resumed: bool = _field("resumed", "boolean", required=True)
    forked_from_run_id: int | None = _field("forkedFromRunId", "number", nullable=True, whole=True)
    fork_step: int | None = _field("forkStep", "number", nullable=True)


@dataclass(frozen=True, slots=True)
class ResumeRunRequest(Record):
    """``POST /api/runs/resume``: exactly one of the three ids; an external id needs its project."""

    run_id: int | None = _field("runId", "number", nullable=True)
    display_id: str | None = _field("displayId", "string", nullable=True)
    external_id: str | None = _field("externalId", "string", nullable=True, min_length=1)
    project_name: str | None = _field("projectName", "string", nullable=True)


@dataclass(frozen=True, slots=True)
class UpdateStatusRequest(Record):
    """``POST /api/runs/status/update``. ``status_metadata`` is a JSON document as a string."""

    run_id: int = _field("runId", "number", required=True)
    status: str = _field("status", "string", required=True, choices=STATUSES)
    status_metadata: str | None = _field("statusMetadata", "string", nullable=True)
    logger_settings: str | None = _field("loggerSettings", "string", nullable=True)
    status_updated: float | None = _field("statusUpdated", "number", nullable=True, date_ms=True)

    @classmethod
    def of(cls, run_id: int, status: str, document: Json = None) -> UpdateStatusRequest:
        """The request that sends ``document``, unless it is ``None``, along with the status."""
        return cls(run_id, status, None if document is None else json.dumps(document))


@dataclass(frozen=True, slots=True)
class UpdateConfigRequest(Record):
    """``POST /api/runs/config/update``: merged into the stored config, key by key, later wins."""

    run_id: int = _field("runId", "number", required=True)
    config: str | None = _field("config", "string", required=True, nullable=True)


@dataclass(frozen=True, slots=True)
class SuccessResponse(Record):
    """The answer to both updates: the tracker has taken the change, or ignored an end of lower precedence."""

    success: bool = _field("success", "boolean", required=True)


@dataclass(frozen=True, slots=True)
class TriggerRequest(Record):
    """``POST /api/runs/trigger``: the heartbeat of a run."""

    run_id: int = _field("runId", "number", required=True)


@dataclass(frozen=True, slots=True)
class TriggerResponse(Record):
    """The run's status as the tracker has it; CANCELLED is how a cancel reaches a job."""

    status: str | None = _field("status", "string", nullable=True)


@dataclass(frozen=True, slots=True)
class RunState:
    """What ``GET /api/runs/details/{id}`` tells that this package needs. Times in seconds since 1970.

    Attributes:
        status: one of :data:`STATUSES`.
        config: the run's config as it is stored.
        status_updated: when the status last changed; ``None`` where the tracker does not say.
        last_sign: the last sign of life: a heartbeat (the hosted tracker does not show it, 2026) or a change.
        status_metadata: what came with the status.
    """

    status: str
    config: Json
    status_updated: float | None = None
    last_sign: float | None = None
    status_metadata: Json = None

    @classmethod
    def from_details(cls, body: Json) -> RunState:
        """The state in the answer's body.

        Raises:
            ContractError: there is no status in it.
        """
        if not isinstance(body, dict) or not isinstance(body.get("status"), str):
            raise ContractError("run", (Issue(("status",), "Required"),))
        signs = [at for name in ("heartbeatAt", "updatedAt") if (at := _seconds(body.get(name))) is not None]
        changed = _seconds(body.get("statusUpdated"))
        return cls(body["status"], body.get("config"), changed, max(signs, default=None), body.get("statusMetadata"))


def _seconds(moment: Json) -> float | None:
    """An ISO 8601 time with Z as seconds since 1970; ``None`` for anything else."""
    if isinstance(moment, str):
        with suppress(ValueError):
            return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
    return None


_RULES: dict[type[Record], tuple[tuple[str, Rule, bool], ...]] = {}


def _rules(record: type[Record]) -> tuple[tuple[str, Rule, bool], ...]:
    """Attribute, rule, and whether the field must be there, for each field of ``record``."""
    if record not in _RULES:
        _RULES[record] = tuple(
            (field.name, field.metadata["rule"], field.default is dataclasses.MISSING)
            for field in dataclasses.fields(record)
        )
    return _RULES[record]


def issues(record: type[Record], body: Json) -> tuple[Issue, ...]:
    """Everything that makes ``body`` no ``record``; empty when it is one."""
    if not isinstance(body, dict):
        return (_wrong_type((), "object", body),)
    found: list[Issue] = []
    for _, rule, required in _rules(record):
        if rule.json not in body:
            if required:
                detail = {"code": "invalid_type", "expected": rule.type, "received": "undefined"}
                found.append(Issue((rule.json,), "Required", detail))
        elif body[rule.json] is not None or not rule.nullable:
            found.extend(_value_issues(rule, body[rule.json]))
    return tuple(found)


def _value_issues(rule: Rule, value: Json) -> list[Issue]:
    path: tuple[str | int, ...] = (rule.json,)
    if rule.choices:
        return _choice_issues(rule, value)
    if _type_of(value) != rule.type:
        return [_wrong_type(path, rule.type, value)]
    if rule.type == "array":
        found = [_wrong_type((*path, n), "string", v) for n, v in enumerate(value) if not isinstance(v, str)]
        if rule.json == "tags" and len(value) > TAG_LIMIT:
            found.append(_beyond(path, "array", "maximum", TAG_LIMIT, f"A run can have at most {TAG_LIMIT} tags"))
        return found
    if rule.min_length and len(value) < rule.min_length:
        return [_beyond(path, "string", "minimum", 1, "String must contain at least 1 character(s)")]
    return _number_issues(path, value, latest=rule.date_ms) if rule.whole or rule.date_ms else []


def _number_issues(path: tuple[str | int, ...], value: float, *, latest: bool) -> list[Issue]:
    if not math.isfinite(value) or value != int(value):
        detail = {"code": "invalid_type", "expected": "integer", "received": "float"}
        return [Issue(path, "Expected integer, received float", detail)]
    if value < 0:
        return [_beyond(path, "number", "minimum", 0, "Number must be greater than or equal to 0")]
    if latest and value > _LATEST_DATE_MS:
        message = f"Number must be less than or equal to {_LATEST_DATE_MS}"
        return [_beyond(path, "number", "maximum", _LATEST_DATE_MS, message)]
    return []


def _choice_issues(rule: Rule, value: Json) -> list[Issue]:
    if value in rule.choices:
        return []
    options = " | ".join(f"'{choice}'" for choice in rule.choices)
    received = _type_of(value)
    detail: dict[str, Json]
    if isinstance(value, str):
        detail = {"received": value, "code": "invalid_enum_value", "options": list(rule.choices)}
        return [Issue((rule.json,), f"Invalid enum value. Expected {options}, received '{value}'", detail)]
    detail = {"expected": options, "received": received, "code": "invalid_type"}
    return [Issue((rule.json,), f"Expected {options}, received {received}", detail)]


def _beyond(
    path: tuple[str | int, ...], type: str, bound: Literal["minimum", "maximum"], limit: int, message: str
) -> Issue:
    code = "too_small" if bound == "minimum" else "too_big"
    detail: dict[str, Json] = {"code": code, bound: limit, "type": type, "inclusive": True, "exact": False}
    return Issue(path, message, detail)


def _wrong_type(path: tuple[str | int, ...], expected: str, value: Json) -> Issue:
    received = _type_of(value)
    detail = {"code": "invalid_type", "expected": expected, "received": received}
    return Issue(path, f"Expected {expected}, received {received}", detail)


def _type_of(value: Json) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def refusals(request: CreateRunRequest) -> tuple[str, ...]:
    """Why a well-typed request would be refused all the same; empty when it would not be.

    The client raises all of them before anything is sent, the embedded server answers the first.
    The hosted server answers 500 to most of these, and burns a run number.
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
    if request.fork_run_id and request.fork_step is None:
        found.append("forkStep is required when forkRunId is provided")
    return tuple(found)


_SURROGATE = re.compile("[\ud800-\udfff]")


def unstorable(text: str) -> str | None:
    """What in ``text`` no text column can hold, or ``None``."""
    if "\x00" in text:
        return "a NUL character, which cannot be stored"
    if _SURROGATE.search(text):
        return "a lone surrogate, which cannot be stored"
    return None


def _refuse_constant(constant: str) -> Json:
    raise ValueError(f"{constant} is not JSON")


_PARSER = json.JSONDecoder(parse_constant=_refuse_constant)


def parse_document(text: str) -> Json:
    """The value of a JSON document that travels as a string; NaN and Infinity are not JSON.

    Raises:
        ValueError: the text is not JSON, or is nested deeper than Python's parser goes.
    """
    try:
        return _PARSER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def unstorable_in(document: str | None) -> set[str]:
    """What in the strings and keys of a JSON document no text column can hold; empty where it is not JSON."""
    if document is None or (document.isascii() and "\\u" not in document):
        return set()  # JSON can hold a NUL as an escape only
    try:
        pending = [parse_document(document)]
    except ValueError:
        return set()  # whoever stores it says so: for some requests the server never parses it
    found: set[str] = set()
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending.extend(value)
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, str) and (bad := unstorable(value)):
            found.add(bad)
    return found
