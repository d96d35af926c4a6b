"""Runs with all that a run can have, put into a tracker over HTTP as the official SDK does."""

from __future__ import annotations

import json
from typing import Any

import requests

from hosted.columns import AnyTracker

TIME = 1_700_000_000_000
CONTENT = b"\x00\x01 not text"


class Recorder:
    """Puts runs into ``server``."""

    def __init__(self, server: AnyTracker) -> None:
        self.server = server
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {server.api_key}"

    def post(self, path: str, body: Any) -> Any:
        answer = self.session.post(self.server.url + path, json=body, timeout=20)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def create(self, project: str = "digits", external_id: str | None = None, **fields: Any) -> dict[str, Any]:
        named = {"runName": "a run", "projectName": project, **fields}
        return self.post("/api/runs/create", named | ({"externalId": external_id} if external_id else {}))

    def status(self, run: int, status: str, **more: Any) -> None:
        self.post("/api/runs/status/update", {"runId": run, "status": status, **more})

    def ingest(self, kind: str, run: int, *rows: dict[str, Any]) -> None:
        body = "\n".join(map(json.dumps, rows)).encode()
        headers = {"X-Run-Id": str(run), "Content-Type": "application/x-ndjson"}
        answer = self.session.post(f"{self.server.url}/ingest/{kind}", data=body, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text

    def metric(self, run: int, name: str, *values: float) -> None:
        rows = [{"time": TIME + step, "step": step, "data": {name: value}} for step, value in enumerate(values)]
        self.ingest("metrics", run, *rows)

    def print(self, run: int, *lines: str, first: int = 0) -> None:
        rows = [
            {"time": TIME + number, "message": line, "lineNumber": number, "logType": "INFO"}
            for number, line in enumerate(lines, start=first)
        ]
        self.ingest("logs", run, *rows)

    def file(self, run: int, name: str, content: bytes = CONTENT, log_name: str = "model") -> None:
        described = {
            "fileName": name, "fileSize": len(content), "fileType": "application/x-thing", "logName": log_name,
            "time": TIME, "step": 3, "sampleIndex": 1, "caption": "what it is",
        }  # fmt: skip
        headers = {"X-Run-Id": str(run)}
        url = self.server.url + "/files"
        answer = self.session.post(url, json={"files": [described]}, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        with requests.Session() as plain:
            plain.trust_env = False
            assert plain.put(answer.json()[log_name][0][name], data=content, timeout=20).status_code == 200

    def whole(self, project: str = "digits", number: int = 1, status: str = "FAILED") -> dict[str, Any]:
        """A run with documents, metrics (some not finite), console lines of two ranks, data, files and an end."""
        why = {"reason": "ValueError: bad batch", "host": "node-a", "rank": 1, "traceback": "Traceback\n  line 3"}
        made = self.create(
            project,
            f"job-{number}",
            runName=f"run {number}",
            tags=["ddp", f"n{number}"],
            config=json.dumps({"lr": 0.001, "net": {"depth": number, "act": "gelu"}, "none": None}),
            systemMetadata=json.dumps({"cluster": {"nodes": 1}, "hosts": ["node-a"]}),
            loggerSettings=json.dumps({"x": 1}),
            createdAt=TIME - 60_000,
        )
        run = made["runId"]
        self.post("/api/runs/logName/add", {"runId": run, "logName": ["train/loss", "odd"], "logType": "METRIC"})
        self.metric(run, "train/loss", *(1 / (step + number) for step in range(5)))
        self.metric(run, "odd", 1.0, float("nan"), float("inf"), -float("inf"))
        self.print(run, "[rank0] hello", "[rank1] world", "plain é")
        self.ingest(
            "data", run, {"time": TIME, "step": 2, "data": '{"bins": [1]}', "dataType": "HISTOGRAM", "logName": "h"}
        )
        self.file(run, "weights.bin")
        self.status(run, status, statusMetadata=json.dumps(why), statusUpdated=TIME + 60_000)
        return made
