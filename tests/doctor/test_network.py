"""The checks of interfaces, host name and MASTER_ADDR."""

from __future__ import annotations

from dataclasses import replace

import pytest

from doctor.states import HOSTNAME, LOOPBACK, NETWORK, assert_finding, ids
from pluto_dist.doctor import Machine, network
from pluto_dist.doctor.network import NameFacts

TABLE = [
    ("gloo's interface", replace(NETWORK, gloo="eth0"), "ok", "GLOO_SOCKET_IFNAME=eth0"),
    ("gloo's interface", replace(NETWORK, gloo="eth1"), "problem", "no interface 'eth1'"),
    ("gloo's interface", replace(NETWORK, gloo="ib0"), "problem", "ib0 is down"),
    ("gloo's interface", replace(NETWORK, gloo="ib1"), "problem", "no address"),
    ("gloo's interface", replace(NETWORK, gloo="lo"), "problem", "several nodes"),
    ("gloo's interface", replace(NETWORK, gloo="lo", nodes=1), "ok", "lo"),
    ("gloo's interface", NETWORK, "not applicable", "not set"),
    ("NCCL's interface", replace(NETWORK, nccl="eth,ib"), "ok", "eth,ib"),
    ("NCCL's interface", replace(NETWORK, nccl="=eth"), "problem", "matches no interface"),
    ("NCCL's interface", replace(NETWORK, nccl="^eth"), "problem", "ib0 is down"),
    ("NCCL's interface", NETWORK, "not applicable", "not set"),
    ("host name", HOSTNAME, "ok", "node-a is 10.0.0.5"),
    ("host name", LOOPBACK, "problem", "127.0.1.1: the loopback"),
    ("host name", replace(LOOPBACK, network=replace(NETWORK, nodes=None)), "warning", "several nodes"),
    ("host name", replace(LOOPBACK, network=replace(NETWORK, nodes=1)), "ok", "one node"),
    ("host name", replace(LOOPBACK, network=replace(NETWORK, gloo="eth0")), "ok", "used instead"),
    ("host name", replace(HOSTNAME, addresses=("10.0.0.6",)), "problem", "no address of this machine"),
    ("host name", replace(HOSTNAME, addresses=(), error="Name or service not known"), "problem", "not resolve"),
    ("MASTER_ADDR", HOSTNAME, "ok", "node-a is 10.0.0.5"),
    ("MASTER_ADDR", replace(HOSTNAME, addresses=(), error="Name or service not known"), "problem", "not resolve"),
    ("MASTER_ADDR", replace(HOSTNAME, addresses=("127.0.0.1",)), "problem", "several nodes"),
    ("MASTER_ADDR", NameFacts(NETWORK, ""), "not applicable", "not set"),
]


@pytest.mark.parametrize(("name", "facts", "verdict", "text"), TABLE, ids=ids(TABLE))
def test_findings(name, facts, verdict, text):
    """Each check in its good and bad states."""
    assert_finding(name, facts, verdict, text)


def test_the_number_of_nodes():
    """One node, several, and a shell outside a job."""
    launch = {"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}
    groups = {"GROUP_RANK": "0", "GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    assert network.probe(Machine({})).nodes is None
    assert network.probe(Machine(launch | {"GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1"})).nodes == 1
    assert network.probe(Machine(launch | groups)).nodes == 2


def test_this_machine():
    """The loopback is up; a name that does not exist is a problem."""
    facts = network.probe(Machine({"GLOO_SOCKET_IFNAME": "lo"}))
    loopback = next(interface for interface in facts.interfaces if interface.name == "lo")
    assert loopback.is_up and "127.0.0.1" in loopback.addresses
    assert network.gloo_interface(facts).verdict == "ok"
    name = network.probe_rendezvous(Machine({"MASTER_ADDR": "nobody.invalid"}))
    assert network.rendezvous(name).verdict == "problem"
