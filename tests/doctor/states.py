"""Facts of a healthy machine for each group of checks, and how the tests apply a check to facts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pluto_dist.doctor import CHECK_GROUPS
from pluto_dist.doctor.disk import DiskFacts
from pluto_dist.doctor.gpus import GpuFacts
from pluto_dist.doctor.memory import MemoryFacts
from pluto_dist.doctor.network import Interface, NameFacts, NetworkFacts
from pluto_dist.doctor.tracker import TrackerFacts
from pluto_dist.errors import AuthenticationError
from pluto_dist.inventory.records import Gpu, GpuReport, SoftwareReport

CHECKS = {name: check for group in CHECK_GROUPS for name, check in group.checks}
GIB = 1 << 30

Row = tuple[str, Any, str, str]
"""Name of a check, facts, expected verdict, and a part of the expected text."""

TRACKER = TrackerFacts(
    key_source="PLUTO_API_KEY",
    url="https://pluto.example.com",
    peer="https://pluto.example.com",
    addresses=("192.0.2.7",),
    heartbeat_url="https://pluto-py.example.com",
    is_answered=True,
    round_trip=0.031,
    skew=-0.2,
)
REFUSED = replace(TRACKER, round_trip=None, failure=AuthenticationError("HTTP 401\nSet PLUTO_API_KEY"))
NETWORK = NetworkFacts(
    (
        Interface("eth0", True, ("10.0.0.5",)),
        Interface("ib0", False, ()),
        Interface("ib1", True, ()),
        Interface("lo", True, ("127.0.0.1", "::1")),
    ),
    nodes=2,
)
HOSTNAME = NameFacts(NETWORK, "node-a", ("10.0.0.5",))
LOOPBACK = replace(HOSTNAME, addresses=("127.0.1.1",))
INSTALLED = {"pynvml": None, "nvidia-ml-py": "13.615.71"}
GPUS = GpuFacts(
    report=GpuReport(
        driver="550.54.15",
        cuda_driver="12.4",
        count=2,
        init_ms=900,
        devices=tuple(
            Gpu(
                index=index,
                name="H100",
                uuid=uuid,
                busy=0,
                pcie_gen=5,
                pcie_width=16,
                pcie_gen_max=5,
                pcie_width_max=16,
                nvlinks=18,
                nvlinks_up=18,
                ecc_errors=0,
                remap_pending=False,
                remap_failed=False,
                persistence=True,
                throttle=(),
            )
            for index, uuid in enumerate(("GPU-aaaa-1", "GPU-aabb-2"))
        ),
    ),
    software=SoftwareReport(torch="2.4.0+cu121", cuda="12.1"),
    installed=INSTALLED,
)
NO_GPU = GpuFacts(GpuReport(count=0), software=SoftwareReport(torch="2.4.0+cpu"), installed=INSTALLED)
MEMORY = MemoryFacts(
    shm=64 * GIB, shm_free=60 * GIB, total=128 * GIB, open_files=65536, memlock=None, infiniband=("mlx5_0",)
)
DISK = DiskFacts(Path("/home/ada/.local/state/pluto-dist/spool"), free=80 * GIB, filesystem="ext4")


def gpus(**report: object) -> GpuFacts:
    """``GPUS`` with another report."""
    return replace(GPUS, report=replace(GPUS.report, **report))


def faulty(**health: object) -> GpuFacts:
    """``GPUS`` with other values of the second GPU."""
    healthy, other = GPUS.report.devices
    return gpus(devices=(healthy, replace(other, **health)))


def assert_finding(name: str, facts: Any, verdict: str, text: str) -> None:
    """The check has this verdict and text; it has a fix exactly if it is a warning or a problem."""
    finding = CHECKS[name](facts)
    assert finding.verdict == verdict
    assert text in finding.saw
    assert bool(finding.fix) == (verdict in ("warning", "problem"))


def ids(rows: list[Row]) -> list[str]:
    return [f"{name}-{verdict}-{text}" for name, _, verdict, text in rows]
