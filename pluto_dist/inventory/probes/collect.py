"""The inventory of this node, within a deadline: runs the probes, and survives a driver that does not answer.

GPU libraries are asked in a daemon thread, because a stalled driver holds its caller for seconds to for
ever. Such a thread is left behind, and this process asks no GPU library again. Host and software are read
meanwhile in the caller's thread.

Another vendor's GPUs: write ``inventory/<vendor>.py`` with a ``probe() -> GpuReport`` and name it in
``GPU_PROBES``, which is the only other place to change; but for the Pluto UI's own card, which ``sdk`` makes for
NVIDIA alone. AMD's belongs in the thread like NVIDIA's: ``amdsmi_init`` could block beyond the reach of SIGKILL
(ROCm/rocm-systems#8457).
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable

from pluto_dist.inventory.gpu import nvidia
from pluto_dist.inventory.gpu.assignment import VISIBLE
from pluto_dist.inventory.probes import host, network, software
from pluto_dist.inventory.probes.sources import EVERYTHING, Sources
from pluto_dist.inventory.records import GpuReport, HostReport, NodeInventory
from pluto_dist.inventory.safe_read import attempt, value_or_none
from pluto_dist.serialization.text import clean_text

GPU_PROBES: tuple[Callable[[], GpuReport], ...] = (nvidia.probe,)
"""One for each vendor. The first that found GPUs or failed is the node's; a node has one vendor's."""

_stalled_in: set[int] = set()
"""The pid whose GPU library did not answer in time. A forked child has another pid, and may ask."""


def collect(deadline: float = 2.0, sources: Sources = EVERYTHING) -> NodeInventory:
    """What this node is made of, of what is wanted. Never raises; a value that cannot be read is ``None``.

    Only one process of a node should call this: drivers serialise their users (libcudacxx#222).

    Args:
        deadline: the seconds that GPU libraries get. After them ``gpus.error`` is "timeout", here and in
            every later call of this process.
        sources: the families of metadata that are wanted, and what they may look at. The node's name is in
            every inventory.
    """
    began, wanted = time.monotonic(), sources.families
    asking = _ask_gpus(deadline) if "gpu" in wanted else GpuReport
    machine = host.probe(sources) if "host" in wanted else HostReport()
    ports = value_or_none(network.probe) if "network" in wanted else None
    interpreter = software.probe(sources)
    gpus = _with_host_memory(asking(), machine)
    return NodeInventory(
        hostname=host.hostname(),
        host=dataclasses.replace(machine, nics=ports or ()),
        software=interpreter,
        gpus=gpus,
        visible=clean_text(sources.environ.get(VISIBLE)) if "gpu" in wanted else None,
        collect_ms=round(1000 * (time.monotonic() - began)),
    )


def _ask_gpus(deadline: float) -> Callable[[], GpuReport]:
    """Starts the GPU probes; what it returns waits for their answer, until ``deadline`` seconds from now."""
    timeout = GpuReport(error="timeout")
    if os.getpid() in _stalled_in:
        return lambda: timeout
    until = time.monotonic() + deadline
    answers: list[GpuReport] = []
    asker = threading.Thread(target=lambda: answers.append(_probe_gpus()), name="pluto-dist-gpu-probe", daemon=True)
    _, refused = attempt(asker.start)
    if refused is not None:  # a container's limit on processes counts threads
        return lambda: GpuReport(error=type(refused).__name__)

    def answer() -> GpuReport:
        asker.join(max(0.0, until - time.monotonic()))
        if not answers:
            _stalled_in.add(os.getpid())
        return answers[0] if answers else timeout

    return answer


def _probe_gpus() -> GpuReport:
    found = GpuReport(count=0)
    for probe in GPU_PROBES:
        report, error = attempt(probe)
        found = report or GpuReport(error=type(error).__name__)
        if found.error or found.count:
            break
    return found


def _with_host_memory(gpus: GpuReport, machine: HostReport) -> GpuReport:
    devices = (
        dataclasses.replace(gpu, memory=machine.memory) if gpu.memory_kind == "unified" else gpu for gpu in gpus.devices
    )
    return dataclasses.replace(gpus, devices=tuple(devices))
