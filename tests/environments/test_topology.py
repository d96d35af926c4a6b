"""Places of a worker: the possible ones are kept as they are, the others are errors."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluto_dist.environments.topology import Topology, node_place
from pluto_dist.errors import LauncherError

POSSIBLE = [
    (0, 1),
    (3, 4),
    (3, 4, 0),
    (3, 4, 1, 2),
    (3, 4, 0, 2, 1, 2),
    (3, 4, None, 2),
    (3, 4, None, None, 1),
    (0, 1, 0, 1, 0, 1),
    (0, 4, 9),
]


@pytest.mark.parametrize("place", POSSIBLE, ids=str)
def test_possible_places(place):
    """What the launcher gave is kept; what it did not give is None."""
    given_fields = dataclasses.astuple(Topology(*place))
    assert given_fields == (*place, *[None] * (6 - len(place)))


IMPOSSIBLE = {
    "rank": ((4, 4), "rank is 4 but world_size is 4"),
    "a rank below 0": ((-1, 4), "rank is -1 but world_size is 4"),
    "a world of none": ((0, 0), "rank is 0 but world_size is 0"),
    "local rank": ((3, 4, 2, 2), "local_rank is 2 but local_world_size is 2"),
    "a node without ranks": ((3, 4, None, 0), "local_rank is None but local_world_size is 0"),
    "node": ((3, 4, 0, 2, 2, 2), "node_rank is 2 but node_count is 2"),
    "no nodes": ((3, 4, 0, 2, 0, 0), "node_rank is 0 but node_count is 0"),
    "nodes without this one": ((3, 4, 0, 2, None, 2), "node_count is 2 but node_rank is unknown"),
    "one node without this one": ((3, 4, 0, 2, None, 1), "node_count is 1 but node_rank is unknown"),
}


@pytest.mark.parametrize(("place", "seen"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_places(place, seen):
    """The error says what was seen, and on its last line what to do; replace() checks too."""
    with pytest.raises(LauncherError) as caught:
        Topology(*place)
    problem, fix = str(caught.value).split("\n")
    assert problem.startswith(seen)
    assert "unchanged" in fix
    names = [field.name for field in dataclasses.fields(Topology)]
    with pytest.raises(LauncherError):
        dataclasses.replace(Topology(0, 9), **dict(zip(names, place, strict=False)))


@given(rank=st.none() | st.integers(0, 9), count=st.none() | st.integers(1, 9))
def test_a_number_of_nodes_is_known_with_the_nodes_own_only(rank, count):
    """Whatever a launcher knows of its nodes, the result is a possible place, unless the node is beyond the count."""
    if rank is not None and count is not None and rank >= count:
        return
    node_rank, node_count = node_place(rank, count)
    topology = Topology(0, 9, node_rank=node_rank, node_count=node_count)
    assert topology.node_count in (count, None)
    assert (topology.node_count is None) or topology.node_rank is not None
    assert count != 1 or topology.node_rank == 0
