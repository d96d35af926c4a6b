"""A job full of secrets: none of them reaches the tracker, its file, or any output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.multiprocess

SCRIPT = """
import logging, os, sys
logging.basicConfig(level=logging.DEBUG)  # what libraries say when they say most
import torch.distributed as dist
import pluto_dist
from reporting import report

dist.init_process_group("gloo")
run = pluto_dist.init(project="secrets", config={"lr": 0.1, "hub": {"hf_token": "CONFIG-s3cr3t"}})
print(repr(run), vars(run).keys())
report(run)
run.finish()
dist.destroy_process_group()
"""
ARGV = [
    *("--api-token", "argv-s3cr3t-1", "--db.password=argv-s3cr3t-2", "HF_TOKEN=argv-s3cr3t-3"),
    *("--data", "https://me:argv-s3cr3t-4@host/x?signature_key=argv-s3cr3t-5"),
    *("--header", "Authorization: Bearer argv-s3cr3t-6", "ghp_s3cr3t7s3cr3t7s3cr3t7", "--lr", "0.1"),
]
ENVIRON = {
    "NCCL_FOO_TOKEN": "env-s3cr3t-1",
    "CUDA_REGISTRY_PASSWORD": "env-s3cr3t-2",
    "TORCH_HOME": "s3://me:env-s3cr3t-3@bucket/hub",
    "UCX_NOTE": "AKIAS3CR3TS3CR3TS3CR",
    "AWS_SECRET_ACCESS_KEY": "env-s3cr3t-4",
    "HF_TOKEN": "hf_s3cr3tS3cr3ts3cr3t",
    "HTTPS_PROXY": "http://me:proxy-s3cr3t@127.0.0.1:9",
    "HTTP_PROXY": "http://me:proxy-s3cr3t@127.0.0.1:9",
    "https_proxy": "http://me:proxy-s3cr3t@127.0.0.1:9",
    "NCCL_DEBUG": "WARN",
}
GIT_CONFIG = """
[http "https://github.com/"]
    extraheader = AUTHORIZATION: basic git-s3cr3t-1
[remote "origin"]
    url = https://me:git-s3cr3t-2@github.com/o/r.git
[remote "backup"]
    url = ssh://git-s3cr3t-3@backup/r.git
[credential]
    helper = "!echo password=git-s3cr3t-4"
"""


@pytest.fixture
def repository(torchrun) -> Path:
    """The folder that the job runs in, as a repository whose config holds passwords."""
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada-s3cr3t@example.com"]
    for words in (["init", "-q", "-b", "main"], [*identity, "commit", "-q", "--allow-empty", "-m", "message-s3cr3t"]):
        subprocess.run(["git", *words], cwd=torchrun.folder, check=True, timeout=60)
    with (torchrun.folder / ".git/config").open("a") as config:
        config.write(GIT_CONFIG)
    return torchrun.folder


def places(tracker, job) -> dict[str, str]:
    """Everything that left the job: what is stored, what was logged."""
    (run,) = tracker.runs("secrets")
    files = sorted(tracker.server.db.parent.glob(f"{tracker.server.db.name}*"))
    assert files
    return {
        "metadata": json.dumps(run["systemMetadata"]),
        "config": json.dumps({**run["config"], "hub": None}),
        "output": job.output,
        "access log": "\n".join(tracker.log()),
        **{path.name: path.read_bytes().decode("latin-1") for path in files if path.is_file()},
    }


def test_no_secret_leaves_the_job(tracker, torchrun, repository):
    """Keys in argv, environment, proxies, repository: nowhere; one in the config is sent, and its key is named."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", torchrun.write(SCRIPT), *ARGV]
    job = torchrun.finish(torchrun.start_command(command, ENVIRON | tracker.environ()))

    assert job.returncode == 0, job.output
    found = places(tracker, job)
    for name, text in found.items():
        here = text.replace("CONFIG-s3cr3t", "") if name.startswith(tracker.server.db.name) else text
        lowered = here.lower()
        assert "s3cr3t" not in lowered, f"{name}: {lowered[max(0, lowered.find('s3cr3t') - 200) :][:300]}"
        assert tracker.server.api_key not in here, name
    assert "config: hub.hf_token may be a secret" in job.output

    (run,) = tracker.runs("secrets")
    metadata = run["systemMetadata"]
    assert run["config"]["hub"] == {"hf_token": "CONFIG-s3cr3t"}
    assert metadata["git"]["url"] == "https://github.com/o/r.git" and metadata["git"]["branch"] == "main"
    assert metadata["process"]["cmdline"][-2:] == ["--lr", "0.1"]
    assert metadata["process"]["cmdline"].count("***") == 2
    assert metadata["nccl"]["nccl_env"].items() >= {"NCCL_DEBUG": "WARN", "UCX_NOTE": "***"}.items()
    assert metadata["env"]["TORCH_HOME"] == "s3://***@bucket/hub"


TWO_RUNS = """
import pluto_dist
pluto_dist.init(project="families").finish()
pluto_dist.init(project="families", metadata={"env": False, "argv": False}).finish()
"""


def test_metadata_can_be_switched_off(tracker, torchrun, repository):
    """With PLUTO_DIST_METADATA=0 a run has none; an argument that leaves families out beats it."""
    environ = tracker.environ() | {"PLUTO_DIST_METADATA": "0"}
    job = torchrun.finish(torchrun.start_command([sys.executable, torchrun.write(TWO_RUNS)], environ))

    assert job.returncode == 0, job.output
    bare, other = (run["systemMetadata"] for run in tracker.runs("families"))
    assert not bare
    assert other["cluster"]["nodes_reported"] == 1 and other["requirements"] and other["git"]["commit"]
    assert not {"process", "env"} & other.keys() and "env" not in other["node_classes"][0]


TIMED = """
import time
import pluto_dist
from reporting import report
began = time.monotonic()
with pluto_dist.init(project="hung") as run:
    report(run, seconds=time.monotonic() - began)
"""


def test_a_hung_git_does_not_hold_up_the_run(tracker, torchrun, repository):
    """Where git never answers the run is there as soon as with a slow node, and names the commit all the same."""
    folder = repository / "bin"
    folder.mkdir()
    (folder / "git").write_text("#!/bin/sh\nsleep 600\n")
    (folder / "git").chmod(0o755)
    environ = tracker.environ() | {"PATH": f"{folder}:{os.environ['PATH']}"}
    job = torchrun.finish(torchrun.start_command([sys.executable, torchrun.write(TIMED)], environ))

    assert job.returncode == 0, job.output
    assert job.reports[0]["seconds"] < 30  # of the 600
    (run,) = tracker.runs("hung")
    assert len(run["systemMetadata"]["git"]["commit"]) == 40 and "dirty" not in run["systemMetadata"]["git"]
