"""Hydra's variables: contradictions, and where a store may be."""

from __future__ import annotations

import pytest

from environments.contradictions import assert_is_rejected
from environments.recorded import recorded
from pluto_dist.environments import detect

HYDRA = {"PMI_RANK": "1", "PMI_SIZE": "4"}
CONTRADICTIONS = {
    "no size": ({"PMI_RANK": "1"}, ("PMI_SIZE is not",)),
    "rank beyond": (HYDRA | {"PMI_RANK": "9"}, ("PMI_RANK is 9", "PMI_SIZE is 4")),
    "rank negative": (HYDRA | {"PMI_RANK": "-1"}, ("PMI_RANK", "'-1'")),
    "local rank beyond": (HYDRA | {"MPI_LOCALRANKID": "3", "MPI_LOCALNRANKS": "2"}, ("MPI_LOCALRANKID is 3",)),
    "local rank no number": (HYDRA | {"MPI_LOCALRANKID": ""}, ("MPI_LOCALRANKID", "''")),
}


@pytest.mark.parametrize(("environ", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_variables_that_contradict_each_other(environ, words):
    """An impossible place is an error with what was seen, and on its last line what to do."""
    assert_is_rejected(environ, words)


ADDRESSES = {
    "both given": (
        recorded("mpich4_two_nodes")[0] | {"MASTER_ADDR": "a", "MASTER_PORT": "29500"},
        ("a", 29500),
    ),
}


@pytest.mark.parametrize(("environ", "address"), ADDRESSES.values(), ids=ADDRESSES)
def test_where_rank_0_may_host_a_store(environ, address):
    """The address that the user gives, else none: mpirun gives the ranks of several nodes no common address."""
    assert detect(environ).hosted_address == address
