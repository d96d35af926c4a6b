"""Physical network ports of this machine, from sysfs.

A port of an InfiniBand or RoCE adapter is listed once, under the name of the adapter; the Ethernet or IPoIB interface
of the same device is left out.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from pluto_dist.inventory.records import NIC_LIMIT, Nic
from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.serialization.text import parse_digits, record_text

ETHERNET = "1"  # <linux/if_arp.h>: ARPHRD_ETHER; IPoIB is 32
ACTIVE = "ACTIVE"  # the state of a port that is up


def probe(root: Path = Path("/")) -> tuple[Nic, ...]:
    """The ports of the machine whose sysfs is below ``root``, sorted by name, adapters first."""
    adapters = _entries(root / "sys/class/infiniband")
    interfaces = _entries(root / "sys/class/net")
    ports = [nic for adapter in adapters for nic in _adapter(adapter)]
    wired = [value_or_none(partial(_interface, interface)) for interface in interfaces]
    return tuple([*ports, *(nic for nic in wired if nic is not None)][:NIC_LIMIT])


def _entries(folder: Path) -> list[Path]:
    return sorted(value_or_none(lambda: list(folder.iterdir())) or (), key=lambda path: _natural_key(path.name))


def _natural_key(name: str) -> list[tuple[int, str]]:
    """A sort key that puts mlx5_2 before mlx5_10."""
    parts = ((part, parse_digits(part)) for part in re.split("([0-9]+)", name))
    return [(-1, part) if number is None else (number, "") for part, number in parts]


def _adapter(adapter: Path) -> list[Nic]:
    ports = _entries(adapter / "ports")
    return [_port(port, adapter.name if len(ports) == 1 else f"{adapter.name}:{port.name}") for port in ports]


def _port(port: Path, name: str) -> Nic:
    return Nic(
        name=record_text(name),
        layer=value_or_none(lambda: record_text((port / "link_layer").read_text())),
        rate_gbps=value_or_none(lambda: _rate((port / "rate").read_text())),
        state=value_or_none(lambda: _state((port / "state").read_text())),
        rdma=True,
    )


def _rate(text: str) -> float | None:
    """Gbit/s; a port that is down reports the rate of the slowest link, so 0 or little.

    >>> _rate("400 Gb/sec (4X NDR)\\n"), _rate("2.5 Gb/sec (1X SDR)"), _rate("")
    (400.0, 2.5, None)
    """
    found = re.match(r"\s*([\d.]+) Gb/sec", text)
    return float(found[1]) if found else None


def _state(text: str) -> str | None:
    """ "1: DOWN" as "DOWN"; "4: ACTIVE" as ``None``."""
    state = record_text(text.rpartition(":")[2])
    return None if state == ACTIVE else state


def _interface(interface: Path) -> Nic | None:
    """A physical Ethernet interface whose device is not an RDMA adapter; ``None`` for any other interface."""
    device = interface / "device"
    if not device.exists() or (device / "infiniband").exists():
        return None
    if (interface / "type").read_text().strip() != ETHERNET:
        return None
    mbps = value_or_none(lambda: int((interface / "speed").read_text()))  # EINVAL while it is down, -1 for unknown
    state = value_or_none(lambda: record_text((interface / "operstate").read_text()))
    return Nic(
        name=record_text(interface.name),
        layer="Ethernet",
        rate_gbps=mbps / 1000 if mbps and mbps > 0 else None,
        state=state.upper() if state not in (None, "up", "unknown") else None,
    )
