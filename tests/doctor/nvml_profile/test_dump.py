"""The profile of a driver: the fake driver with that profile behaves like the driver."""

from __future__ import annotations

import dataclasses

import pytest

from doctor.fake_driver import PROFILE, dump_profile, run_doctor
from fakenvml.node import FakeNode, Observed
from pluto_dist.inventory.records import GpuReport


def replayed(node: FakeNode, deadline: float = 10.0) -> Observed:
    return node.collect(None, f"include={node.folder / PROFILE}", deadline=deadline)


def without_ids(report: GpuReport) -> GpuReport:
    """The report without durations and pseudonyms."""
    devices = tuple(
        dataclasses.replace(
            gpu,
            uuid=None,
            mig_instances=tuple(dataclasses.replace(instance, uuid=None) for instance in gpu.mig_instances),
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
def test_a_profile_reproduces_the_machine(node, profile, lines):
    """The inventories of a machine and of its profile are equal except for ids, which are as many different ones."""
    there = node.collect(profile, *lines).gpus
    dump_profile(node, profile, *lines)
    here = replayed(node).gpus

    assert without_ids(here) == without_ids(there)
    content = (node.folder / PROFILE).read_text(errors="replace")
    assert len(set(ids(here))) == len(set(ids(there)))
    assert not any(uuid in content for uuid in ids(there) if uuid)


def test_a_profile_with_its_ids(node):
    """--keep-ids keeps them; a profile has all functions that the inventory calls, and its own profile is the same."""
    there = node.collect("mig")
    asked = dump_profile(node, "mig", options=("--keep-ids",))
    assert set(there.functions()) <= asked
    here = replayed(node).gpus
    assert dataclasses.replace(here, init_ms=None) == dataclasses.replace(there.gpus, init_ms=None)
    first = (node.folder / PROFILE).read_bytes()
    first_again = node.folder / "first.profile"
    first_again.write_bytes(first)
    dump_profile(node, None, f"include={first_again}", options=("--keep-ids",))
    assert (node.folder / PROFILE).read_bytes() == first


def test_a_driver_that_stalls(node):
    """A call that blocks is recorded as a stall, the others with their results; doctor returns, with its finding."""
    dump_profile(node, "h100", "nvmlDeviceGetMigMode.ms=60000", options=("--timeout=5",))
    lines = (node.folder / PROFILE).read_text().splitlines()
    assert "nvmlDeviceGetMigMode.ms=600000" in lines and "count=8" in lines
    assert replayed(node, deadline=0.3).gpus.error == "timeout"
    found = run_doctor(node, "h100", "nvmlInitWithFlags.ms=60000")
    assert found["NVIDIA driver"] == ("problem", "NVML: timeout")
    assert found["GPU memory"] == ("not applicable", "see NVIDIA driver")
    assert found["shared memory"][0] in ("ok", "warning")


@pytest.mark.exhaustive
def test_the_profile_of_an_old_driver(node_without):
    """A function that the driver lacks is a note in the profile, and affects no other value."""
    old = node_without("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetMemoryInfo_v2")
    there = old.collect("h100").gpus
    dump_profile(old, "h100")
    lines = (old.folder / PROFILE).read_text().splitlines()
    assert "# nvmlDeviceGetComputeRunningProcesses_v3: NVMLLibraryMismatchError" in lines
    assert "dev.*.nvmlDeviceGetMemoryInfo_v2.rc=13" in lines
    assert without_ids(replayed(old).gpus) == without_ids(there)
