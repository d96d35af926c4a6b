"""Lightning's own launcher: the variables that Lightning 2.6.6 set in the parent and in the children of a real job."""

from __future__ import annotations

import os

import pytest

from pluto_dist.environments import ProcessFacts, detect
from pluto_dist.environments.process_facts import ParentRun
from pluto_dist.environments.topology import Topology
from pluto_dist.errors import LauncherError

PLACE = {"WORLD_SIZE": "4", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "35401"}
CHILD, PARENT = {**PLACE, "LOCAL_RANK": "1"}, {**PLACE, "LOCAL_RANK": "0"}
RUN = ParentRun(f"{os.getppid()} 1", "single-aaa", store="/proc/7/fd/3", is_direct=True)


def test_ranks_of_the_first_node():
    """Parent and child know their ranks once the parent has launched, and that rank 0 hosts the store."""
    for environ, rank in ((PARENT, 0), (CHILD, 1)):
        context = detect(environ)
        assert (context.launcher, context.topology) == ("lightning", Topology(rank, 4, local_rank=rank))
        assert context.hosted_address == ("127.0.0.1", 35401)


def test_a_rank_of_another_node():
    """Its rank does not follow from the variables: the process group knows it, else the error says what to do."""
    environ = {**CHILD, "NODE_RANK": "1"}
    with pytest.raises(LauncherError, match=r"(?s)NODE_RANK is 1.*fabric.launch"):
        detect(environ)
    context = detect(environ, ProcessFacts(group=Topology(3, 4)))
    assert (context.launcher, context.topology) == ("process_group", Topology(3, 4))


@pytest.mark.parametrize("group", [None, Topology(1, 4)])
def test_a_rank_whose_parent_has_a_run(group):
    """It joins that run, with or without a process group."""
    context = detect(CHILD, ProcessFacts(parent=RUN, group=group))
    assert (context.parent_store, context.topology.rank, context.has_part) == ("/proc/7/fd/3", 1, True)


@pytest.mark.parametrize("parent", [ParentRun("7 1", "a", store="x"), ParentRun("7 1", "a", is_direct=True)])
def test_a_rank_whose_parent_is_itself_a_child_of_one(parent):
    """A run of an older ancestor, or of a rank of another launcher, is not the parent's to hand on."""
    context = detect(CHILD, ProcessFacts(parent=parent))
    assert (context.parent_store, context.has_part) == (None, False)


def test_the_next_run_of_the_parent():
    """The parent keeps the store that its children have, although Lightning's variables are set by then."""
    assert detect(PARENT, ProcessFacts(began_alone=True)).launcher == "single"
