"""A real job on a node with the GPUs of another vendor, which its script registers."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.multiprocess

SCRIPT = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import pluto_dist
from inventory.gpu import acme
from pluto_dist.inventory import gpu
from reporting import report
gpu.VENDORS = (acme.VENDOR, *gpu.VENDORS)
os.environ["ACME_VISIBLE_DEVICES"] = "ACME-11" if os.environ["LOCAL_RANK"] == "0" else "0"
report(pluto_dist.init(project="acme"))
"""


def test_the_gpus_of_another_vendor(tracker, torchrun):
    """From the variable of each rank to the run's metadata: its GPUs, which rank uses which, links, environment."""
    job = torchrun(SCRIPT, nproc=2, environ=tracker.environ() | {"ACME_DEBUG": "1", "ACME_TOKEN": "x"})

    assert job.returncode == 0, job.output
    (run,) = tracker.runs("acme")
    metadata = run["systemMetadata"]
    assert metadata["nodes"][0]["gpus"] == ["ACME-00ff", "ACME-11ff"]
    assert metadata["nodes"][0]["gpu_of_rank"] == [1, 0]
    assert metadata["nodes"][0]["visible_of_rank"] == ["ACME-11", "0"]
    assert metadata["cluster"]["interconnect"] == "acmelink"
    assert metadata["gpu"]["acme"]["count"] == 2
    assert {name for name in metadata["env"] if name.startswith("ACME_")} == {"ACME_DEBUG", "ACME_VISIBLE_DEVICES"}
