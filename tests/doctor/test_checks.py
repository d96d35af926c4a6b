"""What the doctor makes of what it saw: every check in its good and in its bad state."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

import pluto_dist
from pluto_dist.cli.doctor import lines
from pluto_dist.doctor import FAMILIES, Machine, Report, examine
from pluto_dist.doctor.disk import DiskSeen
from pluto_dist.doctor.explain import explain
from pluto_dist.doctor.family import Family
from pluto_dist.doctor.gpus import GpusSeen
from pluto_dist.doctor.memory import MemorySeen
from pluto_dist.doctor.network import Interface, NameSeen, NetworkSeen
from pluto_dist.doctor.tracker import TrackerSeen
from pluto_dist.errors import (
    AuthenticationError,
    LauncherError,
    TrackerUnavailableError,
    UnexpectedAnswerError,
)
from pluto_dist.inventory.records import Gpu, GpuReport, MigInstance, SoftwareReport

ROOT = Path(pluto_dist.__file__).parents[1]
CHECKS = {name: check for family in FAMILIES for name, check in family.checks}
GIB = 1 << 30

TRACKER = TrackerSeen(
    key_source="PLUTO_API_KEY",
    url="https://pluto.example.com",
    peer="https://pluto.example.com",
    addresses=("192.0.2.7",),
    is_answered=True,
    round_trip=0.031,
    skew=-0.2,
)
UNANSWERED = replace(TRACKER, is_answered=False, round_trip=None, skew=None)
UNREACHABLE = replace(UNANSWERED, unreachable="no connection to port 443 (Connection refused)")
REFUSED = replace(TRACKER, round_trip=None, failure=AuthenticationError("HTTP 401\nSet PLUTO_API_KEY"))


def failing(reason: str) -> TrackerSeen:
    return replace(UNANSWERED, failure=TrackerUnavailableError(f"{reason}\nCheck PLUTO_URL_API."))


NETWORK = NetworkSeen(
    (
        Interface("eth0", True, ("10.0.0.5",)),
        Interface("ib0", False, ()),
        Interface("ib1", True, ()),
        Interface("lo", True, ("127.0.0.1", "::1")),
    ),
    nodes=2,
)
HOSTNAME = NameSeen(NETWORK, "node-a", ("10.0.0.5",))
LOOPBACK = replace(HOSTNAME, addresses=("127.0.1.1",))
ADDRESS = NameSeen(NETWORK, "node-a", ("10.0.0.5",))

GPUS = GpusSeen(
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
    nvidia_ml_py="13.615.71",
)
NO_GPU = GpusSeen(GpuReport(count=0), software=SoftwareReport(torch="2.4.0+cpu"), nvidia_ml_py="13.615.71")
CUT = (Gpu(0, uuid="GPU-aaaa-1", mig=True, mig_instances=(MigInstance("MIG-1"), MigInstance("MIG-2"))),)


def gpus(**report: object) -> GpusSeen:
    return replace(GPUS, report=replace(GPUS.report, **report))


def sick(**health: object) -> GpusSeen:
    """The second GPU is not well."""
    well, other = GPUS.report.devices
    return gpus(devices=(well, replace(other, **health)))


UNTOLD = gpus(devices=(Gpu(0),))


def seeing(value: str, ranks: int | None = None) -> GpusSeen:
    return replace(GPUS, visible=value, local_world_size=ranks)


MEMORY = MemorySeen(
    shm=64 * GIB, shm_free=60 * GIB, total=128 * GIB, open_files=65536, memlock=None, infiniband=("mlx5_0",)
)
DISK = DiskSeen(Path("/home/ada/.local/state/pluto-dist/spool"), free=80 * GIB, filesystem="ext4")

TABLE = [
    ("run", explain({"TORCHELASTIC_RUN_ID": "123", "RANK": "1", "WORLD_SIZE": "8"}), "ok", "torchrun-123-<token>"),
    ("run", LauncherError("RANK is set\nUnset it."), "problem", "init() would raise LauncherError: RANK is set"),
    ("API key", TRACKER, "ok", "from PLUTO_API_KEY"),
    ("API key", replace(TRACKER, key_source=""), "problem", "none"),
    ("API key", TrackerSeen(bad_settings="PLUTO_URL_API must be a URL"), "problem", "PLUTO_URL_API must be a URL"),
    ("API key", TrackerSeen("--offline was given"), "not applicable", "--offline"),
    ("tracker", TRACKER, "ok", "https://pluto.example.com (192.0.2.7)"),
    ("tracker", replace(TRACKER, peer="http://proxy:3128"), "ok", "through the proxy http://proxy:3128"),
    ("tracker", UNREACHABLE, "problem", "Connection refused"),
    ("tracker", TrackerSeen(bad_settings="x"), "not applicable", "see API key"),
    ("tracker's answer", TRACKER, "ok", "contract"),
    ("tracker's answer", REFUSED, "ok", "contract"),
    ("tracker's answer", UNREACHABLE, "not applicable", "see tracker"),
    ("tracker's answer", replace(TRACKER, failure=UnexpectedAnswerError("redirects\nset X")), "problem", "redirects"),
    ("tracker's answer", failing("SSLError: CERTIFICATE_VERIFY_FAILED"), "problem", "VERIFY"),
    ("key accepted", TRACKER, "ok", "accepted"),
    ("key accepted", REFUSED, "problem", "401"),
    ("key accepted", failing("HTTP 503"), "not applicable", "see tracker's answer"),
    ("round trip", TRACKER, "ok", "31 ms"),
    ("round trip", replace(TRACKER, round_trip=1.9), "warning", "1900 ms"),
    ("clock", TRACKER, "ok", "agrees"),
    ("clock", replace(TRACKER, skew=86400.0), "warning", "86400 s behind"),
    ("clock", replace(TRACKER, skew=None), "not applicable", "did not tell"),
    ("gloo's interface", replace(NETWORK, gloo="eth0"), "ok", "GLOO_SOCKET_IFNAME=eth0"),
    ("gloo's interface", replace(NETWORK, gloo="eth1"), "problem", "no interface 'eth1'"),
    ("gloo's interface", replace(NETWORK, gloo="ib0"), "problem", "ib0 is down"),
    ("gloo's interface", replace(NETWORK, gloo="ib1"), "problem", "no address"),
    ("gloo's interface", replace(NETWORK, gloo="lo"), "problem", "several nodes"),
    ("gloo's interface", replace(NETWORK, gloo="lo", nodes=1), "ok", "lo"),
    ("gloo's interface", NETWORK, "not applicable", "not set"),
    ("NCCL's interface", replace(NETWORK, nccl="eth,ib"), "ok", "eth,ib"),
    ("NCCL's interface", replace(NETWORK, nccl="=eth"), "problem", "matches no interface"),
    ("NCCL's interface", replace(NETWORK, nccl="^eth"), "problem", "ib0 is down"),
    ("NCCL's interface", NETWORK, "not applicable", "not set"),
    ("host name", HOSTNAME, "ok", "node-a is 10.0.0.5"),
    ("host name", LOOPBACK, "problem", "127.0.1.1: the loopback"),
    ("host name", replace(LOOPBACK, network=replace(NETWORK, nodes=None)), "warning", "several nodes"),
    ("host name", replace(LOOPBACK, network=replace(NETWORK, nodes=1)), "ok", "one node"),
    ("host name", replace(LOOPBACK, network=replace(NETWORK, gloo="eth0")), "ok", "used instead"),
    ("host name", replace(HOSTNAME, addresses=("10.0.0.6",)), "problem", "no address of this machine"),
    ("host name", replace(HOSTNAME, addresses=(), error="Name or service not known"), "problem", "not resolve"),
    ("MASTER_ADDR", ADDRESS, "ok", "node-a is 10.0.0.5"),
    ("MASTER_ADDR", replace(ADDRESS, addresses=(), error="Name or service not known"), "problem", "not resolve"),
    ("MASTER_ADDR", replace(ADDRESS, addresses=("127.0.0.1",)), "problem", "several nodes"),
    ("MASTER_ADDR", NameSeen(NETWORK, ""), "not applicable", "not set"),
    ("NVIDIA driver", GPUS, "ok", "550.54.15, 2 GPUs"),
    ("NVIDIA driver", GpusSeen(GpuReport(error="LibRmVersionMismatch")), "problem", "LibRmVersionMismatch"),
    ("NVIDIA driver", GpusSeen(GpuReport(error="timeout")), "problem", "timeout"),
    ("NVIDIA driver", NO_GPU, "not applicable", "no NVIDIA library"),
    ("pynvml", GPUS, "ok", "13.615.71"),
    ("pynvml", replace(GPUS, pynvml="13.0.1"), "ok", "13.615.71"),
    ("pynvml", replace(GPUS, pynvml="11.5.3"), "warning", "pynvml 11.5.3 hides"),
    ("pynvml", replace(GPUS, nvidia_ml_py=None), "warning", "not installed"),
    ("CUDA", GPUS, "ok", "built for CUDA 12.1, the driver runs up to 12.4"),
    ("CUDA", replace(GPUS, software=SoftwareReport(torch="2.9.0", cuda="12.8")), "ok", "12.8"),
    ("CUDA", replace(GPUS, software=SoftwareReport(torch="2.9.0", cuda="13.0")), "problem", "13.0"),
    ("CUDA", replace(GPUS, software=NO_GPU.software), "warning", "without CUDA"),
    ("CUDA", replace(NO_GPU, software=GPUS.software), "warning", "no NVIDIA library"),
    ("CUDA", replace(GPUS, software=SoftwareReport()), "problem", "not installed"),
    ("CUDA", NO_GPU, "not applicable", "without CUDA"),
    ("GPUs", GPUS, "ok", "all 2 answer"),
    ("GPUs", gpus(count=3, bad=((2, "GpuIsLost"),)), "problem", "GPU 2: GpuIsLost"),
    ("GPUs", gpus(count=0, devices=()), "warning", "none"),
    ("visible GPUs", GPUS, "ok", "all 2"),
    ("visible GPUs", gpus(count=0, devices=()), "not applicable", "see GPUs"),
    ("visible GPUs", seeing("1, GPU-aaaa"), "ok", "2 of 2"),
    ("visible GPUs", seeing("0,2,1"), "problem", "'2' names no GPU"),
    ("visible GPUs", seeing("GPU-aa"), "warning", "CUDA sees no GPU"),
    ("visible GPUs", seeing("0,-1"), "problem", "'-1' names no GPU"),
    ("visible GPUs", seeing("0,GPU-aaaa"), "problem", "named twice"),
    ("visible GPUs", seeing(""), "warning", "0 of 2"),
    ("visible GPUs", seeing("NoDevFiles"), "warning", "0 of 2"),
    ("visible GPUs", seeing("0", 2), "warning", "for 2 ranks on this node"),
    ("visible GPUs", replace(gpus(devices=CUT), visible="MIG-2"), "ok", "MIG-2"),
    ("MIG", GPUS, "ok", "off"),
    ("MIG", gpus(devices=CUT), "warning", "GPU 0: 2 instances"),
    ("persistence mode", GPUS, "ok", "0.9 s"),
    ("persistence mode", sick(persistence=False), "warning", "off on GPU 1"),
    ("persistence mode", gpus(init_ms=24000), "warning", "24.0 s"),
    ("PCIe", GPUS, "ok", "generation 5 x16"),
    ("PCIe", sick(pcie_gen=1), "ok", "idle ones"),
    ("PCIe", sick(pcie_gen=4, busy=97), "warning", "GPU 1: generation 4 of 5 while busy"),
    ("PCIe", sick(pcie_width=8), "warning", "GPU 1: x8 of x16"),
    ("NVLink", GPUS, "ok", "18 links up"),
    ("NVLink", sick(nvlinks_up=16), "warning", "GPU 1: 16 of 18 up"),
    ("NVLink", UNTOLD, "not applicable", "no NVLink"),
    ("GPU memory", GPUS, "ok", "no uncorrected error"),
    ("GPU memory", sick(ecc_errors=3), "problem", "GPU 1: 3 uncorrected"),
    ("GPU memory", sick(remap_failed=True), "problem", "no spare row"),
    ("GPU memory", sick(remap_pending=True), "warning", "waits for a reset"),
    ("GPU memory", sick(retired_pages=2), "warning", "2 pages retired"),
    ("GPU memory", UNTOLD, "not applicable", "counts no errors"),
    ("GPU clocks", GPUS, "ok", "not held down"),
    ("GPU clocks", sick(throttle=("temperature",)), "warning", "GPU 1: temperature"),
    ("GPU clocks", NO_GPU, "not applicable", "no NVIDIA library"),
    ("shared memory", MEMORY, "ok", "64 GiB"),
    ("shared memory", replace(MEMORY, shm=64 << 20, shm_free=64 << 20), "warning", "64 MiB"),
    ("shared memory", replace(MEMORY, shm_free=1 << 20), "warning", "1 MiB free"),
    ("shared memory", MemorySeen(), "warning", "cannot be read"),
    ("memory", MEMORY, "ok", "128 GiB, no limit"),
    ("memory", replace(MEMORY, limit=16 * GIB, used=4 * GIB), "ok", "limited to 16 GiB of 128 GiB"),
    ("memory", replace(MEMORY, limit=16 * GIB, used=int(15.5 * GIB)), "warning", "15.5 GiB used"),
    ("open files", MEMORY, "ok", "65536"),
    ("open files", replace(MEMORY, open_files=256), "warning", "1024 are usual"),
    ("open files", replace(MEMORY, open_files=1024, world_size=1024), "warning", "rank 0 of 1024 needs about 2304"),
    ("locked memory", MEMORY, "ok", "unlimited"),
    ("locked memory", replace(MEMORY, memlock=8 << 20), "warning", "8 MiB, with mlx5_0"),
    ("locked memory", replace(MEMORY, infiniband=()), "not applicable", "no InfiniBand"),
    ("disk for an outage", DISK, "ok", "on ext4, 80 GiB free"),
    ("disk for an outage", replace(DISK, filesystem="nfs4"), "ok", "a network file system"),
    ("disk for an outage", replace(DISK, filesystem="tmpfs"), "warning", "gone with"),
    ("disk for an outage", replace(DISK, free=200 << 20), "warning", "200 MiB free"),
    ("disk for an outage", replace(DISK, free=1 << 20), "problem", "1 MiB free"),
    ("disk for an outage", replace(DISK, refused="/home: Read-only file system"), "problem", "Read-only"),
    ("disk for an outage", DiskSeen(None), "problem", "HOME is not set"),
]


@pytest.mark.parametrize(("name", "seen", "verdict", "words"), TABLE, ids=[f"{r[0]}-{r[2]}-{r[3]}" for r in TABLE])
def test_what_a_check_makes_of_it(name, seen, verdict, words):
    """Each state has its verdict and says what was seen; what is bad says what mends it, what is good nothing."""
    found = CHECKS[name](seen)
    assert found.verdict == verdict
    assert words in found.saw
    assert bool(found.fix) == (verdict in ("warning", "problem"))


def test_every_check_is_in_the_table():
    """Each check is shown in a good and in a bad state."""
    assert {name for name, _, verdict, _ in TABLE if verdict == "ok"} == set(CHECKS)
    assert {name for name, _, verdict, _ in TABLE if verdict in ("warning", "problem")} == set(CHECKS)


def test_the_readme_shows_a_sick_machine():
    """The README's example is what the command prints for this node; PLUTO_DIST_WRITE_SNAPSHOTS=1 writes it there."""
    seen = [
        explain({"TORCHELASTIC_RUN_ID": "123", "RANK": "0", "WORLD_SIZE": "16"}),
        replace(
            REFUSED,
            failure=AuthenticationError(
                "https://pluto.example.com refused the API key (HTTP 401: "
                "Unauthorized).\nSet PLUTO_API_KEY to a key of that server; PLUTO_URL_API says which server is asked."
            ),
        ),
        replace(NETWORK, nccl="ib"),
        LOOPBACK,
        ADDRESS,
        replace(sick(pcie_width=8, nvlinks_up=16, remap_pending=True), visible="0,1,2"),
        replace(MEMORY, shm=64 << 20, shm_free=64 << 20, limit=64 * GIB, used=3 * GIB),
        replace(DISK, filesystem="nfs4"),
    ]
    families = [Family(lambda _, seen=one: seen, family.checks) for one, family in zip(seen, FAMILIES, strict=True)]
    report = Report(examine(Machine({}), families).findings, 0.4)
    block = "```console\n$ pluto-dist doctor\n" + "\n".join(lines(report)) + "\n```\n"
    before, found, after = re.split(
        r"(?<=<!-- doctor -->\n)(.*?)(?=<!-- end of doctor -->)", (ROOT / "README.md").read_text(), flags=re.DOTALL
    )
    if os.environ.get("PLUTO_DIST_WRITE_SNAPSHOTS"):
        (ROOT / "README.md").write_text(before + block + after)
        found = block
    assert found == block
