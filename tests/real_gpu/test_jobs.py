"""Jobs on the GPUs of this machine: NCCL, torchrun, the launcher, the doctor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pluto_dist

pytestmark = [pytest.mark.gpu, pytest.mark.multiprocess, pytest.mark.timeout(240)]
PACKAGE = str(Path(pluto_dist.__file__).parents[1])

TRAIN = """
import os, torch, torch.distributed as dist, pluto_dist
from torch.nn.parallel import DistributedDataParallel
from reporting import report

device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
torch.cuda.set_device(device)
dist.init_process_group("nccl", device_id=device)
with pluto_dist.init(project="gpus") as run:
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(256, 1).to(device), device_ids=[device.index])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.randn(512, 256, device=device)
    y = x.sum(1, keepdim=True)
    losses = []
    for _ in range(50):
        loss = torch.nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    everyone = torch.ones(1, device=device)
    dist.all_reduce(everyone)
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    report(run, uuid=uuid, first=losses[0], last=losses[-1], everyone=everyone.item())
dist.destroy_process_group()
"""


@pytest.mark.parametrize("launcher", ["torchrun", "pluto-dist run"])
def test_ddp_with_nccl(cuda, tracker, torchrun, launcher):
    """A DDP training over NCCL is one run that ends COMPLETED and has the GPU that each rank used."""
    ranks = torch.cuda.device_count()
    ours = [sys.executable, "-c", "from pluto_dist.cli import main; main()", "run"]
    start = [sys.executable, "-m", "torch.distributed.run"] if launcher == "torchrun" else ours
    command = [*start, f"--nproc-per-node={ranks}", torchrun.write(TRAIN)]
    job = torchrun.finish(torchrun.start_command(command, tracker.environ() | path()), 200)

    assert (job.returncode, len(job.reports)) == (0, ranks), job.output
    assert all(report["last"] < report["first"] and report["everyone"] == ranks for report in job.reports)
    (run,) = tracker.runs("gpus")
    assert (run["status"], len(run["attaches"])) == ("COMPLETED", ranks)
    node = run["systemMetadata"]["nodes"][0]
    assert node["gpu_of_rank"] == [
        next(gpu.index for gpu in cuda.devices if (gpu.uuid or "").endswith(report["uuid"])) for report in job.reports
    ]
    assert run["systemMetadata"]["cluster"]["gpus"] == cuda.count


def path() -> dict[str, str]:
    """The variables with which a script finds this package and ``reporting``."""
    return {"PYTHONPATH": os.pathsep.join([PACKAGE, str(Path(__file__).parents[1] / "jobs")])}


def test_the_doctor_finds_the_gpus(gpus):
    """No check that concerns GPUs is a problem on a machine whose GPUs work."""
    code = "from pluto_dist.cli import main; main()"
    command = [sys.executable, "-c", code, "doctor", "--offline", "--json"]
    done = subprocess.run(command, env=os.environ | path(), capture_output=True, text=True, timeout=120, check=False)
    findings = json.loads(done.stdout)["checks"]
    text = json.dumps(findings)
    problems = [each for each in findings if each["verdict"] == "problem" and "gpu" in json.dumps(each).lower()]
    assert problems == []
    assert gpus.driver in text
