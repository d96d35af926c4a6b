"""Checks the health of each GPU: PCIe link, links between GPUs, memory errors and clocks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pluto_dist.doctor.finding import Finding, not_applicable, ok, problem, warning
from pluto_dist.inventory.gpu.vendor import GpuVendor
from pluto_dist.inventory.records import Gpu
from pluto_dist.inventory.report.health import BUSY_PERCENT

NOT_REPORTED = "not reported by the driver"


def pcie(gpus: Sequence[Gpu], _vendor: GpuVendor) -> Finding:
    """The width of a link is constant. Its generation is not: an idle GPU lowers it, so only a busy GPU is judged."""
    known = [gpu for gpu in gpus if gpu.pcie_width and gpu.pcie_width_max]
    if not known:
        return not_applicable(NOT_REPORTED)
    narrow = [
        f"GPU {gpu.index}: x{gpu.pcie_width} of x{gpu.pcie_width_max}"
        for gpu in known
        if (gpu.pcie_width or 0) < (gpu.pcie_width_max or 0)
    ]
    slow = [
        f"GPU {gpu.index}: generation {gpu.pcie_gen} of {gpu.pcie_gen_max} while busy"
        for gpu in known
        if (gpu.busy or 0) >= BUSY_PERCENT and (gpu.pcie_gen or 0) < (gpu.pcie_gen_max or 0)
    ]
    if narrow or slow:
        return warning(", ".join(narrow + slow), "Reseat the card or its riser; check the slot's setting in the BIOS.")
    idle = any((gpu.pcie_gen or 0) < (gpu.pcie_gen_max or 0) for gpu in known)
    links = _distinct(f"generation {gpu.pcie_gen_max} x{gpu.pcie_width}" for gpu in known)
    return ok(links + (", idle ones at a lower generation" if idle else ""))


def links(gpus: Sequence[Gpu], vendor: GpuVendor) -> Finding:
    linked = [gpu for gpu in gpus if gpu.nvlinks]
    if not linked:
        return not_applicable(f"no {vendor.link_title}")
    down = [
        f"GPU {gpu.index}: {gpu.nvlinks_up} of {gpu.nvlinks} up"
        for gpu in linked
        if (gpu.nvlinks_up or 0) < (gpu.nvlinks or 0)
    ]
    if down:
        return warning(", ".join(down), vendor.fixes.links)
    return ok(_distinct(f"{gpu.nvlinks} links up" for gpu in linked))


def memory(gpus: Sequence[Gpu], vendor: GpuVendor) -> Finding:
    """An uncorrected error ends the process that it hits. Remapped rows are repaired unless no spare row is left."""
    failed = [f"GPU {gpu.index}: no spare row is left" for gpu in gpus if gpu.remap_failed]
    errors = [f"GPU {gpu.index}: {gpu.ecc_errors} uncorrected ECC errors" for gpu in gpus if gpu.ecc_errors]
    pending = [f"GPU {gpu.index}: a row waits for a reset" for gpu in gpus if gpu.remap_pending]
    retired = [f"GPU {gpu.index}: {gpu.retired_pages} pages retired" for gpu in gpus if gpu.retired_pages]
    if failed or errors:
        return problem(", ".join(failed + errors + pending), vendor.fixes.reset)
    if pending or retired:
        return warning(", ".join(pending + retired), vendor.fixes.reset)
    if all(gpu.ecc_errors is None and gpu.remap_failed is None for gpu in gpus):
        return not_applicable("the driver counts no errors")
    return ok("no uncorrected error since the driver was loaded")


def clocks(gpus: Sequence[Gpu], vendor: GpuVendor) -> Finding:
    throttled = [f"GPU {gpu.index}: {', '.join(gpu.throttle)}" for gpu in gpus if gpu.throttle]
    if throttled:
        return warning(f"held down ({'; '.join(throttled)})", vendor.fixes.clocks)
    if all(gpu.throttle is None for gpu in gpus):
        return not_applicable(NOT_REPORTED)
    return ok("not held down")


def own_faults(gpus: Sequence[Gpu], vendor: GpuVendor) -> Finding:
    """The faults that only GPUs of this vendor have."""
    found = [(gpu.index, name, value) for gpu in gpus for name, value in gpu.faults]
    if not found:
        return ok("none")
    fixes = dict.fromkeys(
        vendor.faults[name][1] if name in vendor.faults else vendor.fixes.reset for _, name, _ in found
    )
    return warning(", ".join(f"GPU {index}: {name} {value}" for index, name, value in found), "; ".join(fixes))


def _distinct(descriptions: Iterable[str]) -> str:
    """Each different description once."""
    return " / ".join(dict.fromkeys(descriptions))
