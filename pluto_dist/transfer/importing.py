"""Sends the runs of an export to a tracker.

A run keeps its name, times, status, documents, metrics, console lines, data and files. It is created under its own
external id, or under one made of its number if it has none, so an import that is repeated finds what it made before:
``config.pluto_dist.imported`` has where a run is from, and whether all of it has arrived.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pluto_dist.client.lookup import look_up
from pluto_dist.client.tracker_client import Lines
from pluto_dist.contract.run_ref import Reference, RunName
from pluto_dist.contract.run_requests import (
    PRECEDENCE,
    CreateRunRequest,
    RunState,
    UpdateConfigRequest,
    UpdateStatusRequest,
)
from pluto_dist.contract.validation import Json, Record, contract_field
from pluto_dist.errors import TrackerUnavailableError
from pluto_dist.query import RunDetails, Tracker
from pluto_dist.query.records import milliseconds
from pluto_dist.transfer.archive import Archive, ExportedRun

LINES_PER_REQUEST, UPLOAD_SECONDS = 5000, 60.0
FIELD = "imported"


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a run: sent, already there from an earlier import, or another run has its external id."""

    run: RunDetails
    outcome: Literal["sent", "already there", "taken"]
    display_id: str | None = None
    url: str | None = None

    def to_json(self) -> dict[str, Json]:
        from_run = {"id": self.run.id, "display_id": self.run.display_id, "project": self.run.project}
        return {"from": from_run, "outcome": self.outcome, "display_id": self.display_id, "url": self.url}


@dataclass(frozen=True, slots=True)
class _AddLogNames(Record):
    """``POST /api/runs/logName/add``."""

    run_id: int = contract_field("runId", "number", required=True)
    names: tuple[str, ...] = contract_field("logName", "array", required=True)
    type: str = contract_field("logType", "string", required=True)


def import_runs(tracker: Tracker, folder: Path, project: str | None = None) -> Iterator[Imported]:
    """Send the runs in ``folder``, the oldest first, to their own projects or to ``project``.

    Raises:
        ConfigurationError: ``folder`` is no export.
        TrackerError: the tracker did not take a run; repeated, the import goes on with it.
    """
    archive = Archive(folder)
    origin = archive.origin()
    for exported in sorted(archive.runs(), key=lambda each: each.details.id):
        yield _import_run(tracker, exported, origin, project or exported.details.project)


def _import_run(tracker: Tracker, exported: ExportedRun, origin: str, project: str) -> Imported:
    run = exported.details
    external_id = run.external_id or f"import-{hashlib.sha256(f'{origin} {run.id}'.encode()).hexdigest()[:20]}"
    name = RunName(tracker.settings.url_api, project, Reference("external id", external_id))
    state = look_up(tracker.client, name, deadline=tracker.deadline)
    if state is not None and (mark := _mark_of(state)) != {"from": origin, "run": run.id, "complete": False}:
        is_ours = mark == {"from": origin, "run": run.id, "complete": True}
        return Imported(run, "already there" if is_ours else "taken", state.display_id)
    mark = {"from": origin, "run": run.id, "complete": False}
    number = None if state is None or state.status != run.status else state.run_id
    if number is None:  # a create would set a run RUNNING that has its end from an import that was interrupted
        request = _create_request(run, project, external_id, mark)
        number = tracker.client.create(request, deadline=tracker.deadline).run_id
        # First: the hosted tracker takes a running run with old values for a silent one.
        _send_end(tracker, run, number)
    _send_logged(tracker, exported, project, number)
    done = {"pluto_dist": {FIELD: {**mark, "complete": True}}}
    tracker.client.update_config(UpdateConfigRequest(number, json.dumps(done)), deadline=tracker.deadline)
    made = tracker.details(number)
    return Imported(run, "sent", made.display_id, tracker.page(made))


def _mark_of(state: RunState) -> Json:
    own = state.config.get("pluto_dist") if isinstance(state.config, dict) else None
    return own.get(FIELD) if isinstance(own, dict) else None


def _create_request(run: RunDetails, project: str, external_id: str, mark: Mapping[str, Json]) -> CreateRunRequest:
    config = run.config if isinstance(run.config, dict) else {} if run.config is None else {"value": run.config}
    own = config.get("pluto_dist")
    named = {"run_id": external_id, **(own if isinstance(own, dict) else {})}  # by which it is found without waking it
    config = {**config, "pluto_dist": {**named, FIELD: mark}}
    return CreateRunRequest(
        run_name=run.name,
        project_name=project,
        external_id=external_id,
        tags=run.tags,
        config=json.dumps(config),
        system_metadata=None if run.system_metadata is None else json.dumps(run.system_metadata),
        logger_settings=None if run.logger_settings is None else json.dumps(run.logger_settings),
        created_at=None if run.created_at is None else milliseconds(run.created_at),
    )


def _send_logged(tracker: Tracker, exported: ExportedRun, project: str, number: int) -> None:
    run = exported.details
    by_type = itertools.groupby(sorted(run.log_names, key=lambda each: each.type), key=lambda each: each.type)
    for type, names in by_type:
        request = _AddLogNames(number, tuple(each.name for each in names), type)
        tracker.client.post("/api/runs/logName/add", request, deadline=tracker.deadline)
    points = (
        {"time": point.time_ms, "step": point.step, "data": {name: point.value}} for name, point in exported.points()
    )
    console = (
        {"time": each.time_ms, "message": each.message, "lineNumber": each.number, "logType": each.type}
        for each in exported.console()
    )
    data = (
        {"time": each.time_ms, "data": each.data, "step": each.step, "dataType": each.type, "logName": each.name}
        for each in exported.data()
    )
    for kind, rows in (("metrics", points), ("logs", console), ("data", data)):
        _send_lines(tracker, kind, rows, _headers(run, project, number))
    _send_files(tracker, exported, _headers(run, project, number))


def _headers(run: RunDetails, project: str, number: int) -> dict[str, str]:
    """Those of the SDK; a name that no header can carry is left out: the number says which run it is."""
    names = {"X-Run-Name": run.name, "X-Project-Name": project}
    readable = {name: value for name, value in names.items() if value.isascii() and value.isprintable()}
    return {"X-Run-Id": str(number), **readable}


def _send_lines(tracker: Tracker, kind: str, rows: Iterable[Mapping[str, Json]], headers: Mapping[str, str]) -> None:
    """Send ``rows`` in requests of at most :data:`LINES_PER_REQUEST` lines."""
    left = iter(rows)
    url = f"{tracker.settings.url_ingest}/ingest/{kind}"
    sent_headers = {**headers, "Content-Type": "application/x-ndjson"}
    while batch := list(itertools.islice(left, LINES_PER_REQUEST)):
        content = "\n".join(map(json.dumps, batch)).encode()  # NaN and Infinity as the SDK writes them
        tracker.client.ingest(url, Lines(content, sent_headers), deadline=tracker.deadline)


def _send_files(tracker: Tracker, exported: ExportedRun, headers: Mapping[str, str]) -> None:
    import requests

    for file, path in exported.files():
        described: dict[str, Any] = {
            "fileName": file.name, "fileSize": path.stat().st_size, "fileType": file.type, "logName": file.log_name,
            "time": file.time_ms, "step": file.step, "sampleIndex": file.sample, "caption": file.caption,
        }  # fmt: skip
        known = {name: value for name, value in described.items() if value is not None}
        url = tracker.client.upload_url(
            f"{tracker.settings.url_ingest}/files", known, headers, deadline=tracker.deadline
        )
        try:  # without the API key: the address is signed
            with path.open("rb") as content:
                sent = {"Content-Type": file.type} if file.type.isascii() and file.type.isprintable() else {}
                requests.put(url, data=content, headers=sent, timeout=UPLOAD_SECONDS).raise_for_status()
        except requests.RequestException as error:
            where = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"
            raise TrackerUnavailableError(f"{where} did not take file {file.name!r}: {type(error).__name__}") from None


def _send_end(tracker: Tracker, run: RunDetails, number: int) -> None:
    """The status with its own time and reason; a run that was running stays so."""
    if run.status not in PRECEDENCE:
        return
    at = None if run.status_updated is None else milliseconds(run.status_updated)
    request = UpdateStatusRequest.of(number, run.status, run.status_metadata, at)
    tracker.client.update_status(request, deadline=tracker.deadline)


def outcomes(found: Sequence[Imported]) -> dict[str, int]:
    """How many runs had each outcome."""
    return {each: sum(run.outcome == each for run in found) for each in ("sent", "already there", "taken")}
