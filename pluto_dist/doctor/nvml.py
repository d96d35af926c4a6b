"""What does NVML say of the GPUs, and of their health? One look for both.

The inventory's records say which GPUs there are. What is read here beyond them is whether each works as it
should; a value that cannot be read is ``None``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pluto_dist.inventory import GpuReport, nvidia
from pluto_dist.inventory.reading import attempt, known

MOST_NVLINKS = 36  # NVML_NVLINK_MAX_LINKS
UNCORRECTED, SINCE_BOOT = 1, 0  # NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC
SLOWDOWNS = {0x8: "hardware", 0x20: "temperature, by software", 0x40: "temperature", 0x80: "power brake"}
"""Bits of nvmlClocksEventReasons that no healthy GPU shows; idle, power caps and set clocks are none."""


@dataclass(frozen=True, slots=True)
class Health:
    """How one GPU does.

    Attributes:
        index: NVML's.
        busy: percent of the time that a kernel ran.
        pcie_gen, pcie_width, pcie_gen_max, pcie_width_max: of its link, and of the best that both ends can.
        nvlinks, nvlinks_up: how many it has, how many work.
        ecc_errors: uncorrected ones since the driver was loaded.
        retired_pages: memory pages taken out of use (before Ampere).
        remapped_pending, remapped_failed: rows that wait for a reset, and rows without a spare (since Ampere).
        persistence: whether the driver keeps it open between jobs.
        slowdowns: why its clocks are held down now.
    """

    index: int
    busy: int | None = None
    pcie_gen: int | None = None
    pcie_width: int | None = None
    pcie_gen_max: int | None = None
    pcie_width_max: int | None = None
    nvlinks: int | None = None
    nvlinks_up: int | None = None
    ecc_errors: int | None = None
    retired_pages: int | None = None
    remapped_pending: bool | None = None
    remapped_failed: bool | None = None
    persistence: bool | None = None
    slowdowns: tuple[str, ...] | None = None


def probe() -> tuple[GpuReport, tuple[Health, ...]]:
    """The GPUs, and the health of those that answer. Blocks as long as the driver does."""
    nvml, _ = attempt(import_pynvml)
    if nvml is None:
        return nvidia.probe(), ()
    began = time.monotonic()
    _, error = attempt(nvml.nvmlInit)
    init_ms = round(1000 * (time.monotonic() - began))
    if error is not None:
        return nvidia.probe(), ()  # names the error
    try:  # NVML counts inits: the inventory's own, inside this one, costs nothing
        report = replace(nvidia.probe(), init_ms=init_ms)
        asked = [(gpu, *attempt(partial(_health_of, nvml, gpu.index))) for gpu in report.devices]
        gone = tuple((gpu.index, str(error)) for gpu, _, error in asked if isinstance(error, nvidia.GpuGoneError))
        there = tuple(gpu for gpu, _, error in asked if not isinstance(error, nvidia.GpuGoneError))
        healths = tuple(health for _, health, _ in asked if health is not None)
        return replace(report, devices=there, bad=report.bad + gone), healths
    finally:
        known(nvml.nvmlShutdown)


def import_pynvml() -> Any:
    import pynvml

    return pynvml


def _health_of(nvml: Any, index: int) -> Health:
    return read_health(nvml, nvml.nvmlDeviceGetHandleByIndex(index), index)


def read_health(nvml: Any, handle: Any, index: int) -> Health:
    """The health of one GPU.

    Raises:
        GpuGoneError: it was lost meanwhile; it is not asked again.
    """
    ask = partial(_ask, nvml, handle)
    links, links_up = _nvlinks(ask)
    rows = ask("nvmlDeviceGetRemappedRows") or (None, None, None, None)
    rates = ask("nvmlDeviceGetUtilizationRates")
    reasons = ask("nvmlDeviceGetCurrentClocksEventReasons")
    if reasons is None:  # its name before driver 535
        reasons = ask("nvmlDeviceGetCurrentClocksThrottleReasons")
    persistence = ask("nvmlDeviceGetPersistenceMode")
    return Health(
        index=index,
        busy=None if rates is None else rates.gpu,
        pcie_gen=ask("nvmlDeviceGetCurrPcieLinkGeneration"),
        pcie_width=ask("nvmlDeviceGetCurrPcieLinkWidth"),
        pcie_gen_max=ask("nvmlDeviceGetMaxPcieLinkGeneration"),
        pcie_width_max=ask("nvmlDeviceGetMaxPcieLinkWidth"),
        nvlinks=links,
        nvlinks_up=links_up,
        ecc_errors=ask("nvmlDeviceGetTotalEccErrors", UNCORRECTED, SINCE_BOOT),
        retired_pages=_retired_pages(ask),
        remapped_pending=None if rows[2] is None else bool(rows[2]),
        remapped_failed=None if rows[3] is None else bool(rows[3]),
        persistence=None if persistence is None else bool(persistence),
        slowdowns=None if reasons is None else tuple(word for bit, word in SLOWDOWNS.items() if reasons & bit),
    )


def _ask(nvml: Any, handle: Any, function: str, *args: Any) -> Any:
    value, error = attempt(lambda: getattr(nvml, function)(handle, *args))
    if error is not None and nvidia.error_name(error) in nvidia.GONE:
        raise nvidia.GpuGoneError(nvidia.error_name(error))
    return value


def _nvlinks(ask: Callable[..., Any]) -> tuple[int | None, int | None]:
    """A link that does not exist answers an error; the first one does where there is no NVLink at all."""
    states = []
    for link in range(MOST_NVLINKS):
        state = ask("nvmlDeviceGetNvLinkState", link)
        if state is None:
            break
        states.append(bool(state))
    return (len(states), sum(states)) if states else (None, None)


def _retired_pages(ask: Callable[..., Any]) -> int | None:
    """For single-bit errors (0) and for double-bit errors (1)."""
    found = [pages for cause in (0, 1) if (pages := ask("nvmlDeviceGetRetiredPages", cause)) is not None]
    return sum(len(pages) for pages in found) if found else None


def installed_version(name: str) -> str | None:
    """The version of an installed distribution."""
    from importlib.metadata import PackageNotFoundError, version

    with suppress(PackageNotFoundError):
        return version(name)
    return None
