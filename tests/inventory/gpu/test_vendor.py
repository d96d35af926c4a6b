"""A second GPU vendor is one record and one registration: it is in the inventory, the document, doctor and page."""

from __future__ import annotations

import dataclasses
import json
import threading
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from environments.typical import MPIRUN
from inventory.cluster_schema import violations
from inventory.documents import compose_hosts, compose_valid
from inventory.gpu import acme
from inventory.inventories import h100_node
from inventory.ui_rules import faults
from lifecycle.ranks import member_of, plan_of
from pluto_dist.cli import main
from pluto_dist.contract.run_ref import Reference
from pluto_dist.doctor import CHECK_GROUPS, Machine, examine
from pluto_dist.doctor.gpus import GROUP, GpuFacts
from pluto_dist.inventory import gpu
from pluto_dist.inventory.gpu import local_vendor, torch_device
from pluto_dist.inventory.gpu.assignment import device_cgroups_differ, gpus_of_ranks, with_hidden_gpus
from pluto_dist.inventory.probes.collect import collect
from pluto_dist.inventory.probes.process import describe
from pluto_dist.inventory.probes.sources import Sources, environment_hash
from pluto_dist.inventory.records import GpuReport, HostReport, Nic, NodeInventory, Process, RankView, SoftwareReport
from pluto_dist.inventory.report.document import compose
from pluto_dist.inventory.report.drift import differences
from pluto_dist.inventory.report.interconnect import summarize
from pluto_dist.lifecycle.inventory_report import publish_inventory
from pluto_dist.rendezvous.messages import AgreedId
from pluto_dist.rendezvous.store import LocalStore
from pluto_dist.server.pages.hardware import read_hardware

HEALTHY = acme.HEALTHY
NODE = NodeInventory(hostname="a", host=HostReport(nics=(Nic("ib0", "InfiniBand", 400.0, rdma=True),)), gpus=HEALTHY)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registration, in the documented way."""
    monkeypatch.setattr(gpu, "VENDORS", (acme.VENDOR, *gpu.VENDORS))


def with_probe(monkeypatch: pytest.MonkeyPatch, probe) -> None:
    monkeypatch.setattr(gpu, "VENDORS", (dataclasses.replace(acme.VENDOR, probe=probe), *gpu.VENDORS[1:]))


def faulty(**changes: object) -> NodeInventory:
    """``NODE`` with changes of its second GPU."""
    first, second = HEALTHY.devices
    devices = (first, dataclasses.replace(second, **changes))
    return dataclasses.replace(NODE, hostname="b", gpus=dataclasses.replace(HEALTHY, devices=devices))


FAULTY = faulty(nvlinks_up=3, faults=(("fuse", "blown"),))


# The node.


@pytest.mark.parametrize("variable", ["ACME_VISIBLE_DEVICES", "ACME_GPUS"])
def test_the_probe_and_the_list_of_visible_devices(variable):
    """A node's inventory has the vendor's GPUs and its list; another vendor's list is not taken."""
    found = collect(60, Sources(environ={variable: "1,0", "CUDA_VISIBLE_DEVICES": "7"}))
    assert found.gpus == HEALTHY
    assert found.visible == "1,0"
    assert NodeInventory.from_json(found.to_json()) == found


def test_a_library_that_fails_or_blocks(monkeypatch):
    """The report names the vendor whose library it was."""
    with_probe(monkeypatch, lambda: GpuReport(vendor="acme", error="NoDevice"))
    assert collect(60).gpus == GpuReport(vendor="acme", error="NoDevice")
    release = threading.Event()
    with_probe(monkeypatch, lambda: release.wait(60) and HEALTHY)
    monkeypatch.setattr("pluto_dist.inventory.probes.collect._stalled", {})
    assert collect(0.05).gpus == collect(60).gpus == GpuReport(vendor="acme", error="timeout")
    release.set()


def test_a_node_of_another_vendor(monkeypatch):
    """The next vendor is asked where the first one finds nothing, and one without GPUs is told by its driver."""
    with_probe(monkeypatch, lambda: GpuReport(vendor="acme", count=0))
    theirs = h100_node("n").gpus
    monkeypatch.setattr(gpu, "VENDORS", (gpu.VENDORS[0], dataclasses.replace(gpu.VENDORS[1], probe=lambda: theirs)))
    assert collect(60, Sources(environ={"CUDA_VISIBLE_DEVICES": "7"})).gpus == theirs
    with_probe(monkeypatch, lambda: GpuReport(vendor="acme", driver="3.1", count=0))
    monkeypatch.setattr(gpu, "VENDORS", (*gpu.VENDORS[:1], dataclasses.replace(gpu.VENDORS[1], probe=GpuReport)))
    assert collect(60).gpus == GpuReport(vendor="acme", driver="3.1", count=0)


def test_the_vendor_of_a_node_without_its_library(monkeypatch):
    """Ranks that do not probe take the vendor with device files, else the one whose variable is set."""
    assert local_vendor({"CUDA_VISIBLE_DEVICES": "0"}) is acme.VENDOR
    without_files = dataclasses.replace(acme.VENDOR, openable=lambda: None)
    theirs = dataclasses.replace(gpu.VENDORS[1], openable=lambda: None)
    monkeypatch.setattr(gpu, "VENDORS", (without_files, theirs))
    assert local_vendor({"CUDA_VISIBLE_DEVICES": "0"}) is theirs
    assert local_vendor({"ACME_GPUS": "0"}) is without_files
    assert local_vendor({}) is theirs


# The ranks.


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ((None, None), [0, 1]),
        (("1,0", "1,0"), [1, 0]),
        (("ACME-11,ACME-00", "ACME-11,ACME-00"), [1, 0]),
        (("ACME-11", "0"), [1, 0]),
        (("GPU-11", "0"), [None, 0]),  # no prefix of this vendor
    ],
)
def test_the_gpu_of_each_rank(lists, expected):
    """The vendor's list has its own prefixes of UUIDs."""
    views = [RankView(rank, value) for rank, value in enumerate(lists)]
    assert [each.gpu for each in gpus_of_ranks(HEALTHY, views, local_world_size=2)] == expected


@pytest.mark.parametrize(("order", "expected"), [({"ACME_ORDER": "BUS"}, [0, 1]), ({}, [None, None])])
def test_bus_order(order, expected):
    """Of unlike GPUs an index is definite if the vendor's variable says so."""
    unlike = faulty(name="Acme A2").gpus
    in_order = acme.VENDOR.visible.in_bus_order(order)
    found = gpus_of_ranks(unlike, [RankView(0), RankView(1)], local_world_size=2, in_bus_order=in_order)
    assert [each.gpu for each in found] == expected


def test_gpus_that_a_cgroup_hides():
    """The kernel's list completes the node, with bus ids in the vendor's format."""
    seen = dataclasses.replace(HEALTHY, devices=HEALTHY.devices[:1], count=1)
    views = [RankView(rank, devices=(rank,)) for rank in range(2)]
    assert device_cgroups_differ(seen, views)
    found = with_hidden_gpus(seen, views[0], views, acme.VENDOR.kernel_gpus())
    assert [(each.uuid, each.pci_bus_id) for each in found.devices] == [
        (each.uuid, each.pci_bus_id) for each in HEALTHY.devices
    ]


def test_the_gpu_that_torch_uses():
    """torch's module for the vendor is asked, if it has one in use."""
    module = SimpleNamespace(
        is_initialized=lambda: True,
        current_device=lambda: 1,
        device_count=lambda: 2,
        get_device_properties=lambda device: SimpleNamespace(uuid=f"{device}{device}ff"),
    )
    torch = SimpleNamespace(acme=module, cuda=SimpleNamespace(is_initialized=lambda: False))
    assert torch_device.current_device(torch) == 1
    assert torch_device.uuid_in_use(torch, 1, 0) == "11ff"


def test_a_node_hears_from_its_ranks():
    """From the plans of two ranks to the published inventory: each rank with its GPU and its list."""
    two = MPIRUN | {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
    other = two | {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1", "ACME_VISIBLE_DEVICES": "0"}
    store, agreed = LocalStore(), Future[AgreedId]()
    agreed.set_result(AgreedId(Reference("external id", "job"), "", 0, "here"))
    leader, follower = (member_of(store, rank, nonce="monday") for rank in range(2))
    leader.token = follower.token = "a" * 20
    assert publish_inventory(follower, agreed, plan_of(other)) is None
    thread = publish_inventory(leader, agreed, plan_of(two | {"ACME_VISIBLE_DEVICES": "ACME-11"}))
    assert thread is not None
    thread.join(10)
    found = NodeInventory.from_json(leader.inventories()["0"]["inventory"])
    assert [(each.rank, each.gpu, each.visible) for each in found.ranks] == [(0, 1, "ACME-11"), (1, 0, "0")]


# The job's document.


@pytest.mark.parametrize(
    ("nodes", "word"),
    [
        ([NODE], "acmelink"),
        ([NODE, NODE], "acmelink+ib"),
        ([faulty(nvlinks_up=0)], "pcie"),
        ([NODE, dataclasses.replace(h100_node("n"), host=NODE.host)], "mixed+ib"),
    ],
)
def test_the_interconnect(nodes, word):
    """The word for the links is the vendor's."""
    assert summarize(nodes) == word


def test_the_top_level_and_the_class():
    """The document conforms to its schema, and has the GPUs under the vendor's name and its word for links."""
    document = compose_valid({0: NODE}, process=Process(environ=(("ACME_DEBUG", "1"), ("CUDA_HOME", "/c"))))
    assert document["gpu"] == {
        "acme": {
            "count": 2,
            "driver": "3.1",
            "devices": [
                {"pid": [], "name": "Acme A1", "temp": 0, "memory": {"total": 2**36}, "uuid": f"ACME-{n}{n}ff"}
                for n in range(2)
            ],
        }
    }
    assert document["env"] == {"ACME_DEBUG": "1"}
    assert document["cuda"] == {"cuda_env": {"CUDA_HOME": "/c"}}
    (kind,) = document["node_classes"]
    assert (kind["gpu"]["vendor"], kind["gpu"]["acmelink"]) == ("acme", {"links": 4, "up": 4})
    assert document["cluster"]["interconnect"] == "acmelink"


def test_the_recorded_environment():
    """The vendor's variables are recorded without secrets; its list of visible devices is no difference of nodes."""
    environ = {"ACME_DEBUG": "1", "ACME_API_KEY": "x", "ACME_VISIBLE_DEVICES": "0", "XACME_A": "1", "HOME": "/root"}
    recorded = describe(Sources(frozenset({"env"}), environ))().environ
    assert recorded == (("ACME_DEBUG", "1"), ("ACME_VISIBLE_DEVICES", "0"))
    assert environment_hash(environ) == environment_hash({"ACME_DEBUG": "1", "ACME_GPUS": "1"})
    assert environment_hash(environ) != environment_hash({"ACME_DEBUG": "2"})


def test_drift():
    """Its links and its faults are in the list, with the vendor's reasons, and the worse before the lesser."""
    failed = dataclasses.replace(NODE, gpus=GpuReport(vendor="acme", error="NoDevice"))
    document = compose_hosts(a=NODE, b=FAULTY, c=NODE, d=failed)
    assert violations(document) == [] and faults(document) == []
    assert [(str(each), each.fix) for each in differences(document)] == [
        ("gpu.library: d NoDevice: libacme failed, so its GPUs are unknown", "run acme-info there"),
        (
            "gpu.acmelink.up: b GPU 1 3 of 4: collectives are as slow as the slowest link",
            "reset the GPUs, or drain the node",
        ),
        ("gpu.fuse: b GPU 1 blown: it may stop at any time", "replace its fuse"),
    ]


# What a person sees.


def test_doctor():
    """The checks are the vendor's, with its names and fixes; the others are not shown."""
    report = examine(Machine({"ACME_GPUS": "0,5"}), [GROUP])
    assert {name: finding.verdict for name, finding in report.findings} == {
        "Acme driver": "ok",
        "AcmeRT": "warning",  # this machine's torch is not Acme's
        "GPUs": "ok",
        "visible GPUs": "problem",
        "PCIe": "ok",
        "AcmeLink": "ok",
        "GPU memory": "not applicable",
        "GPU clocks": "not applicable",
        "Acme faults": "ok",
    }
    assert (
        dict(report.findings)["visible GPUs"].saw == "1 of 2: ACME_GPUS=0,5: '5' names no GPU, and AcmeRT stops there"
    )


@pytest.mark.parametrize(
    ("name", "facts", "saw", "fix"),
    [
        ("Acme faults", GpuFacts(FAULTY.gpus), "GPU 1: fuse blown", "replace its fuse"),
        ("AcmeLink", GpuFacts(FAULTY.gpus), "GPU 1: 3 of 4 up", "acme-info links"),
        ("Acme driver", GpuFacts(GpuReport(vendor="acme", error="NoDevice")), "libacme: NoDevice", "modprobe acme"),
        (
            "AcmeRT",
            GpuFacts(HEALTHY, SoftwareReport(torch="2.9+acme4")),
            "torch 2.9+acme4 is built for AcmeRT 4, the driver runs up to 3",
            "Upgrade the driver, or install a torch that is built for AcmeRT 3.",
        ),
        ("GPU clocks", GpuFacts(GpuReport(vendor="acme", error="timeout")), "see Acme driver", ""),
        ("Acme driver", GpuFacts(GpuReport(vendor="acme", count=0)), "no Acme library on this machine", ""),
    ],
)
def test_doctors_words(name, facts, saw, fix):
    """A fault has the vendor's words."""
    checks = GROUP.checks_of(facts) if GROUP.checks_of else ()
    finding = dict(checks)[name](facts)
    assert (finding.saw, finding.fix) == (saw, fix)


def test_the_page():
    """The run's page has the links of its GPUs and their faults; so has one of a document of the vendor's SDK."""
    document = compose(
        {0: NODE, 1: FAULTY}, owner_node=0, world_size=4, first_ranks={0: 0, 1: 2}, process=Process(pid=1)
    )
    shown = read_hardware(document)
    rows = dict(shown.classes[0].facts)
    assert (rows["GPU"], rows["driver"], rows["ACMELink"]) == ("2 x Acme A1", "3.1", "4 of 4")
    assert "gpu.fuse: b GPU 1 blown" in shown.drift
    of_sdk = read_hardware({"gpu": document["gpu"]})
    assert [(node.gpus, node.gpu_name, node.ids) for node in of_sdk.nodes] == [
        ("2", "Acme A1", ("ACME-00ff", "ACME-11ff"))
    ]


def test_the_command_that_lists_the_nodes():
    """``pluto-dist nodes`` reads the same document."""
    document = json.dumps(compose_hosts(a=NODE, b=FAULTY))
    overview, nodes = (CliRunner().invoke(main, ["nodes", "-", *more], input=document) for more in ([], ["--all"]))
    assert (overview.exit_code, nodes.exit_code) == (0, 0)
    assert "2 x Acme A1" in overview.output and "replace its fuse" in overview.output
    assert "ACME-11ff" in nodes.output


def test_the_groups_of_doctor_have_it():
    """The command's own list of groups is not another one."""
    assert GROUP in CHECK_GROUPS
