"""Collects the inventory of this node within a deadline, even if the GPU driver does not respond.

GPU libraries are called in a daemon thread, because a stalled driver blocks its caller for seconds or indefinitely.
Such a thread is abandoned, and this process does not call a GPU library again. Host and software are read meanwhile in
the caller's thread.

The vendors are in ``inventory.gpu``. AMD's library needs the thread as well: ``amdsmi_init`` could block
uninterruptibly, even for SIGKILL (ROCm/rocm-systems#8457).
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable

from pluto_dist.background import new_thread
from pluto_dist.inventory.gpu import probe_gpus, vendor_named
from pluto_dist.inventory.gpu.vendor import GpuVendor
from pluto_dist.inventory.probes import host, network, software
from pluto_dist.inventory.probes.sources import ALL_FAMILIES, Sources
from pluto_dist.inventory.records import GpuReport, HostReport, NodeInventory
from pluto_dist.inventory.safe_read import attempt, value_or_none
from pluto_dist.serialization.text import record_text

_stalled: dict[int, str] = {}
"""The vendor whose library missed the deadline, by this process's pid. A forked child has another pid and may try."""


def collect(deadline: float = 2.0, sources: Sources = ALL_FAMILIES) -> NodeInventory:
    """The wanted families of this node's inventory. Never raises; a value that cannot be read is ``None``.

    Only one process of a node should call this: drivers serialize their users (libcudacxx#222).

    Args:
        deadline: seconds for the GPU libraries. If they take longer, ``gpus.error`` is "timeout", in this and every
            later call of this process.
        sources: the wanted families of metadata, and what they may read. The host name is always included.
    """
    began, wanted = time.monotonic(), sources.families
    await_gpus = _start_gpu_probes(deadline) if "gpu" in wanted else GpuReport
    machine = host.probe(sources) if "host" in wanted else HostReport()
    ports = value_or_none(network.probe) if "network" in wanted else None
    interpreter = software.probe(sources)
    gpus = _with_host_memory(await_gpus(), machine)
    visible = vendor_named(gpus.vendor).visible
    return NodeInventory(
        hostname=host.hostname(),
        host=dataclasses.replace(machine, nics=ports or ()),
        software=interpreter,
        gpus=gpus,
        visible=record_text(visible.listed(sources.environ)) if "gpu" in wanted else None,
        collect_ms=round(1000 * (time.monotonic() - began)),
    )


def _start_gpu_probes(deadline: float) -> Callable[[], GpuReport]:
    """Starts the GPU probes; the returned function waits for their report, at most ``deadline`` seconds from now."""
    if (name := _stalled.get(os.getpid())) is not None:
        return lambda: GpuReport(vendor=name, error="timeout")
    until = time.monotonic() + deadline
    reports: list[GpuReport] = []
    asked: list[GpuVendor] = []
    lost = "the GPUs of this node are not recorded"

    def work() -> None:
        report, error = attempt(lambda: probe_gpus(asked))
        reports.append(report or GpuReport(error=type(error).__name__))

    thread = new_thread(work, "pluto-dist-gpu-probe", lost=lost)
    _, failure = attempt(thread.start)
    if failure is not None:  # a container's limit on processes includes threads; the report of the nodes says so
        return lambda: GpuReport(error=type(failure).__name__)

    def wait() -> GpuReport:
        thread.join(max(0.0, until - time.monotonic()))
        if reports:
            return reports[0]
        stalled = _stalled[os.getpid()] = vendor_named(asked[-1].name if asked else None).name
        return GpuReport(vendor=stalled, error="timeout")

    return wait


def _with_host_memory(gpus: GpuReport, machine: HostReport) -> GpuReport:
    devices = (
        dataclasses.replace(gpu, memory=machine.memory) if gpu.memory_kind == "unified" else gpu for gpu in gpus.devices
    )
    return dataclasses.replace(gpus, devices=tuple(devices))
