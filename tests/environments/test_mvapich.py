"""MVAPICH2, jsrun and Horovod, which were never run here, by the variables that their sources set."""

from __future__ import annotations

import pytest

from environments.contradictions import assert_is_rejected
from environments.typical import worker
from pluto_dist.environments import ProcessFacts, detect, horovod, jsm, mvapich
from pluto_dist.environments.topology import Topology

PREFIXES = {"mvapich": "MV2_COMM_WORLD_", "jsm": "JSM_NAMESPACE_", "horovod": "HOROVOD_"}
MODULES = {"mvapich": mvapich, "jsm": jsm, "horovod": horovod}
every_launcher = pytest.mark.parametrize("launcher", PREFIXES)


def rank(launcher: str, number: int = 1, local_size: int = 2) -> dict[str, str]:
    """The second rank of four, or of another node."""
    values = {"RANK": number, "SIZE": 4, "LOCAL_RANK": number % local_size, "LOCAL_SIZE": local_size}
    return {PREFIXES[launcher] + name: str(value) for name, value in values.items()}


@every_launcher
def test_the_place_of_a_rank(launcher):
    """Rank, world and local rank; the node is known only if all ranks are on one."""
    context = detect(rank(launcher, 3))
    assert (context.launcher, context.topology) == (launcher, Topology(3, 4, 1, 2))
    assert detect(rank(launcher, 3, local_size=4)).topology == Topology(3, 4, 3, 4, 0, 1)
    assert detect(rank(launcher) | {"MASTER_ADDR": "a", "MASTER_PORT": "7"}).hosted_address == ("a", 7)


@every_launcher
def test_whose_ranks_they_are(launcher):
    """torchrun within a rank starts ranks of its own; one rank, and a spawned child, are none of the launcher's."""
    assert detect(worker() | rank(launcher)).launcher == "torchrun"
    assert MODULES[launcher].detect(rank(launcher), ProcessFacts(spawned=True)) is None
    prefix = PREFIXES[launcher]
    assert detect({f"{prefix}RANK": "0", f"{prefix}SIZE": "1"}).launcher == "single"


@every_launcher
def test_an_environment_that_contradicts_itself(launcher):
    prefix = PREFIXES[launcher]
    assert_is_rejected({f"{prefix}RANK": "1"}, (f"{prefix}RANK is set", f"{prefix}SIZE is not"))
    assert_is_rejected({f"{prefix}RANK": "4", f"{prefix}SIZE": "4"}, (f"{prefix}RANK is 4",))
