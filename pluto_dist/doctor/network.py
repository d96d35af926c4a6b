"""Checks the network of a distributed job: interfaces for gloo and NCCL, the host name, and MASTER_ADDR."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pluto_dist.doctor.finding import CheckGroup, Finding, Machine, not_applicable, ok, problem, warning
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
class NetworkFacts:
    """Interfaces, and the variables that select them.

    Attributes:
        interfaces: all of the machine, sorted by name.
        gloo, nccl: values of GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME.
        nodes: number of nodes of the job; ``None`` if it is not known.
    """

    interfaces: tuple[Interface, ...] = ()
    gloo: str = ""
    nccl: str = ""
    nodes: int | None = None

    def usable(self) -> str:
        """The interfaces that the variables can be set to, as text."""
        names = [each.name for each in self.interfaces if each.is_up and _reaches_others(each)]
        return ", ".join(names) or "none is up"


@dataclass(frozen=True, slots=True)
class NameFacts:
    """The addresses of a host name. ``name`` is empty if it is not set; ``error`` is the resolver's."""

    network: NetworkFacts
    name: str
    addresses: tuple[str, ...] = ()
    error: str = ""


def probe(machine: Machine) -> NetworkFacts:
    names = value_or_none(lambda: sorted(path.name for path in (machine.root / "sys/class/net").iterdir())) or []
    addresses = _addresses()
    return NetworkFacts(
        tuple(Interface(name, _is_up(machine.root, name), addresses.get(name, ())) for name in names),
        machine.environ.get(GLOO, ""),
        machine.environ.get(NCCL, ""),
        _nodes(machine.environ),
    )


def probe_hostname(machine: Machine) -> NameFacts:
    return _resolve(machine, socket.gethostname())


def probe_rendezvous(machine: Machine) -> NameFacts:
    return _resolve(machine, machine.environ.get("MASTER_ADDR", ""))


def _resolve(machine: Machine, name: str) -> NameFacts:
    network = probe(machine)
    if not name:
        return NameFacts(network, name)
    found, error = attempt(lambda: socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found or ()))
    return NameFacts(network, name, addresses, str(getattr(error, "strerror", None) or error or ""))


def _is_up(root: Path, name: str) -> bool:
    """IFF_UP, which ``ip link`` shows as UP; not operstate, which is "unknown" for a loopback."""
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
        return None  # reported by the check of the run
    if context.topology.world_size == 1:
        return None  # not in a job, which may have several nodes
    return 1 if context.is_on_one_node else context.topology.node_count or 2


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _reaches_others(interface: Interface) -> bool:
    return any(not _is_loopback(address) for address in interface.addresses)


def gloo_interface(facts: NetworkFacts) -> Finding:
    if not facts.gloo:
        return not_applicable(f"{GLOO} is not set: gloo takes the address of the host's name")
    faults = [fault for name in facts.gloo.split(",") if (fault := _fault(facts, name))]
    return _interface_finding(facts, GLOO, facts.gloo, "; ".join(faults))


def nccl_interface(facts: NetworkFacts) -> Finding:
    """The value lists prefixes; ``=`` makes them full names, ``^`` excludes them (NCCL's environment variables)."""
    if not facts.nccl:
        return not_applicable(f"{NCCL} is not set: NCCL chooses")
    chosen = matching_interfaces(facts.nccl, [each.name for each in facts.interfaces])
    usable = [name for name in chosen if not _fault(facts, name)]
    faults = "; ".join(_fault(facts, name) for name in chosen) if chosen else "it matches no interface"
    return _interface_finding(facts, NCCL, facts.nccl, "" if usable else faults)


def matching_interfaces(value: str, names: list[str]) -> list[str]:
    """The interfaces of ``names`` that NCCL would use.

    >>> [matching_interfaces(value, ["eth0", "ib0"]) for value in ("eth", "^eth", "=eth")]
    [['eth0'], ['ib0'], []]
    """
    exclude, exact = value.startswith("^"), value.lstrip("^").startswith("=")
    words = [word.partition(":")[0] for word in value.lstrip("^=").split(",") if word]
    return [
        name
        for name in names
        if any(name == word if exact else name.startswith(word) for word in words) != exclude
        and not (exclude and name == "lo")
    ]


def _fault(facts: NetworkFacts, name: str) -> str:
    """Why gloo and NCCL cannot use the interface ``name``; empty if they can."""
    found = next((each for each in facts.interfaces if each.name == name), None)
    if found is None:
        return f"there is no interface {name!r}"
    if not found.is_up:
        return f"{name} is down"
    if not found.addresses:
        return f"{name} has no address"
    if (facts.nodes or 1) > 1 and not _reaches_others(found):
        return f"{name} is the loopback, and the job has several nodes"
    return ""


def _interface_finding(facts: NetworkFacts, variable: str, value: str, fault: str) -> Finding:
    if fault:
        return problem(f"{variable}={value}: {fault}", f"Set {variable} to one of: {facts.usable()}.")
    return ok(f"{variable}={value}")


def hostname(facts: NameFacts) -> Finding:
    """gloo binds the address of the host's name; with 127.0.1.1 (Debian's /etc/hosts) other nodes cannot connect. If
    binding fails, torch falls back to the loopback with a warning."""
    if facts.error:
        return _unusable_hostname(facts, f"{facts.name} does not resolve ({facts.error})")
    saw = f"{facts.name} is {', '.join(facts.addresses)}"
    own = {address for interface in facts.network.interfaces for address in interface.addresses}
    if all(_is_loopback(address) for address in facts.addresses):
        return _unusable_hostname(facts, f"{saw}: the loopback, where other nodes cannot connect")
    if not any(address in own and not _is_loopback(address) for address in facts.addresses):
        return _unusable_hostname(facts, f"{saw}: no address of this machine")
    return ok(saw)


def _unusable_hostname(facts: NameFacts, saw: str) -> Finding:
    fix = f"Set {GLOO} to one of: {facts.network.usable()}; or correct /etc/hosts."
    if facts.network.gloo:
        return ok(f"{saw}; {GLOO} is used instead")
    if facts.network.nodes is None:
        return warning(f"{saw}; gloo needs it in a job of several nodes", fix)
    return problem(saw, fix) if facts.network.nodes > 1 else ok(f"{saw}; this job has one node")


def rendezvous(facts: NameFacts) -> Finding:
    if not facts.name:
        return not_applicable("MASTER_ADDR is not set")
    if facts.error:
        return problem(
            f"MASTER_ADDR={facts.name} does not resolve ({facts.error})",
            "Set MASTER_ADDR to the address of rank 0's node, or correct the name server or /etc/hosts.",
        )
    is_address = facts.addresses == (facts.name,)
    saw = f"MASTER_ADDR={facts.name}" + ("" if is_address else f" is {', '.join(facts.addresses)}")
    if (facts.network.nodes or 1) > 1 and all(_is_loopback(address) for address in facts.addresses):
        return problem(
            f"{saw}: the loopback, and the job has several nodes", "Set MASTER_ADDR to rank 0's address in the network."
        )
    return ok(saw)


INTERFACES = CheckGroup(probe, (("gloo's interface", gloo_interface), ("NCCL's interface", nccl_interface)))
NO_NAME_SERVER = "The name server does not answer: check /etc/resolv.conf, or write the name into /etc/hosts."
HOSTNAME = CheckGroup(probe_hostname, (("host name", hostname),), NO_NAME_SERVER)
RENDEZVOUS = CheckGroup(probe_rendezvous, (("MASTER_ADDR", rendezvous),), NO_NAME_SERVER)
