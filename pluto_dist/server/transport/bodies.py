"""The JSON bodies that the official SDK sends beside those of ``wire``, as records.

Requests of the embedded server alone: this package's client sends none of them.

>>> AddLogNamesRequest.from_json({"runId": 1, "logName": ["loss"], "logType": "METRIC"}).names
('loss',)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from pluto_dist.contract.validation import JsonType, Record, Rule


def _field(name: str, type: JsonType, *, nullable: bool = False, whole: bool = False, min_length: int = 0) -> Any:
    rule = Rule(name, type, nullable=nullable, whole=whole, min_length=min_length or None)
    if nullable:
        return dataclasses.field(default=None, metadata={"rule": rule})
    return dataclasses.field(metadata={"rule": rule})


@dataclass(frozen=True, slots=True)
class UpdateTagsRequest(Record):
    """``POST /api/runs/tags/update``: the tags the run has from now on."""

    run_id: int = _field("runId", "number")
    tags: tuple[str, ...] = _field("tags", "array")


@dataclass(frozen=True, slots=True)
class AddLogNamesRequest(Record):
    """``POST /api/runs/logName/add``: names under which the run logs, all of one type."""

    run_id: int = _field("runId", "number")
    names: tuple[str, ...] = _field("logName", "array")
    type: str = _field("logType", "string", min_length=1)


@dataclass(frozen=True, slots=True)
class AlertRequest(Record):
    """``POST /api/runs/alert``; what it says is in the object ``alert``, see :class:`Alert`."""

    run_id: int = _field("runId", "number")


@dataclass(frozen=True, slots=True)
class Alert(Record):
    """What ``alert`` holds; the time in milliseconds since 1970."""

    timestamp: float | None = _field("timestamp", "number", nullable=True)
    level: str | None = _field("level", "string", nullable=True)
    title: str | None = _field("title", "string", nullable=True)
    body: str | None = _field("body", "string", nullable=True)


@dataclass(frozen=True, slots=True)
class ModelGraphRequest(Record):
    """``POST /api/runs/modelGraph/create``; the object ``graph`` holds ``format`` and ``nodes``."""

    run_id: int = _field("runId", "number")


@dataclass(frozen=True, slots=True)
class UploadRequest(Record):
    """``POST /files``; the list ``files`` holds one :class:`AnnouncedFile` for each file to come."""


@dataclass(frozen=True, slots=True)
class AnnouncedFile(Record):
    """A file that will be uploaded. ``sample`` is its place in the list that was logged with it."""

    file_name: str = _field("fileName", "string", min_length=1)
    log_name: str = _field("logName", "string", min_length=1)
    size: int = _field("fileSize", "number", whole=True)
    type: str = _field("fileType", "string")
    time: int = _field("time", "number", whole=True)
    step: int | None = _field("step", "number", nullable=True, whole=True)
    sample: int | None = _field("sampleIndex", "number", nullable=True, whole=True)
    caption: str | None = _field("caption", "string", nullable=True)
    annotations: str | None = _field("annotations", "string", nullable=True)
