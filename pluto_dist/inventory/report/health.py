"""Faults of single GPUs that slow down or endanger a training, regardless of the other GPUs of the job. Pure.

Healthy and unknown values are left out.

>>> faults(Gpu(index=3, pcie_width=4, pcie_width_max=16, nvlinks=18, nvlinks_up=17, ecc_errors=0), "link")
{'pcie.width': '4 of 16', 'link.up': '17 of 18'}
"""

from __future__ import annotations

from pluto_dist.inventory.gpu import vendor_named
from pluto_dist.inventory.records import Gpu, GpuReport
from pluto_dist.serialization.codec import Json

BUSY_PERCENT = 50


def faults(gpu: Gpu, link: str) -> dict[str, Json]:
    """The faults of one GPU, by name; ``link`` is the word for its vendor's links.

    A low PCIe generation is a fault only of a busy GPU: an idle one lowers it to save power.
    """
    is_busy = (gpu.busy or 0) >= BUSY_PERCENT
    found: dict[str, Json] = {
        "pcie.width": _below(gpu.pcie_width, gpu.pcie_width_max),
        "pcie.gen": _below(gpu.pcie_gen, gpu.pcie_gen_max) if is_busy else None,
        f"{link}.up": _below(gpu.nvlinks_up, gpu.nvlinks),
        "ecc_errors": gpu.ecc_errors or None,
        "remapped_rows": gpu.remapped_rows or None,
        "remap_pending": gpu.remap_pending or None,
        "remap_failed": gpu.remap_failed or None,
        "retired_pages": gpu.retired_pages or None,
        "throttle": ", ".join(gpu.throttle or ()) or None,
        **dict(gpu.faults),
    }
    return {name: value for name, value in found.items() if value is not None}


def node_faults(gpus: GpuReport) -> dict[str, dict[str, Json]]:
    """The faults of a node's GPUs, by name and index: ``{"ecc_errors": {"3": 2}}``."""
    link = vendor_named(gpus.vendor).link
    found: dict[str, dict[str, Json]] = {}
    for gpu in gpus.devices:
        for name, value in faults(gpu, link).items():
            found.setdefault(name, {})[str(gpu.index)] = value
    return found


def _below(now: int | None, best: int | None) -> str | None:
    return f"{now} of {best}" if now is not None and best is not None and now < best else None
