"""A node with GPUs in a real job: a fake driver under the real pynvml."""

from __future__ import annotations

import pytest
from fakenvml import build

pytestmark = pytest.mark.multiprocess


def test_one_worker_asks_the_driver_and_the_run_has_every_gpu(tracker, torchrun, fake_library, tmp_path):
    """Of four ranks on a node one touches the driver, and the run's metadata has the node's eight GPUs."""
    profile = build.write_profile(tmp_path / "node.profile", "h100")
    driver = build.environ(fake_library, profile, tmp_path / "calls.log")
    job = torchrun(
        "import pluto_dist\nfrom reporting import report\nreport(pluto_dist.init(project='gpus'))\n",
        nproc=4,
        environ=tracker.environ() | driver,
    )

    assert job.returncode == 0, job.output
    calls = build.read_log(tmp_path / "calls.log")
    assert len({call.pid for call in calls}) == 1
    (run,) = tracker.runs("gpus")
    metadata = run["systemMetadata"]
    assert metadata["cluster"] | {"collect_ms": 0, "schema": 1} == {
        **{"schema": 1, "collect_ms": 0, "nodes": 1, "nodes_reported": 1, "world_size": 4, "classes": 1},
        **{"gpus": 8, "gpus_bad": 0, "gpu_name": "NVIDIA H100 80GB HBM3", "gpu_memory": 85520809984},
        "driver": "550.54.15",
    }
    assert len(metadata["nodes"][0]["gpus"]) == 8
    assert metadata["gpu"]["nvidia"]["count"] == 8


def test_a_stalled_driver_costs_the_metadata_and_not_the_run(tracker, torchrun, fake_library, tmp_path):
    """A driver that hangs is named in the metadata; the run is there all the same, within the leader's 2 s."""
    profile = build.write_profile(tmp_path / "node.profile", "h100", "nvmlInitWithFlags.ms=60000")
    driver = build.environ(fake_library, profile, tmp_path / "calls.log")
    job = torchrun(
        "import time, torch.distributed, pluto_dist\nfrom reporting import report\n"
        "began = time.monotonic()\n"
        "run = pluto_dist.init(project='gpus')\n"
        "report(run, seconds=time.monotonic() - began)\n",
        environ=tracker.environ() | driver,
    )

    assert job.returncode == 0, job.output
    assert max(report["seconds"] for report in job.reports) < 10
    (run,) = tracker.runs("gpus")
    assert run["systemMetadata"]["nodes"][0]["gpu_error"] == "timeout"
    assert run["status"] == "COMPLETED"
