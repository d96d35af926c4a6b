"""Open MPI's variables: contradictions, and where a store may be."""

from __future__ import annotations

import pytest

from environments.contradictions import assert_is_rejected
from environments.recorded import recorded
from pluto_dist.environments import detect

OPENMPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4"}
CONTRADICTIONS = {
    "no size": ({"OMPI_COMM_WORLD_RANK": "1"}, ("OMPI_COMM_WORLD_SIZE is not", "'1'", "mpirun")),
    "no rank": ({"OMPI_COMM_WORLD_SIZE": "4"}, ("OMPI_COMM_WORLD_RANK is not", "'4'")),
    "rank beyond": (OPENMPI | {"OMPI_COMM_WORLD_RANK": "4"}, ("RANK is 4", "SIZE is 4", "unchanged")),
    "a world of none": (OPENMPI | {"OMPI_COMM_WORLD_SIZE": "0"}, ("SIZE is 0",)),
    "rank no number": (OPENMPI | {"OMPI_COMM_WORLD_RANK": "one"}, ("OMPI_COMM_WORLD_RANK", "'one'")),
    "local rank beyond": (
        OPENMPI | {"OMPI_COMM_WORLD_LOCAL_RANK": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
        ("LOCAL_RANK is 2", "LOCAL_SIZE is 2", "unset these two"),
    ),
    "node beyond the world": (OPENMPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "5"}, ("LOCAL_SIZE is 5", "of 4")),
    "an empty node": (OPENMPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "0"}, ("LOCAL_SIZE is 0",)),
}


@pytest.mark.parametrize(("environ", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_variables_that_contradict_each_other(environ, words):
    """An impossible place is an error with what was seen, and on its last line what to do."""
    assert_is_rejected(environ, words)


ADDRESSES = {
    "none given": (recorded("openmpi4_two_nodes")[0], None),
    "both given": (
        recorded("openmpi4_two_nodes")[0] | {"MASTER_ADDR": "a", "MASTER_PORT": "29500"},
        ("a", 29500),
    ),
}


@pytest.mark.parametrize(("environ", "address"), ADDRESSES.values(), ids=ADDRESSES)
def test_where_rank_0_may_host_a_store(environ, address):
    """The address that the user gives, else none: mpirun gives the ranks of several nodes no common address."""
    assert detect(environ).hosted_address == address
