"""The checks of the health of each GPU."""

from __future__ import annotations

import pytest

from doctor.states import GPUS, NO_GPU, assert_finding, faulty, gpus, ids
from pluto_dist.inventory.records import Gpu

UNREPORTED = gpus(devices=(Gpu(0),))
TABLE = [
    ("PCIe", GPUS, "ok", "generation 5 x16"),
    ("PCIe", faulty(pcie_gen=1), "ok", "idle ones"),
    ("PCIe", faulty(pcie_gen=4, busy=97), "warning", "GPU 1: generation 4 of 5 while busy"),
    ("PCIe", faulty(pcie_width=8), "warning", "GPU 1: x8 of x16"),
    ("NVLink", GPUS, "ok", "18 links up"),
    ("NVLink", faulty(nvlinks_up=16), "warning", "GPU 1: 16 of 18 up"),
    ("NVLink", UNREPORTED, "not applicable", "no NVLink"),
    ("GPU memory", GPUS, "ok", "no uncorrected error"),
    ("GPU memory", faulty(ecc_errors=3), "problem", "GPU 1: 3 uncorrected"),
    ("GPU memory", faulty(remap_failed=True), "problem", "no spare row"),
    ("GPU memory", faulty(remap_pending=True), "warning", "waits for a reset"),
    ("GPU memory", faulty(retired_pages=2), "warning", "2 pages retired"),
    ("GPU memory", UNREPORTED, "not applicable", "counts no errors"),
    ("GPU clocks", GPUS, "ok", "not held down"),
    ("GPU clocks", faulty(throttle=("temperature",)), "warning", "GPU 1: temperature"),
    ("GPU clocks", NO_GPU, "not applicable", "no NVIDIA library"),
]


@pytest.mark.parametrize(("name", "facts", "verdict", "text"), TABLE, ids=ids(TABLE))
def test_findings(name, facts, verdict, text):
    """Each check in its good and bad states."""
    assert_finding(name, facts, verdict, text)
