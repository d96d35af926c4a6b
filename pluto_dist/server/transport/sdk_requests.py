"""Records of the JSON bodies that this package's client does not send.

Those that this package's client sends, too, are in ``pluto_dist.contract.run_requests``.

>>> AddLogNamesRequest.from_json({"runId": 1, "logName": ["loss"], "logType": "METRIC"}).names
('loss',)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from pluto_dist.contract.validation import JsonType, Record, Rule, contract_field

LOG_TYPES = (
    "METRIC", "IMAGE", "VIDEO", "AUDIO", "FILE", "TEXT", "ARTIFACT", "HISTOGRAM", "TABLE", "DATA",
)  # fmt: skip


def _field(name: str, type: JsonType, *, nullable: bool = False, whole: bool = False, min_length: int = 0) -> Any:
    rule = Rule(name, type, nullable=nullable, whole=whole, min_length=min_length or None)
    if nullable:
        return dataclasses.field(default=None, metadata={"rule": rule})
    return dataclasses.field(metadata={"rule": rule})


@dataclass(frozen=True, slots=True)
class UpdateTagsRequest(Record):
    """``POST /api/runs/tags/update``: replaces the run's tags."""

    run_id: int = _field("runId", "number")
    tags: tuple[str, ...] = _field("tags", "array")


@dataclass(frozen=True, slots=True)
class UpdateNotesRequest(Record):
    """``POST /api/runs/notes/update``: replaces the run's notes; null and an empty text remove them."""

    run_id: int = contract_field("runId", "number", required=True)
    notes: str | None = contract_field("notes", "string", required=True, nullable=True, max_length=1000)


@dataclass(frozen=True, slots=True)
class AddLogNamesRequest(Record):
    """``POST /api/runs/logName/add``: registers log names of one type."""

    run_id: int = _field("runId", "number")
    names: tuple[str, ...] = _field("logName", "array")
    type: str = contract_field("logType", "string", required=True, choices=LOG_TYPES)


@dataclass(frozen=True, slots=True)
class AlertRequest(Record):
    """``POST /api/runs/alert``; the field ``alert`` is an object, see :class:`AlertFields`."""

    run_id: int = _field("runId", "number")


@dataclass(frozen=True, slots=True)
class AlertFields(Record):
    """The object ``alert``. ``timestamp`` in milliseconds since 1970."""

    timestamp: float | None = _field("timestamp", "number", nullable=True)
    level: str | None = _field("level", "string", nullable=True)
    title: str | None = _field("title", "string", nullable=True)
    body: str | None = _field("body", "string", nullable=True)


@dataclass(frozen=True, slots=True)
class ModelGraphRequest(Record):
    """``POST /api/runs/modelGraph/create``; the field ``graph`` is an object with ``format`` and ``nodes``."""

    run_id: int = _field("runId", "number")


@dataclass(frozen=True, slots=True)
class UploadRequest(Record):
    """``POST /files``; the field ``files`` is a list of :class:`FileUpload`."""


@dataclass(frozen=True, slots=True)
class FileUpload(Record):
    """A file that the client is about to upload. ``sample`` is its index in the list it was logged in."""

    file_name: str = _field("fileName", "string", min_length=1)
    log_name: str = _field("logName", "string", min_length=1)
    size: int = _field("fileSize", "number", whole=True)
    type: str = _field("fileType", "string")
    time: int = _field("time", "number", whole=True)
    step: int | None = _field("step", "number", nullable=True, whole=True)
    sample: int | None = _field("sampleIndex", "number", nullable=True, whole=True)
    caption: str | None = _field("caption", "string", nullable=True)
    annotations: str | None = _field("annotations", "string", nullable=True)
