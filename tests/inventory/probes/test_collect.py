"""The collection of a node's inventory: imports, processes, threads and failing probes."""

from __future__ import annotations

import dataclasses
import subprocess
import threading

import pytest

from inventory.probes.interpreter import python
from pluto_dist.inventory import gpu
from pluto_dist.inventory.gpu import nvidia
from pluto_dist.inventory.probes.collect import collect
from pluto_dist.inventory.records import GpuReport


def test_importing_the_inventory_is_light():
    """Neither psutil nor pynvml nor torch is imported before the collection."""
    code = "import sys, pluto_dist.inventory; print({'psutil', 'pynvml', 'torch', 'platform'} & set(sys.modules))"

    assert python(code) == "set()\n"


def test_collecting_does_not_import_torch():
    """The versions of torch are read from its files."""
    code = (
        "import sys; from pluto_dist.inventory.probes.collect import collect; collect(); print('torch' in sys.modules)"
    )

    assert python(code) == "False\n"


def test_collect_starts_no_process_and_leaves_no_thread(monkeypatch):
    """The thread of the GPU probes ends if the driver responds."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    found = collect()

    assert found.gpus.error != "timeout" and found.collect_ms is not None
    assert "pluto-dist-gpu-probe" not in {thread.name for thread in threading.enumerate()}


def test_a_crashing_probe_is_an_error_not_a_timeout(monkeypatch):
    """An exception in a vendor's probe is the report's error; it costs neither the deadline nor the inventory."""

    def broken() -> GpuReport:
        raise ZeroDivisionError

    monkeypatch.setattr(gpu, "VENDORS", (dataclasses.replace(nvidia.VENDOR, probe=broken),))

    assert collect(60).gpus == GpuReport(error="ZeroDivisionError")


def test_a_process_that_cannot_start_a_thread(monkeypatch):
    """A container's limit on processes is the report's error, not an exception."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert collect(60).gpus == GpuReport(error="RuntimeError")
