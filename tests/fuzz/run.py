"""Fuzzing of the embedded tracker: schemathesis generates requests from the OpenAPI document.

``scripts/fuzz [SCHEMATHESIS OPTIONS]`` starts a tracker and fuzzes it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

from pluto_dist.server import LocalServer

HERE = Path(__file__).parent


@dataclass(frozen=True)
class FuzzResult:
    """Exit code and output of schemathesis, the number of test cases, and the statuses of each operation."""

    code: int
    cases: int
    statuses: dict[str, Counter[int]]
    output: str

    @property
    def unreached(self) -> list[str]:
        """Operations that never answered 2xx."""
        return sorted(name for name, seen in self.statuses.items() if not any(200 <= s < 300 for s in seen))


def fuzz(options: Sequence[str], folder: Path) -> FuzzResult:
    """Run schemathesis with ``options`` in ``folder``, where it stores its failures."""
    with LocalServer() as server:
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(HERE / "schemathesis.toml"),
            "run", f"{server.url}/api/openapi.json", "--header", f"Authorization: Bearer {server.api_key}",
            "--suppress-health-check", "all", *options,
        ]  # fmt: skip
        environ = {
            **os.environ,
            "PLUTO_DIST_FUZZ_LINKS": json.dumps(links(server)),
            "SCHEMATHESIS_HOOKS": "hooks",
            "PYTHONPATH": str(HERE),
        }
        done = subprocess.run(
            command, env=environ, cwd=folder, capture_output=True, text=True, timeout=1500, check=False
        )
        operations = requests.get(f"{server.url}/api/openapi.json", timeout=10).json()["paths"]
        statuses = _statuses(server.requests(), operations)
    output = done.stdout.replace(server.api_key, "***") + done.stderr
    generated = re.search(r"([0-9]+) generated", output)
    return FuzzResult(done.returncode, int(generated[1]) if generated else 0, statuses, output)


def links(server: LocalServer) -> dict[str, Any]:
    """The ids of a run with a metric, a log line and a file."""
    key = {"Authorization": f"Bearer {server.api_key}"}

    def post(path: str, **options: Any) -> requests.Response:
        options["headers"] = {**key, **options.get("headers", {})}
        response = requests.post(server.url + path, timeout=10, **options)
        response.raise_for_status()
        return response

    run = post("/api/runs/create", json={"runName": "r", "projectName": "fuzzed", "externalId": "linked"}).json()
    of_run = {"X-Run-Id": str(run["runId"])}
    post("/ingest/metrics", data=b'{"time":1,"step":1,"data":{"loss":0.5}}\n', headers=of_run)
    post("/ingest/logs", data=b'{"time":1,"message":"m","lineNumber":1,"logType":"INFO"}\n', headers=of_run)
    file = {"fileName": "f.txt", "fileSize": 1, "fileType": "txt", "time": 1, "logName": "files/f", "step": 1}
    (uploads,) = post("/files", json={"files": [file]}, headers=of_run).json().values()
    upload_url = next(iter(uploads[0].values()))
    requests.put(upload_url, data=b"x", timeout=10).raise_for_status()
    listed = requests.get(
        f"{server.url}/api/runs/files", params={"runId": run["runId"], "projectName": "fuzzed"}, headers=key, timeout=10
    )
    download_url = listed.json()["files"][0]["url"]
    code = run["url"].rsplit("/", 1)[1]
    shared = {"code": code, "logName": "loss", "runIds": str(run["runId"])}
    shared |= {"origin": server.url, "key": server.api_key}
    return {**run, **shared, "PUT": _signed(upload_url), "GET": _signed(download_url)}


def _signed(url: str) -> dict[str, str]:
    """The parameters of a signed URL, which is valid for one method only."""
    parts = urlsplit(url)
    return {"file": parts.path.rsplit("/", 1)[1], **{name: values[0] for name, values in parse_qs(parts.query).items()}}


def _statuses(log: Sequence[str], operations: dict[str, Any]) -> dict[str, Counter[int]]:
    """How often each operation answered each status, from the server's access log."""
    paths = sorted(operations, key=lambda path: ("{" in path, path))  # fixed paths before those with parameters
    patterns = {path: re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))) for path in paths}
    found = {f"{method.upper()} {path}": Counter[int]() for path in operations for method in operations[path]}
    for line in log:
        if not (request := re.search(r'"(\w+) (\S+) HTTP/[0-9.]+" ([0-9]+)', line)):
            continue
        names = (f"{request[1]} {path}" for path in paths if patterns[path].fullmatch(request[2]))
        if (name := next((name for name in names if name in found), None)) is not None:
            found[name][int(request[3])] += 1
    return found


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        done = fuzz(sys.argv[1:] or ["--max-examples", "150"], Path(folder))
    print(done.output)
    for name, seen in sorted(done.statuses.items()):
        print(f"{name:50} {' '.join(f'{status}:{count}' for status, count in sorted(seen.items()))}")
    print(f"{done.cases} cases; without a 2xx: {', '.join(done.unreached) or 'none'}")
    return done.code or int(bool(done.unreached))


if __name__ == "__main__":
    sys.exit(main())
