"""Which network ports has this machine, and how fast are they? From sysfs; virtual ones are left out.

InfiniBand and RoCE adapters stand under their adapter's name, once: the Ethernet or IPoIB interface of the same
device is not told again.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from .decoding import NIC_LIMIT, clean
from .reading import known
from .records import Nic

ETHERNET = "1"  # <linux/if_arp.h>: ARPHRD_ETHER; IPoIB is 32
USUAL = "ACTIVE"


def probe(root: Path = Path("/")) -> tuple[Nic, ...]:
    """The ports of the machine whose sysfs is under ``root``, by name; adapters first."""
    adapters = _entries(root / "sys/class/infiniband")
    interfaces = _entries(root / "sys/class/net")
    ports = [nic for adapter in adapters for nic in _adapter(adapter)]
    wired = [known(partial(_interface, interface)) for interface in interfaces]
    return tuple([*ports, *(nic for nic in wired if nic is not None)][:NIC_LIMIT])


def _entries(folder: Path) -> list[Path]:
    return sorted(known(lambda: list(folder.iterdir())) or (), key=lambda path: _natural(path.name))


def _natural(name: str) -> list[tuple[int, str]]:
    """mlx5_2 before mlx5_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _adapter(adapter: Path) -> list[Nic]:
    ports = _entries(adapter / "ports")
    return [_port(port, adapter.name if len(ports) == 1 else f"{adapter.name}:{port.name}") for port in ports]


def _port(port: Path, name: str) -> Nic:
    return Nic(
        name=clean(name),
        layer=known(lambda: clean((port / "link_layer").read_text())),
        rate_gbps=known(lambda: _rate((port / "rate").read_text())),
        state=known(lambda: _state((port / "state").read_text())),
        rdma=True,
    )


def _rate(text: str) -> float | None:
    """Of a port that is down, the rate is that of the slowest link, so 0 or little.

    >>> _rate("400 Gb/sec (4X NDR)\\n"), _rate("2.5 Gb/sec (1X SDR)"), _rate("")
    (400.0, 2.5, None)
    """
    found = re.match(r"\s*([\d.]+) Gb/sec", text)
    return float(found[1]) if found else None


def _state(text: str) -> str | None:
    """ "4: ACTIVE" as ``None``, which is the usual; "1: DOWN" as "DOWN"."""
    state = clean(text.rpartition(":")[2])
    return None if state == USUAL else state


def _interface(interface: Path) -> Nic | None:
    """An Ethernet interface that has a device of its own which is no adapter told of before."""
    device = interface / "device"
    if not device.exists() or (device / "infiniband").exists():
        return None
    if (interface / "type").read_text().strip() != ETHERNET:
        return None
    mbps = known(lambda: int((interface / "speed").read_text()))  # EINVAL while it is down, -1 for unknown
    state = known(lambda: clean((interface / "operstate").read_text()))
    return Nic(
        name=clean(interface.name),
        layer="Ethernet",
        rate_gbps=mbps / 1000 if mbps and mbps > 0 else None,
        state=state.upper() if state not in (None, "up", "unknown") else None,
    )
