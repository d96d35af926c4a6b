"""The GPUs of a node, by vendor: one file per vendor, and which GPU each rank uses.

A new vendor is a module in this folder with a :class:`vendor.GpuVendor`, and an entry of :data:`VENDORS`. A vendor
outside of this package goes in front before ``init()`` is called, in every process of the job::

    gpu.VENDORS = (acme.VENDOR, *gpu.VENDORS)

>>> vendor_named("nvidia").link, vendor_named(None).title, vendor_named("unheard of").name
('nvlink', 'NVIDIA', 'nvidia')
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pluto_dist.inventory.gpu import nvidia
from pluto_dist.inventory.gpu.vendor import GpuVendor
from pluto_dist.inventory.records import GpuReport
from pluto_dist.inventory.safe_read import attempt, value_or_none

__all__ = ["VENDORS", "environment_prefixes", "local_vendor", "probe_gpus", "vendor_named"]

VENDORS: tuple[GpuVendor, ...] = (nvidia.VENDOR,)
"""A node has GPUs of one vendor: the first whose library finds GPUs or fails."""


def vendor_named(name: str | None) -> GpuVendor:
    """The vendor of a report or a document; for a name that is not registered, that of reports without one."""
    by_name = {vendor.name: vendor for vendor in VENDORS}
    return by_name.get(name or "") or by_name.get(GpuReport().vendor) or VENDORS[0]


def local_vendor(environ: Mapping[str, str]) -> GpuVendor:
    """The vendor of this node's GPUs without a call of its library: by device files, then by variables."""
    present = [vendor for vendor in VENDORS if len(VENDORS) > 1 and value_or_none(vendor.openable) is not None]
    named = [vendor for vendor in VENDORS if vendor.visible.listed(environ) is not None]
    return (*present, *named, vendor_named(None))[0]


def probe_gpus(asked: list[GpuVendor]) -> GpuReport:
    """The first report with GPUs or an error; without one, the first that names a driver. Never raises.

    Args:
        asked: filled with each vendor before its library is called, so that a caller knows which one blocks.
    """
    reports = []
    for vendor in VENDORS:
        asked.append(vendor)
        report, error = attempt(vendor.probe)
        found = replace(report or GpuReport(error=type(error).__name__), vendor=vendor.name)
        if found.error or found.count:
            return found
        reports.append(found)
    return next((report for report in reports if report.driver), reports[0] if reports else GpuReport(count=0))


def environment_prefixes() -> tuple[str, ...]:
    """Prefixes of the vendors' variables, which are recorded without secrets."""
    return tuple(prefix for vendor in VENDORS for prefix in vendor.env_prefixes)
