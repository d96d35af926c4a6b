"""``pluto-dist doctor`` over the fake driver: what it says of GPUs, and the profile that it writes of a driver."""

from __future__ import annotations

import dataclasses
import json

import pytest
from fakenvml.node import FakeNode, Observed

from pluto_dist.inventory.records import GpuReport

DOCTOR = """
import os
from pluto_dist.cli import main
os.environ.update({environ})
try:
    main({arguments})
except SystemExit:
    pass
"""
WRITE = ["doctor", "--nvml-profile", "dumped.profile"]


def doctor(node: FakeNode, profile: str, *lines: str, timeout: float = 10.0, **environ: str) -> dict[str, tuple]:
    """Verdict and what was seen, by check."""
    arguments = ["doctor", "--offline", "--json", f"--timeout={timeout}"]
    output, _ = node.python(DOCTOR.format(environ=environ, arguments=arguments), profile, *lines)
    return {check["name"]: (check["verdict"], check["saw"]) for check in json.loads(output)["checks"]}


def dumped(node: FakeNode, profile: str | None, *lines: str | bytes, options: tuple[str, ...] = ()) -> set[str]:
    """Writes the profile of this driver, and returns the functions that were asked for it."""
    _, calls = node.python(DOCTOR.format(environ={}, arguments=[*WRITE, *options]), profile, *lines)
    return {call.function for call in calls}


def replayed(node: FakeNode, deadline: float = 10.0) -> Observed:
    return node.collect(None, f"include={node.folder / 'dumped.profile'}", deadline=deadline)


def without_ids(report: GpuReport) -> GpuReport:
    """The report without what is another one each time, or a pseudonym."""
    devices = tuple(
        dataclasses.replace(
            gpu, uuid=None, mig_instances=tuple(dataclasses.replace(part, uuid=None) for part in gpu.mig_instances)
        )
        for gpu in report.devices
    )
    return dataclasses.replace(report, devices=devices, init_ms=None)


def ids(report: GpuReport) -> list[str]:
    return [each.uuid or "" for gpu in report.devices for each in (gpu, *gpu.mig_instances)]


@pytest.mark.parametrize(
    ("profile", "lines"),
    [
        ("h100", (b"dev.2.name=\xff\xfe", "nvmlSystemGetDriverVersion.ms=150", "dev.1.nvmlDeviceGetTemperature.rc=15")),
        ("mig", ()),
        ("gb10", ()),
        ("lost", ("dev.5.nvmlDeviceGetMigMode.rc=4", "dev.6.nvmlDeviceGetEnforcedPowerLimit.rc=999")),
        ("h100", ("nvmlInitWithFlags.rc=18",)),
        pytest.param("jetson", (), marks=pytest.mark.exhaustive),
        pytest.param("h100", ("nvmlInitWithFlags.rc=4",), marks=pytest.mark.exhaustive),
        pytest.param("h100", ("nvmlInitWithFlags.rc=9",), marks=pytest.mark.exhaustive),
        pytest.param("h100", ("nvmlInitWithFlags.rc=999",), marks=pytest.mark.exhaustive),
        pytest.param("h100", ("nvmlDeviceGetCount_v2.rc=999",), marks=pytest.mark.exhaustive),
    ],
)
def test_a_profile_is_the_machine(node, profile, lines):
    """The inventory of a machine and that of its profile are equal but for ids, which are other ones, as distinct."""
    there = node.collect(profile, *lines).gpus
    dumped(node, profile, *lines)
    here = replayed(node).gpus

    assert without_ids(here) == without_ids(there)
    content = (node.folder / "dumped.profile").read_text(errors="replace")
    assert len(set(ids(here))) == len(set(ids(there)))
    assert not any(uuid in content for uuid in ids(there) if uuid)


def test_a_profile_with_its_ids(node):
    """--keep-ids leaves them; the profile has every function that the inventory asks, and a profile's profile is it."""
    there = node.collect("mig")
    asked = dumped(node, "mig", options=("--keep-ids",))
    assert set(there.functions()) <= asked
    here = replayed(node).gpus
    assert dataclasses.replace(here, init_ms=None) == dataclasses.replace(there.gpus, init_ms=None)
    first = (node.folder / "dumped.profile").read_bytes()
    first_again = node.folder / "first.profile"
    first_again.write_bytes(first)
    dumped(node, None, f"include={first_again}", options=("--keep-ids",))
    assert (node.folder / "dumped.profile").read_bytes() == first


def test_a_driver_that_stalls(node):
    """What hangs is written as what stalls, the rest as it answered; and doctor itself ends, with its finding."""
    dumped(node, "h100", "nvmlDeviceGetMigMode.ms=60000", options=("--timeout=0.5",))
    lines = (node.folder / "dumped.profile").read_text().splitlines()
    assert "nvmlDeviceGetMigMode.ms=600000" in lines and "count=8" in lines
    assert replayed(node, deadline=0.3).gpus.error == "timeout"
    found = doctor(node, "h100", "nvmlInitWithFlags.ms=60000", timeout=1.0)
    assert found["NVIDIA driver"] == ("problem", "NVML: timeout")
    assert found["GPU memory"] == ("not applicable", "see NVIDIA driver")
    assert found["shared memory"][0] in ("ok", "warning")


def test_a_node_that_is_well(node):
    """Eight healthy GPUs: all is ok, but that the torch of these tests is built without CUDA."""
    found = doctor(node, "h100", "dev.*.ecc.errors.1=0", "dev.*.throttle=1", CUDA_VISIBLE_DEVICES="0,1,2,3")
    names = list(found)
    of_gpus = names[names.index("NVIDIA driver") : names.index("GPU clocks") + 1]
    assert [name for name in of_gpus if found[name][0] != "ok"] == ["CUDA"]
    assert found["visible GPUs"][1] == "4 of 8: CUDA_VISIBLE_DEVICES=0,1,2,3"


def test_a_node_that_is_not_well(node):
    """Every fault that the fake driver can have is seen through the real pynvml."""
    sick = (
        "dev.0.pcie.width=8",
        "dev.1.nvlink.up=16",
        "dev.2.ecc.errors.1=3",
        "dev.3.remapped=0,1,1,0",
        "dev.4.persistence=0",
        "dev.5.throttle=0x44",
        "dev.6.nvmlDeviceGetHandleByIndex_v2.rc=15",
        "dev.7.pcie.gen=1",
    )
    found = doctor(node, "h100", *sick, CUDA_VISIBLE_DEVICES="0,6")
    assert found["PCIe"] == ("warning", "GPU 0: x8 of x16, GPU 7: generation 1 of 5 while busy")
    assert found["NVLink"] == ("warning", "GPU 1: 16 of 18 up")
    assert found["GPU memory"] == ("problem", "GPU 2: 3 uncorrected ECC errors, GPU 3: a row waits for a reset")
    assert found["persistence mode"][1].startswith("off on GPU 4")
    assert found["GPU clocks"] == ("warning", "held down (GPU 5: temperature)")
    assert found["GPUs"] == ("problem", "GPU 6: GpuIsLost")
    assert found["visible GPUs"][0] == "problem"


@pytest.mark.exhaustive
def test_the_profile_of_an_old_driver(node_without):
    """A function that the driver does not have is a note in the profile, and costs nothing else."""
    old = node_without("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetMemoryInfo_v2")
    there = old.collect("h100").gpus
    dumped(old, "h100")
    lines = (old.folder / "dumped.profile").read_text().splitlines()
    assert "# nvmlDeviceGetComputeRunningProcesses_v3: NVMLLibraryMismatchError" in lines
    assert "dev.*.nvmlDeviceGetMemoryInfo_v2.rc=13" in lines
    assert without_ids(replayed(old).gpus) == without_ids(there)
