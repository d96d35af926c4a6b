"""Which GPU a rank uses, as torch and NVML have it, and what NVML shows of a GPU that works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch

from pluto_dist.inventory.gpu import nvidia, torch_device
from pluto_dist.inventory.gpu.assignment import gpus_of_ranks
from pluto_dist.inventory.records import GpuReport, RankView

pytestmark = pytest.mark.gpu


def test_torch_and_nvml_agree_on_uuids(cuda):
    """The UUID of a device in torch, current or only in use, is that of a GPU in NVML."""
    for device in range(torch.cuda.device_count()):
        torch.zeros(1, device=f"cuda:{device}")
        for current in {0, device}:
            with torch.cuda.device(current):
                assert torch_device.current_device(torch) == current
                uuid = torch_device.uuid_in_use(torch, current, device)
            (found,) = gpus_of_ranks(cuda, [RankView(0, "", uuid)], local_world_size=1)
            assert found.gpu is not None, uuid
            (used,) = (gpu for gpu in cuda.devices if gpu.index == found.gpu)
            assert used.name == torch.cuda.get_device_name(device)
            total = torch.cuda.get_device_properties(device).total_memory
            assert used.memory is not None and 0.9 * used.memory < total <= used.memory


FORMS: dict[str, Callable[[GpuReport], str | None]] = {
    "not set": lambda _: None,
    "empty": lambda _: "",
    "-1": lambda _: "-1",
    "the first": lambda _: "0",
    "the last": lambda gpus: str(len(gpus.devices) - 1),
    "all, reversed": lambda gpus: ",".join(str(n) for n in reversed(range(len(gpus.devices)))),
    "UUID": lambda gpus: gpus.devices[-1].uuid,
    "beginning of a UUID": lambda gpus: (gpus.devices[0].uuid or "")[:20],
    "one too many": lambda gpus: f"0,{len(gpus.devices)}",
    "one that is not there first": lambda gpus: f"{len(gpus.devices)},0",
    "no number": lambda _: "none",
    "MIG instance": lambda gpus: next((mig.uuid for gpu in gpus.devices for mig in gpu.mig_instances), None),
}
SEEN = """
import json, torch
from pluto_dist.inventory.gpu import torch_device
before = torch_device.current_device(torch)
used = None
if torch.cuda.is_available():
    torch.zeros(1, device="cuda")
    used = torch_device.uuid_in_use(torch, torch_device.current_device(torch), 0)
print(json.dumps([before, used]))
"""


@pytest.mark.parametrize("form", FORMS)
def test_the_gpu_of_a_rank_before_and_after_cuda_is_up(cuda, form):
    """What is concluded from CUDA_VISIBLE_DEVICES alone is the GPU that torch then uses."""
    visible = FORMS[form](cuda)
    if form == "MIG instance" and visible is None:
        pytest.skip("MIG is off on every GPU")
    environ = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environ |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    done = subprocess.run([sys.executable, "-c", SEEN], env=environ, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    before, uuid = json.loads(done.stdout)
    assert before is None  # looking initialized nothing
    (concluded,) = gpus_of_ranks(cuda, [RankView(0, visible)], local_world_size=1, in_bus_order=True)
    used = None if uuid is None else gpus_of_ranks(cuda, [RankView(0, visible, uuid)], local_world_size=1)[0].gpu
    assert concluded.gpu == used
    if uuid is not None:
        assert used is not None, uuid


LOAD = """
import sys, torch
one = torch.zeros(2**31, dtype=torch.uint8, device="cuda")
a = torch.randn(4096, 4096, device="cuda")
print("ready", flush=True)
while True:
    a = a @ a
    a /= a.norm()
    torch.cuda.synchronize()
"""


def test_a_gpu_under_load(cuda):
    """A process that multiplies matrices is seen: utilization over half, and where NVML sees pids, one more pid."""
    with subprocess.Popen([sys.executable, "-c", LOAD], stdout=subprocess.PIPE, text=True) as load:
        try:
            assert load.stdout is not None and load.stdout.readline().strip() == "ready"
            until = time.monotonic() + 30
            while True:
                busy = {gpu.uuid: gpu.busy or 0 for gpu in nvidia.probe().devices}
                if max(busy.values()) > 50 or time.monotonic() > until:
                    break
                time.sleep(0.2)
            assert max(busy.values()) > 50, busy
            listed = {pid for gpu in nvidia.probe().devices for pid in gpu.pids}
            apps = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]
            shown = subprocess.run(apps, capture_output=True, text=True, timeout=60, check=False).stdout.split()
            assert listed >= {int(pid) for pid in shown if pid.isdigit()}
        finally:
            load.kill()
