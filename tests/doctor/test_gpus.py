"""The checks of driver, torch, CUDA_VISIBLE_DEVICES and MIG; and all GPU checks with the fake driver."""

from __future__ import annotations

from dataclasses import replace

import pytest

from doctor.fake_driver import run_doctor
from doctor.states import GPUS, INSTALLED, NO_GPU, assert_finding, faulty, gpus, ids
from pluto_dist.doctor.gpus import GpuFacts
from pluto_dist.inventory.records import Gpu, GpuReport, MigInstance, SoftwareReport

MIG = (Gpu(0, uuid="GPU-aaaa-1", mig=True, mig_instances=(MigInstance("MIG-1"), MigInstance("MIG-2"))),)


def visible(value: str, local_world_size: int | None = None) -> GpuFacts:
    """``GPUS`` with CUDA_VISIBLE_DEVICES."""
    return replace(GPUS, visible=value, local_world_size=local_world_size)


def packages(**versions: str | None) -> GpuFacts:
    """``GPUS`` with other versions of the Python packages."""
    return replace(GPUS, installed={**INSTALLED, **versions})


TABLE = [
    ("NVIDIA driver", GPUS, "ok", "550.54.15, 2 GPUs"),
    ("NVIDIA driver", GpuFacts(GpuReport(error="LibRmVersionMismatch")), "problem", "LibRmVersionMismatch"),
    ("NVIDIA driver", GpuFacts(GpuReport(error="timeout")), "problem", "timeout"),
    ("NVIDIA driver", NO_GPU, "not applicable", "no NVIDIA library"),
    ("pynvml", GPUS, "ok", "13.615.71"),
    ("pynvml", packages(pynvml="13.0.1"), "ok", "13.615.71"),
    ("pynvml", packages(pynvml="11.5.3"), "warning", "pynvml 11.5.3 hides"),
    ("pynvml", packages(**{"nvidia-ml-py": None}), "warning", "not installed"),
    ("CUDA", GPUS, "ok", "built for CUDA 12.1, the driver runs up to 12.4"),
    ("CUDA", replace(GPUS, software=SoftwareReport(torch="2.9.0", cuda="12.8")), "ok", "12.8"),
    ("CUDA", replace(GPUS, software=SoftwareReport(torch="2.9.0", cuda="13.0")), "problem", "13.0"),
    ("CUDA", replace(GPUS, software=NO_GPU.software), "warning", "without CUDA"),
    ("CUDA", replace(NO_GPU, software=GPUS.software), "warning", "no NVIDIA library"),
    ("CUDA", replace(GPUS, software=SoftwareReport()), "problem", "not installed"),
    ("CUDA", NO_GPU, "not applicable", "without CUDA"),
    ("GPUs", GPUS, "ok", "all 2 answer"),
    ("GPUs", gpus(count=3, bad=((2, "GpuIsLost"),)), "problem", "GPU 2: GpuIsLost"),
    ("GPUs", gpus(count=0, devices=()), "warning", "no GPU"),
    ("visible GPUs", GPUS, "ok", "all 2"),
    ("visible GPUs", gpus(count=0, devices=()), "not applicable", "see GPUs"),
    ("visible GPUs", visible("1, GPU-aaaa"), "ok", "2 of 2"),
    ("visible GPUs", visible("0,2,1"), "problem", "'2' names no GPU"),
    ("visible GPUs", visible("GPU-aa"), "warning", "CUDA sees no GPU"),
    ("visible GPUs", visible("0,-1"), "problem", "'-1' names no GPU"),
    ("visible GPUs", visible("0,GPU-aaaa"), "problem", "named twice"),
    ("visible GPUs", visible(""), "warning", "0 of 2"),
    ("visible GPUs", visible("NoDevFiles"), "warning", "0 of 2"),
    ("visible GPUs", visible("0", 2), "warning", "for 2 ranks on this node"),
    ("visible GPUs", replace(gpus(devices=MIG), visible="MIG-2"), "ok", "MIG-2"),
    ("MIG", GPUS, "ok", "off"),
    ("MIG", gpus(devices=MIG), "warning", "GPU 0: 2 instances"),
    ("persistence mode", GPUS, "ok", "0.9 s"),
    ("persistence mode", faulty(persistence=False), "warning", "off on GPU 1"),
    ("persistence mode", gpus(init_ms=24000), "warning", "24.0 s"),
]


@pytest.mark.parametrize(("name", "facts", "verdict", "text"), TABLE, ids=ids(TABLE))
def test_findings(name, facts, verdict, text):
    """Each check in its good and bad states."""
    assert_finding(name, facts, verdict, text)


def test_a_healthy_node(node):
    """With eight healthy GPUs everything is ok, except that the torch of these tests is built without CUDA."""
    found = run_doctor(node, "h100", "dev.*.ecc.errors.1=0", "dev.*.throttle=1", CUDA_VISIBLE_DEVICES="0,1,2,3")
    names = list(found)
    of_gpus = names[names.index("NVIDIA driver") : names.index("GPU clocks") + 1]
    assert [name for name in of_gpus if found[name][0] != "ok"] == ["CUDA"]
    assert found["visible GPUs"][1] == "4 of 8: CUDA_VISIBLE_DEVICES=0,1,2,3"


def test_a_faulty_node(node):
    """Every fault of the fake driver is found through the real pynvml."""
    faults = (
        "dev.0.pcie.width=8",
        "dev.1.nvlink.up=16",
        "dev.2.ecc.errors.1=3",
        "dev.3.remapped=0,1,1,0",
        "dev.4.persistence=0",
        "dev.5.throttle=0x44",
        "dev.6.nvmlDeviceGetHandleByIndex_v2.rc=15",
        "dev.7.pcie.gen=1",
    )
    found = run_doctor(node, "h100", *faults, CUDA_VISIBLE_DEVICES="0,6")
    assert found["PCIe"] == ("warning", "GPU 0: x8 of x16, GPU 7: generation 1 of 5 while busy")
    assert found["NVLink"] == ("warning", "GPU 1: 16 of 18 up")
    assert found["GPU memory"] == ("problem", "GPU 2: 3 uncorrected ECC errors, GPU 3: a row waits for a reset")
    assert found["persistence mode"][1].startswith("off on GPU 4")
    assert found["GPU clocks"] == ("warning", "held down (GPU 5: temperature)")
    assert found["GPUs"] == ("problem", "GPU 6: GpuIsLost")
    assert found["visible GPUs"][0] == "problem"
