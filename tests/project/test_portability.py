"""A machine that lacks what Linux has: no /proc, no user ids, no fcntl, no SIGKILL, no CPU affinity."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from pluto_dist.server import LocalServer

# What macOS (/proc, sched_getaffinity) and Windows (all of them) do not have, taken away before anything is imported.
WITHOUT = """
import builtins, io, os, pathlib, signal, sys

sys.modules["fcntl"] = None
for module, names in {os: ("getuid", "sched_getaffinity", "O_NOFOLLOW", "register_at_fork", "fork"),
                      signal: ("SIGKILL", "SIGALRM")}.items():
    for name in names:
        delattr(module, name)

def without_proc(real):
    def opened(path, *args, **kwargs):
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(("/proc", "/sys")):
            raise FileNotFoundError(2, "No such file or directory", os.fspath(path))
        return real(path, *args, **kwargs)
    return opened

io.open = builtins.open = without_proc(io.open)
os.listdir, os.scandir, os.stat, os.readlink = map(without_proc, (os.listdir, os.scandir, os.stat, os.readlink))
"""
SCRIPT = """
import os, json
import pluto_dist
with pluto_dist.init(project="elsewhere", config={"lr": 0.1}) as run:
    print(json.dumps([run.mode, run.run_id, run.number]))
"""


@pytest.mark.parametrize("torchruns", [False, True], ids=["single", "torchrun's variables of one rank"])
def test_a_world_of_one_elsewhere(tmp_path: Path, torchruns):
    """init() records a run there all the same, with what little is known of the machine."""
    with LocalServer() as server:
        environ = {"PATH": os.environ["PATH"], **server.environ()}
        folder = tmp_path / "none_x" / "attempt_0" / "0"
        folder.mkdir(parents=True)
        if torchruns:
            environ |= {"TORCHELASTIC_ERROR_FILE": str(folder / "error.json"), "PLUTO_RUN_ID": "elsewhere"}
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT + SCRIPT],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)[0] == "online"
        key = {"Authorization": f"Bearer {server.api_key}"}
        (run,) = requests.get(f"{server.url}/api/runs/list?projectName=elsewhere", headers=key, timeout=60).json()[
            "runs"
        ]
        assert run["status"] == "COMPLETED"


def test_the_attempts_nonce_elsewhere(tmp_path: Path):
    """Where files have no owner to check, the restart count stands in for the nonce."""
    code = WITHOUT + (
        "from pluto_dist.rendezvous.node_state import attempt_nonce\n"
        "from pluto_dist.environments import detect\n"
        "env = {'TORCHELASTIC_RUN_ID': 'x', 'RANK': '0', 'WORLD_SIZE': '2', 'TORCHELASTIC_RESTART_COUNT': '3',\n"
        f"       'TORCHELASTIC_ERROR_FILE': {str(tmp_path / 'attempt_3' / '0' / 'error.json')!r}}}\n"
        "print(attempt_nonce(detect(env)))\n"
    )
    (tmp_path / "attempt_3").mkdir()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "restart-3"
