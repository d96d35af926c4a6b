"""The environment as the launcher made it, asked in real processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

AS_LAUNCHED = """
import os, sys
from pluto_dist.contract.secret import Environ
from pluto_dist.environments.launch_environ import as_launched
os.environ.update(eval(sys.argv[1]))
print(as_launched(Environ(os.environ)).get("MASTER_PORT"))
"""
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "a", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    ("handed", "set_later", "port"),
    [
        pytest.param(TORCHRUN, {"MASTER_PORT": "2"}, "1", id="a worker's group of its own"),
        pytest.param(TORCHRUN, {}, "1", id="a worker"),
        pytest.param({}, TORCHRUN, "1", id="a worker that is a function"),
        pytest.param(TORCHRUN, {**TORCHRUN, "TORCHELASTIC_RUN_ID": "y", "MASTER_PORT": "3"}, "3", id="inside a worker"),
        pytest.param({"MASTER_PORT": "1"}, {"MASTER_PORT": "2"}, "2", id="no torchrun"),
    ],
)
def test_the_address_of_torchruns_store(handed, set_later, port):
    """It is what torchrun gave the worker, whatever the script makes of MASTER_PORT afterwards."""
    done = subprocess.run(
        [sys.executable, "-c", AS_LAUNCHED, repr(set_later)],
        env={"PATH": "/usr/bin:/bin", **handed},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == [port]
