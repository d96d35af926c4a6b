"""Does each GPU work as well as it could? Pure verdicts over what was read of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pluto_dist.doctor.finding import Finding, not_applicable, ok, problem, warning
from pluto_dist.inventory.records import Gpu
from pluto_dist.inventory.report.health import BUSY_PERCENT

UNTOLD = "the driver does not tell"
RESET = "nvidia-smi --gpu-reset with no process on it, or reboot; if it comes back, replace the GPU."


def pcie(seen: Sequence[Gpu]) -> Finding:
    """The width never changes by itself. The generation does: an idle GPU lowers it, so only a busy one tells."""
    known = [each for each in seen if each.pcie_width and each.pcie_width_max]
    if not known:
        return not_applicable(UNTOLD)
    narrow = [
        f"GPU {each.index}: x{each.pcie_width} of x{each.pcie_width_max}"
        for each in known
        if (each.pcie_width or 0) < (each.pcie_width_max or 0)
    ]
    slow = [
        f"GPU {each.index}: generation {each.pcie_gen} of {each.pcie_gen_max} while busy"
        for each in known
        if (each.busy or 0) >= BUSY_PERCENT and (each.pcie_gen or 0) < (each.pcie_gen_max or 0)
    ]
    if narrow or slow:
        return warning(", ".join(narrow + slow), "Reseat the card or its riser; check the slot's setting in the BIOS.")
    idle = any((each.pcie_gen or 0) < (each.pcie_gen_max or 0) for each in known)
    widths = _each(f"generation {each.pcie_gen_max} x{each.pcie_width}" for each in known)
    return ok(widths + (", idle ones at a lower generation" if idle else ""))


def nvlink(seen: Sequence[Gpu]) -> Finding:
    linked = [each for each in seen if each.nvlinks]
    if not linked:
        return not_applicable("no NVLink")
    down = [
        f"GPU {e.index}: {e.nvlinks_up} of {e.nvlinks} up" for e in linked if (e.nvlinks_up or 0) < (e.nvlinks or 0)
    ]
    if down:
        return warning(
            ", ".join(down), "nvidia-smi nvlink -s; with NVSwitch: systemctl status nvidia-fabricmanager, then reset."
        )
    return ok(_each(f"{each.nvlinks} links up" for each in linked))


def memory(seen: Sequence[Gpu]) -> Finding:
    """Uncorrected errors end the process they hit. Rows that were remapped are repaired, unless spares ran out."""
    worn = [f"GPU {each.index}: no spare row is left" for each in seen if each.remap_failed]
    errors = [f"GPU {each.index}: {each.ecc_errors} uncorrected ECC errors" for each in seen if each.ecc_errors]
    pending = [f"GPU {each.index}: a row waits for a reset" for each in seen if each.remap_pending]
    retired = [f"GPU {each.index}: {each.retired_pages} pages retired" for each in seen if each.retired_pages]
    if worn or errors:
        return problem(", ".join(worn + errors + pending), RESET)
    if pending or retired:
        return warning(", ".join(pending + retired), RESET)
    if all(each.ecc_errors is None and each.remap_failed is None for each in seen):
        return not_applicable("the driver counts no errors")
    return ok("no uncorrected error since the driver was loaded")


def clocks(seen: Sequence[Gpu]) -> Finding:
    slowed = [f"GPU {each.index}: {', '.join(each.throttle)}" for each in seen if each.throttle]
    if slowed:
        return warning(f"held down ({'; '.join(slowed)})", "Check cooling and power; nvidia-smi -q -d PERFORMANCE.")
    if all(each.throttle is None for each in seen):
        return not_applicable(UNTOLD)
    return ok("not held down")


def _each(words: Iterable[str]) -> str:
    """What all share, once: "18 links up"; what differs, all of it."""
    return " / ".join(dict.fromkeys(words))
