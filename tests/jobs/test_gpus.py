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
        "interconnect": "nvlink",
    }
    assert len(metadata["nodes"][0]["gpus"]) == 8
    assert metadata["gpu"]["nvidia"]["count"] == 8


@pytest.mark.exhaustive
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
    assert max(report["seconds"] for report in job.reports) < 30  # of the 60
    (run,) = tracker.runs("gpus")
    assert run["systemMetadata"]["nodes"][0]["gpu_error"] == "timeout"
    assert run["status"] == "COMPLETED"


# A node waits a second for what its ranks see, so these begin together, as scripts do that init a process group first.
OWN_LIST = """
import os, torch, pluto_dist
from reporting import report
torch.distributed.init_process_group("gloo")
os.environ["CUDA_VISIBLE_DEVICES"] = str(7 - int(os.environ["LOCAL_RANK"]))
report(pluto_dist.init(project="gpus"))
"""

# There is no GPU here, and no torch for one: CUDA that is up is what torch would answer where there is. Of unlike GPUs
# CUDA counts the fastest first, here the last one.
CUDA_IS_UP = """
import os, types, torch, pluto_dist
from reporting import report
UUIDS = [f"5fd4f087-86f3-7a43-b711-4771313afc5{n}" for n in (7, 0, 1, 2, 3, 4, 5, 6)]
torch.distributed.init_process_group("gloo")
rank = int(os.environ["LOCAL_RANK"])
torch.cuda.is_initialized = lambda: True
torch.cuda.current_device = lambda: rank
torch.cuda.device_count = lambda: len(UUIDS)
torch.cuda.get_device_properties = lambda device: types.SimpleNamespace(uuid=UUIDS[device])
report(pluto_dist.init(project="gpus"))
"""


def node_of(tracker, torchrun, library, folder, script, *lines, nproc):
    """The one node of a job with the eight GPUs of a fake driver."""
    profile = build.write_profile(folder / "node.profile", "h100", *lines)
    driver = build.environ(library, profile, folder / "calls.log")
    job = torchrun(script, nproc=nproc, environ=tracker.environ() | driver)
    assert job.returncode == 0, job.output
    (run,) = tracker.runs("gpus")
    return run["systemMetadata"]["nodes"][0]


def test_workers_that_choose_their_gpu_by_themselves(tracker, torchrun, fake_library, tmp_path):
    """A script that sets CUDA_VISIBLE_DEVICES on each rank: which rank uses which GPU is in the run."""
    node = node_of(tracker, torchrun, fake_library, tmp_path, OWN_LIST, nproc=2)
    assert node["visible_of_rank"] == ["7", "6"]
    assert node["gpu_of_rank"] == [7, 6]


def test_the_gpu_that_torch_has_in_use(tracker, torchrun, fake_library, tmp_path):
    """Ranks with CUDA up say which GPU they use, by its UUID: of unlike GPUs their numbers would not tell."""
    node = node_of(tracker, torchrun, fake_library, tmp_path, CUDA_IS_UP, "dev.7.name=NVIDIA H200", nproc=2)
    assert node["gpu_of_rank"] == [7, 0]
    assert "uuid_of_rank" not in node


def test_a_gpu_that_only_torch_sees(tracker, torchrun, fake_library, tmp_path):
    """Where a rank's GPU is hidden from the process that asks the driver, the run has its UUID."""
    node = node_of(tracker, torchrun, fake_library, tmp_path, CUDA_IS_UP, "count=4", nproc=2)
    assert node["gpu_of_rank"] == [None, 0]
    assert node["uuid_of_rank"] == ["5fd4f087-86f3-7a43-b711-4771313afc57", None]
