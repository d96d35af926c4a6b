"""NVIDIA GPUs through the real pynvml and a fake driver, which shows nothing about a real driver."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pynvml
import pytest

from fakenvml.node import FakeNode
from pluto_dist.inventory.gpu import nvidia, nvidia_fields
from pluto_dist.inventory.records import MigInstance
from pluto_dist.inventory.report.document import compose
from pluto_dist.serialization.text import record_text

H100_MEMORY = 85520809984
CALLS_PER_GPU = 60  # 27 values, 19 calls for 18 links, and the pairs


def test_all_fields_of_eight_gpus(node):
    """The report has every value of a healthy driver, in its unit."""
    gpus = node.collect("h100").gpus

    assert (gpus.vendor, gpus.driver, gpus.cuda_driver, gpus.count) == ("nvidia", "550.54.15", "12.4", 8)
    assert gpus.error is None and gpus.bad == () and gpus.init_ms is not None
    assert [gpu.index for gpu in gpus.devices] == list(range(8))
    gpu = gpus.devices[3]
    assert gpu.name == "NVIDIA H100 80GB HBM3"
    assert gpu.uuid == "GPU-5fd4f087-86f3-7a43-b711-4771313afc53"
    assert (gpu.memory, gpu.memory_kind) == (H100_MEMORY, None)
    assert (gpu.compute_capability, gpu.pci_bus_id) == ("9.0", "00000000:3B:00.0")
    assert (gpu.temperature, gpu.power_limit_w, gpu.pids) == (31, 700, (4242, 4243))
    assert (gpu.mig, gpu.mig_instances) == (False, ())
    assert (gpu.arch, gpu.cores, gpu.vbios) == ("Hopper", 16896, "96.00.5E.00.01")
    assert (gpu.clock_sm_mhz, gpu.clock_mem_mhz, gpu.throttle) == (1980, 2619, ())
    assert (gpu.ecc, gpu.persistence) == (True, True)
    assert (gpu.pcie_gen, gpu.pcie_width, gpu.pcie_gen_max, gpu.pcie_width_max) == (5, 16, 5, 16)
    assert (gpu.nvlinks, gpu.nvlinks_up, gpu.nvlink_version) == (18, 18, 4)
    assert [(each.numa, each.cpus) for each in gpus.devices] == [(0, "0-47,96-143")] * 4 + [(1, "48-95,144-191")] * 4
    assert (gpus.p2p, gpus.confidential) == ("all", None)


def test_the_installed_pynvml_has_every_name():
    """A function that an old nvidia-ml-py lacks would be a value left out in silence: pyproject's bound forbids it."""
    modules = Path(nvidia.__file__).parent.glob("nvidia*.py")
    text = "".join(module.read_text(encoding="utf-8") for module in modules)
    used = set(re.findall(r"\b(?:nvmlDevice|nvmlSystem|nvmlInit|nvmlShutdown|c_nvml|NVML_TEMP)\w*", text))
    assert len(used) > 30
    optional = {nvidia_fields.FABRIC_STRUCTURE, "nvmlDeviceGet"}  # the second is the beginning of an f-string
    assert {name for name in used - optional if not hasattr(pynvml, name)} == set()


def test_confidential_computing(node):
    """It is a property of the node and of its class."""
    on = node.collect("h100", "confidential=1")
    assert on.gpus.confidential is True
    document = compose({0: on.inventory}, owner_node=0, world_size=8, first_ranks={0: 0})
    assert document["node_classes"][0]["gpu"]["confidential"] is True


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("dev.3.nvmlDeviceGetHandleByIndex_v2.rc=15",),
        ("dev.3.nvmlDeviceGetTemperature.rc=15",),
        ("nvmlDeviceGetCount_v2.rc=999",),
        ("nvmlSystemGetDriverVersion.rc=999",),
        ("dev.*.mig=1",),
        ("dev.*.name=", b"dev.2.name=\xff\xfe"),
    ],
)
def test_the_library_is_opened_and_closed_once(node, lines):
    """Whatever fails in between, there is one init and one shutdown, in one process, and no call afterwards."""
    seen = node.collect("h100", *lines)

    functions = seen.functions()
    assert functions[0] == "nvmlInitWithFlags" and functions[-1] == "nvmlShutdown"
    assert functions.count("nvmlInitWithFlags") == functions.count("nvmlShutdown") == 1
    assert len({call.pid for call in seen.calls}) == 1


def test_the_calls_of_a_gpu_are_few(node):
    """The number of driver calls per GPU is bounded, because each may take the driver's lock."""
    per_gpu = Counter(call.device for call in node.collect("h100").calls if call.device >= 0)

    assert set(per_gpu) == set(range(8))
    assert max(per_gpu.values()) <= CALLS_PER_GPU


@pytest.mark.parametrize(
    "line",
    [
        "dev.3.nvmlDeviceGetHandleByIndex_v2.rc=15",
        "dev.3.nvmlDeviceGetName.rc=15",
        "dev.3.nvmlDeviceGetTemperature.rc=15",
        "dev.3.nvmlDeviceGetMemoryInfo.rc=15",
        "dev.3.nvmlDeviceGetNvLinkState.rc=15",
        "dev.3.nvmlDeviceGetGraphicsRunningProcesses_v3.rc=15",
    ],
)
def test_a_lost_gpu_hides_no_other(node, line):
    """A GPU that is lost at its handle or at a later call is listed as bad and not queried again; seven remain."""
    seen = node.collect("h100", line)

    assert seen.gpus.bad == ((3, "GpuIsLost"),)
    assert [gpu.index for gpu in seen.gpus.devices] == [0, 1, 2, 4, 5, 6, 7]
    assert (seen.gpus.count, seen.gpus.error) == (8, None)
    assert [call.function for call in seen.calls if call.device == 3][-1] == line.split(".")[2]


def test_the_profile_of_a_lost_gpu(node):
    """The profile that other tests use has a lost GPU."""
    assert node.collect("lost").gpus.bad == ((3, "GpuIsLost"),)


@pytest.mark.parametrize(
    ("code", "name"), [(4, "NoPermission"), (16, "ResetRequired"), (999, "Unknown"), (998, "Error998")]
)
def test_a_failing_handle(node, code, name):
    """A GPU whose handle fails is listed as bad with the name of NVML's error."""
    assert node.collect("h100", f"dev.0.nvmlDeviceGetHandleByIndex_v2.rc={code}").gpus.bad == ((0, name),)


def test_a_gpu_without_identity_is_bad(node):
    """A GPU that has neither name nor UUID nor bus id is not listed as healthy."""
    refused = ("Name", "UUID", "PciInfo_v3")
    gpus = node.collect("h100", *(f"dev.5.nvmlDeviceGet{what}.rc=4" for what in refused)).gpus

    assert gpus.bad == ((5, "NoPermission"),) and len(gpus.devices) == 7


@pytest.mark.parametrize(
    ("code", "name"),
    [(18, "LibRmVersionMismatch"), (9, "DriverNotLoaded"), (4, "NoPermission"), (999, "Unknown")],
)
def test_a_library_that_fails_to_initialize(node, code, name):
    """An error of nvmlInit is the report's error; the host is still reported, and there is no shutdown."""
    seen = node.collect("h100", f"nvmlInitWithFlags.rc={code}")

    assert (seen.gpus.error, seen.gpus.count, seen.gpus.devices) == (name, None, ())
    assert seen.functions() == ["nvmlInitWithFlags"]
    assert seen.inventory.hostname and seen.inventory.host.memory and seen.inventory.software.python


@pytest.mark.parametrize("content", [b"", b"not a library"])
def test_without_library_there_is_no_gpu_and_no_error(tmp_path, content):
    """A machine without NVIDIA's library has no GPU, which is not an error."""
    (tmp_path / "libnvidia-ml.so.1").write_bytes(content)  # hides a real one, and cannot be loaded
    gpus = FakeNode(tmp_path, tmp_path).collect(None).gpus

    assert (gpus.count, gpus.error, gpus.devices, gpus.bad) == (0, None, (), ())


def test_a_name_that_is_not_utf8_is_unknown(node):
    """A name that cannot be decoded affects no other value."""
    gpus = node.collect("h100", b"dev.2.name=NVIDIA \xff\xfe H100").gpus

    assert gpus.devices[2].name is None
    assert gpus.devices[2].uuid and len(gpus.devices) == 8 and gpus.bad == ()


@pytest.mark.parametrize("raw", [b"NVIDIA H100\x00\x00", "NVIDIA H100", " NVIDIA H100\x00"])
def test_names_may_be_bytes_or_text(raw):
    """The bytes of an old pynvml and the string of a new one give the same name."""
    assert record_text(raw) == "NVIDIA H100"


def test_unified_memory_is_that_of_the_host(node):
    """A GPU that returns NotSupported for its memory has the host's, with its own kind (GB10)."""
    inventory = node.collect("gb10").inventory

    (gpu,) = inventory.gpus.devices
    assert (gpu.memory, gpu.memory_kind) == (inventory.host.memory, "unified")
    assert gpu.power_limit_w is None and gpu.compute_capability == "12.1"


def test_only_not_supported_means_unified(node):
    """After another error the memory is unknown."""
    gpu = node.collect("h100", "dev.0.nvmlDeviceGetMemoryInfo.rc=999").gpus.devices[0]

    assert (gpu.memory, gpu.memory_kind) == (None, None)


@pytest.mark.parametrize("garbage", ["0", "18446744073709551615"])
def test_a_jetsons_zeros_are_unknown(node, garbage):
    """SUCCESS with zero or impossible memory means unknown; values that cannot be read are left out."""
    (gpu,) = node.collect("jetson", f"dev.0.mem.total={garbage}").gpus.devices

    assert (gpu.name, gpu.compute_capability) == ("Orin (nvgpu)", "8.7")
    assert (gpu.memory, gpu.memory_kind, gpu.temperature, gpu.power_limit_w) == (None, None, None, None)
    assert (gpu.pci_bus_id, gpu.mig) == (None, None)


def test_an_old_driver_lacks_functions(node_without):
    """A missing symbol (FunctionNotFound, or NVMLLibraryMismatchError for processes) affects only its value."""
    old = node_without(
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetMigMode",
        "nvmlSystemGetCudaDriverVersion",
        "nvmlDeviceGetEnforcedPowerLimit",
    )
    gpus = old.collect("h100", "dev.*.gpids=77").gpus

    assert (gpus.error, gpus.bad, len(gpus.devices), gpus.driver) == (None, (), 8, "550.54.15")
    gpu = gpus.devices[0]
    assert (gpu.pids, gpu.mig, gpu.power_limit_w, gpu.memory) == ((77,), None, None, H100_MEMORY)


def test_impossible_pids_are_dropped(node):
    """Drivers that return another structure give numbers outside the range of pids (535.43 to 535.86)."""
    gpu = node.collect("h100", "dev.*.pids=0,4242,4294967295,4194305").gpus.devices[0]

    assert gpu.pids == (4242,)


def test_mig_instances_are_listed(node):
    """A GPU in MIG mode has its instances; the others have none."""
    gpus = node.collect("mig").gpus

    profile = "NVIDIA A100-SXM4-40GB MIG 3g.20gb"
    assert [gpu.mig for gpu in gpus.devices] == [True] + [False] * 7
    assert gpus.devices[0].mig_instances == (
        MigInstance(uuid="MIG-377e0049-554c-540b-93c6-d0976f8426cb", name=profile),
        MigInstance(uuid="MIG-fe59bfcd-3946-5d58-a00e-183ee397373b", name=profile),
    )


def test_mig_slots_may_have_gaps(node):
    """An empty slot does not hide the later ones."""
    gpus = node.collect("mig", "dev.0.mig.6=42", "dev.42.uuid=MIG-6").gpus

    assert gpus.devices[0].mig_instances[-1] == MigInstance(uuid="MIG-6", name="NVIDIA A100-SXM4-40GB")


def test_a_stalled_driver_costs_the_deadline_and_no_more(node):
    """A driver that does not respond is abandoned after the deadline, also by later calls; the process can exit."""
    code = """
import json, time
from pluto_dist.inventory.probes.collect import collect
reports = []
for _ in range(2):
    began = time.monotonic()
    inventory = collect(3)
    reports.append([inventory.to_json(), time.monotonic() - began])
print(json.dumps(reports))
"""
    output, calls = node.python(code, "h100", "nvmlInitWithFlags.ms=60000")
    (first, waited), (second, waited_again) = json.loads(output)

    assert first["gpus"] == second["gpus"] == {"error": "timeout"}
    assert first["hostname"] and first["host"]["memory"] and first["software"]["python"]
    assert 3 <= waited < 30 and waited_again < 3
    assert [call.function for call in calls] == ["nvmlInitWithFlags"]


def test_a_stall_in_the_middle_is_a_timeout(node):
    """A driver may stall at any call."""
    seen = node.collect("h100", "nvmlDeviceGetTemperature.ms=60000", deadline=0.5)

    assert (seen.gpus.error, seen.gpus.devices) == ("timeout", ())
    assert seen.seconds < 30


def test_other_users_of_the_library(node):
    """If torch or the user has initialized NVML, it stays initialized."""
    code = """
import pynvml
from pluto_dist.inventory.probes.collect import collect
pynvml.nvmlInit()
collect(10)
print(pynvml.nvmlDeviceGetCount())
pynvml.nvmlShutdown()
"""
    output, _ = node.python(code, "h100")

    assert output == "8\n"


def test_collecting_twice_initializes_twice(node):
    """No state of the library is kept between two collections."""
    code = (
        "from pluto_dist.inventory.probes.collect import collect as c; assert c(10).gpus.devices == c(10).gpus.devices"
    )
    _, calls = node.python(code, "h100")

    pairs = [call.function for call in calls if call.function in ("nvmlInitWithFlags", "nvmlShutdown")]
    assert pairs == ["nvmlInitWithFlags", "nvmlShutdown"] * 2


def test_a_document_of_the_fake_driver(node):
    """A node with a lost GPU and MIG is sent as JSON and composed into a document."""
    inventory = node.collect("mig", "dev.3.nvmlDeviceGetHandleByIndex_v2.rc=15").inventory
    document = compose({0: inventory}, owner_node=0, world_size=8, first_ranks={0: 0})

    (only,) = document["nodes"]
    assert only["bad"] == {"3": "GpuIsLost"} and len(only["gpus"]) == 7
    assert [part["profile"] for part in only["mig"]] == ["3g.20gb", "3g.20gb"]
    assert only["diff"] == {"gpu.mig": {"0": True}}
    nvidia_card = document["gpu"]["nvidia"]
    assert (nvidia_card["count"], len(nvidia_card["devices"])) == (8, 7)


def test_names_of_errors():
    """A code without a class in pynvml is named by its number."""
    unknown = type("NVMLError", (Exception,), {"value": 77})

    assert nvidia.error_name(unknown()) == "Error77"
    assert nvidia.error_name(type("NVMLError_GpuIsLost", (Exception,), {})()) == "GpuIsLost"
