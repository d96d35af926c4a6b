"""Every field of the contract is reached by ``init()``, and every field of the answer is on the run."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from pluto_dist.contract.run_requests import CreateRunRequest, CreateRunResponse
from pluto_dist.server import LocalServer
from pluto_dist.server.openapi.schemas import properties

SCRIPT = """
import json, sys, pluto_dist
names = sys.argv[2].split()
try:
    with pluto_dist.init(**json.loads(sys.argv[1])) as run:
        print(json.dumps({name: getattr(run, name) for name in names}))
except pluto_dist.errors.PlutoDistError as error:
    print(json.dumps({"error": str(error), "class": type(error).__name__}))
"""
ON_THE_RUN = {
    "runId": "id",
    "number": "number",
    "displayId": "display_id",
    "projectName": "project",
    "organizationSlug": "organization",
    "url": "url",
    "resumed": "resumed",
    "forkedFromRunId": "forked_from",
    "forkStep": "fork_step",
}


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer() as running:
        yield running


@pytest.fixture
def project() -> str:
    return f"my fields {uuid.uuid4().hex[:8]}"


def init(server: LocalServer, folder: Path, **arguments: Any) -> dict[str, Any]:
    """What a process that calls ``init(**arguments)`` sees."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(arguments), " ".join(ON_THE_RUN.values())],
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), **server.environ()},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return dict(json.loads(done.stdout))


def ask(server: LocalServer, path: str, body: Any = None) -> Any:
    headers = {"Authorization": f"Bearer {server.api_key}"}
    method = "GET" if body is None else "POST"
    return requests.request(method, server.url + path, json=body, headers=headers, timeout=60).json()


def parent(server: LocalServer, project: str) -> dict[str, Any]:
    """A finished run with metrics for ten steps."""
    made = ask(
        server,
        "/api/runs/create",
        {"runName": "parent", "projectName": project, "tags": ["old"], "config": '{"a": 1, "n": {"x": 1}}'},
    )
    lines = "".join(json.dumps({"time": 1, "step": n, "data": {"loss": 1.0}}) + "\n" for n in range(10))
    headers = {"Authorization": f"Bearer {server.api_key}", "X-Run-Id": str(made["runId"])}
    requests.post(server.url + "/ingest/metrics", data=lines, headers=headers, timeout=60)
    ask(server, "/api/runs/status/update", {"runId": made["runId"], "status": "COMPLETED"})
    return dict(made)


def test_the_table_has_every_field_of_the_answer():
    assert set(ON_THE_RUN) == set(properties(CreateRunResponse))


def test_every_field_as_it_was_given(server, tmp_path, project):
    """Sent, stored as given, and (systemMetadata) filled in by this package."""
    seen = init(
        server, tmp_path, project=project, name="all of it", run_id="job-7", tags=["a", "group:b"],
        config={"lr": 0.1}, logger_settings={"by": "me"}, created_at=1700000000123, updated_at=1700000000456,
    )  # fmt: skip
    stored = ask(server, f"/api/runs/details/{seen['id']}")
    sent = set(stored["attaches"][0]["fields"])
    assert sent == {
        "runName", "projectName", "externalId", "tags", "loggerSettings", "systemMetadata", "config", "createdAt",
        "updatedAt",
    }  # fmt: skip
    assert (stored["name"], stored["projectName"], stored["externalId"]) == ("all of it", project, "job-7")
    assert (stored["tags"], stored["loggerSettings"]) == (["a", "group:b"], {"by": "me"})
    assert stored["config"]["lr"] == 0.1
    assert stored["createdAt"] == "2023-11-14T22:13:20.123Z"
    assert stored["systemMetadata"]["cluster"]["nodes"] == 1
    answer = {"project": project, "organization": "local-org", "number": 1, "resumed": False, "fork_step": None}
    assert answer.items() <= seen.items()
    assert seen["display_id"].endswith("-1")
    assert seen["url"].startswith(server.url)


@pytest.mark.parametrize("named_by", ["number", "digits", "display id"])
def test_a_fork(server, tmp_path, project, named_by):
    """By the tracker's number or by the display id; the parent stays as it ended."""
    old = parent(server, project)
    name = {"number": old["runId"], "digits": str(old["runId"]), "display id": old["displayId"]}[named_by]
    seen = init(
        server, tmp_path, project=project, fork_run_id=name, fork_step=4, inherit_tags=True, tags=["new"],
        config={"b": 2, "n": {"y": 2}},
    )  # fmt: skip
    assert (seen["forked_from"], seen["fork_step"]) == (old["runId"], 4)
    stored = ask(server, f"/api/runs/details/{seen['id']}")
    assert {"forkRunId", "forkStep", "inheritTags"} <= set(stored["attaches"][0]["fields"])
    assert sorted(stored["tags"]) == ["new", "old"]
    assert {name: stored["config"][name] for name in ("a", "b", "n")} == {"a": 1, "b": 2, "n": {"y": 2}}
    assert ask(server, f"/api/runs/details/{old['runId']}")["status"] == "COMPLETED"


def test_a_fork_without_its_parents_config(server, tmp_path, project):
    old = parent(server, project)
    arguments = {"fork_run_id": old["runId"], "fork_step": 0, "inherit_config": False}
    seen = init(server, tmp_path, project=project, **arguments)
    stored = ask(server, f"/api/runs/details/{seen['id']}")
    assert "inheritConfig" in stored["attaches"][0]["fields"]
    assert "a" not in stored["config"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"fork_run_id": "ZZZ-99", "fork_step": 1}, "'ZZZ-99' names no run of project"),
        ({"fork_run_id": "ZZZ-99"}, "fork_step"),
        ({"fork_run_id": "zzz", "fork_step": 1}, "forkRunId"),
        ({"fork_run_id": 10**9, "fork_step": 1}, "Fork parent run not found"),
    ],
)
def test_a_fork_of_nothing(server, tmp_path, project, arguments, told):
    """One error that names what was wrong; no run is made."""
    assert told in init(server, tmp_path, project=project, **arguments)["error"]
    assert ask(server, f"/api/runs/list?projectName={project}")["runs"] == []


def test_no_field_is_left_out():
    """What the tests above send is all that the contract has."""
    shown = [
        "runName",
        "projectName",
        "externalId",
        "tags",
        "loggerSettings",
        "systemMetadata",
        "config",
        "createdAt",
        "updatedAt",
    ]
    assert {*shown, "forkRunId", "forkStep", "inheritConfig", "inheritTags"} == set(properties(CreateRunRequest))


COPIES = """
import copy, io, pickle, sys
import torch
import pluto_dist
run = None

class Model(torch.nn.Module):
    def __init__(self, run):
        super().__init__()
        self.run, self.hparams, self.layer = run, {"run": run, "lr": 0.1}, torch.nn.Linear(2, 1)

class Data(torch.utils.data.Dataset):
    def __init__(self, run):
        self.run = run
    def __len__(self):
        return 2
    def __getitem__(self, index):
        self.run.update_config({"worker": index})
        self.run.finish(status="FAILED")
        return torch.tensor([float(self.run.mode == "disabled"), float(self.run.rank)])

if __name__ == "__main__":
    run = pluto_dist.init(project="copies")
    model = Model(run)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    print(copy.copy(run) is run, copy.deepcopy(model.hparams)["run"] is run, averaged.module.run is run)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False).run
    print(type(loaded).__name__, loaded.mode, loaded.id, loaded.project, loaded.world_size, loaded.finished)
    loaded.update_config({"a": 1})
    with loaded:
        loaded.export_to_sdk()
    loader = torch.utils.data.DataLoader(Data(run), num_workers=1, multiprocessing_context="spawn", batch_size=2)
    print(next(iter(loader)).tolist(), run.finished)
    secret = __import__("os").environ["PLUTO_API_KEY"].encode()
    print([secret in pickle.dumps(run, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)].count(True))
"""


def test_a_run_in_a_model(server, tmp_path, project):
    """A copy within the process is the run itself; a pickled one does nothing, wherever it is loaded, has no key."""
    (tmp_path / "script.py").write_text(COPIES.replace('"copies"', repr(project)))
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **server.environ()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "True True True",
        f"Run disabled None {project} 1 True",
        "[[1.0, 0.0], [1.0, 0.0]] False",
        "0",
    ], done.stderr
    (listed,) = ask(server, f"/api/runs/list?projectName={project}")["runs"]
    stored = ask(server, f"/api/runs/details/{listed['id']}")
    assert (stored["status"], "worker" in json.dumps(stored["config"])) == ("COMPLETED", False)
