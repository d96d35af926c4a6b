"""Will the ranks of this node find the others? Interfaces for gloo and NCCL, and what the names mean here."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pluto_dist.doctor.family import Family, Machine
from pluto_dist.doctor.finding import Finding, not_applicable, ok, problem, warning
from pluto_dist.environments import detect
from pluto_dist.errors import PlutoDistError
from pluto_dist.inventory.safe_read import attempt, value_or_none

GLOO, NCCL = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"


@dataclass(frozen=True, slots=True)
class Interface:
    name: str
    is_up: bool
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkSeen:
    """Attributes: ``gloo`` and ``nccl`` are the variables' values; ``nodes`` is ``None`` where it is not known."""

    interfaces: tuple[Interface, ...] = ()
    gloo: str = ""
    nccl: str = ""
    nodes: int | None = None

    def usable(self) -> str:
        """The interfaces that could be named, for a fix."""
        names = [each.name for each in self.interfaces if each.is_up and _reaches_others(each)]
        return ", ".join(names) or "none is up"


@dataclass(frozen=True, slots=True)
class NameSeen:
    """What a host name resolves to here. ``name`` is empty where there is none; ``error`` is the resolver's."""

    network: NetworkSeen
    name: str
    addresses: tuple[str, ...] = ()
    error: str = ""


def look(machine: Machine) -> NetworkSeen:
    names = value_or_none(lambda: sorted(path.name for path in (machine.root / "sys/class/net").iterdir())) or []
    addresses = _addresses()
    return NetworkSeen(
        tuple(Interface(name, _is_up(machine.root, name), addresses.get(name, ())) for name in names),
        machine.environ.get(GLOO, ""),
        machine.environ.get(NCCL, ""),
        _nodes(machine.environ),
    )


def look_at_hostname(machine: Machine) -> NameSeen:
    return _named(machine, socket.gethostname())


def look_at_rendezvous(machine: Machine) -> NameSeen:
    return _named(machine, machine.environ.get("MASTER_ADDR", ""))


def _named(machine: Machine, name: str) -> NameSeen:
    network = look(machine)
    if not name:
        return NameSeen(network, name)
    found, error = attempt(lambda: socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found or ()))
    return NameSeen(network, name, addresses, str(getattr(error, "strerror", None) or error or ""))


def _is_up(root: Path, name: str) -> bool:
    """IFF_UP: what ``ip link`` shows as UP. A loopback's operstate is "unknown", so that does not tell."""
    flags = value_or_none(lambda: int((root / "sys/class/net" / name / "flags").read_text(), 16))
    return bool((flags or 0) & 1)


def _addresses() -> Mapping[str, tuple[str, ...]]:
    import psutil

    families = (socket.AF_INET, socket.AF_INET6)
    return {
        name: tuple(each.address.partition("%")[0] for each in addresses if each.family in families)
        for name, addresses in psutil.net_if_addrs().items()
    }


def _nodes(environ: Mapping[str, str]) -> int | None:
    try:
        context = detect(environ)
    except PlutoDistError:
        return None  # the check of the run says so
    if context.topology.world_size == 1:
        return None  # no job yet: it may have several nodes
    return 1 if context.is_on_one_node else context.topology.node_count or 2


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _reaches_others(interface: Interface) -> bool:
    return any(not _is_loopback(address) for address in interface.addresses)


def gloo_interface(seen: NetworkSeen) -> Finding:
    if not seen.gloo:
        return not_applicable(f"{GLOO} is not set: gloo takes the address of the host's name")
    faults = [fault for name in seen.gloo.split(",") if (fault := _fault(seen, name))]
    return _named_interfaces(seen, GLOO, seen.gloo, "; ".join(faults))


def nccl_interface(seen: NetworkSeen) -> Finding:
    """NCCL takes prefixes; ``=`` makes them whole names, ``^`` excludes them (NCCL's manual, environment variables)."""
    if not seen.nccl:
        return not_applicable(f"{NCCL} is not set: NCCL chooses")
    chosen = matching(seen.nccl, [each.name for each in seen.interfaces])
    usable = [name for name in chosen if not _fault(seen, name)]
    faults = "; ".join(_fault(seen, name) for name in chosen) if chosen else "it matches no interface"
    return _named_interfaces(seen, NCCL, seen.nccl, "" if usable else faults)


def matching(value: str, names: list[str]) -> list[str]:
    """The interfaces that NCCL would consider.

    >>> matching("eth", ["eth0", "ib0"]), matching("^eth", ["eth0", "ib0"]), matching("=eth", ["eth0", "ib0"])
    (['eth0'], ['ib0'], [])
    """
    exclude, exact = value.startswith("^"), value.lstrip("^").startswith("=")
    words = [word.partition(":")[0] for word in value.lstrip("^=").split(",") if word]
    return [
        name
        for name in names
        if any(name == word if exact else name.startswith(word) for word in words) != exclude
        and not (exclude and name == "lo")
    ]


def _fault(seen: NetworkSeen, name: str) -> str:
    """Why gloo or NCCL cannot use the interface ``name``; empty where they can."""
    found = next((each for each in seen.interfaces if each.name == name), None)
    if found is None:
        return f"there is no interface {name!r}"
    if not found.is_up:
        return f"{name} is down"
    if not found.addresses:
        return f"{name} has no address"
    if (seen.nodes or 1) > 1 and not _reaches_others(found):
        return f"{name} is the loopback, and the job has several nodes"
    return ""


def _named_interfaces(seen: NetworkSeen, variable: str, value: str, fault: str) -> Finding:
    if fault:
        return problem(f"{variable}={value}: {fault}", f"Set {variable} to one of: {seen.usable()}.")
    return ok(f"{variable}={value}")


def hostname(seen: NameSeen) -> Finding:
    """gloo binds the address that the host's own name resolves to: 127.0.1.1 in Debian's /etc/hosts, and then the
    other nodes cannot connect. Where that fails, torch falls back to the loopback with a warning."""
    if seen.error:
        return _useless_hostname(seen, f"{seen.name} does not resolve ({seen.error})")
    saw = f"{seen.name} is {', '.join(seen.addresses)}"
    own = {address for interface in seen.network.interfaces for address in interface.addresses}
    if all(_is_loopback(address) for address in seen.addresses):
        return _useless_hostname(seen, f"{saw}: the loopback, where other nodes cannot connect")
    if not any(address in own and not _is_loopback(address) for address in seen.addresses):
        return _useless_hostname(seen, f"{saw}: no address of this machine")
    return ok(saw)


def _useless_hostname(seen: NameSeen, saw: str) -> Finding:
    fix = f"Set {GLOO} to one of: {seen.network.usable()}; or correct /etc/hosts."
    if seen.network.gloo:
        return ok(f"{saw}; {GLOO} is used instead")
    if seen.network.nodes is None:
        return warning(f"{saw}; gloo needs it in a job of several nodes", fix)
    return problem(saw, fix) if seen.network.nodes > 1 else ok(f"{saw}; this job has one node")


def rendezvous(seen: NameSeen) -> Finding:
    if not seen.name:
        return not_applicable("MASTER_ADDR is not set")
    if seen.error:
        return problem(
            f"MASTER_ADDR={seen.name} does not resolve ({seen.error})",
            "Set MASTER_ADDR to the address of rank 0's node, or correct the name server or /etc/hosts.",
        )
    saw = f"MASTER_ADDR={seen.name}" + ("" if (seen.name,) == seen.addresses else f" is {', '.join(seen.addresses)}")
    if (seen.network.nodes or 1) > 1 and all(_is_loopback(address) for address in seen.addresses):
        return problem(
            f"{saw}: the loopback, and the job has several nodes", "Set MASTER_ADDR to rank 0's address in the network."
        )
    return ok(saw)


INTERFACES = Family(look, (("gloo's interface", gloo_interface), ("NCCL's interface", nccl_interface)))
NO_NAME_SERVER = "The name server does not answer: check /etc/resolv.conf, or write the name into /etc/hosts."
HOSTNAME = Family(look_at_hostname, (("host name", hostname),), NO_NAME_SERVER)
RENDEZVOUS = Family(look_at_rendezvous, (("MASTER_ADDR", rendezvous),), NO_NAME_SERVER)
