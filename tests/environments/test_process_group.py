"""Spawned processes: their places come from the process group, or they get an error."""

from __future__ import annotations

import pytest

from environments.typical import worker
from pluto_dist.environments import ProcessFacts, detect
from pluto_dist.environments.topology import Topology
from pluto_dist.errors import NoSharedRunError

STALE = {"RANK": "0", "WORLD_SIZE": "1"}


@pytest.mark.parametrize("environ", [{}, worker(), STALE, {"RANK": "x"}], ids=["bare", "of a worker", "stale", "odd"])
def test_a_rank_that_torch_spawned_without_a_group_is_an_error(environ):
    """A spawned child inherits variables that describe its parent; the error says what to call first."""
    with pytest.raises(NoSharedRunError, match="init_process_group"):
        detect(environ, ProcessFacts(spawned=True, starts_ranks=True))


def test_another_spawned_child():
    """A child of a rank has no part; one of a process without a launcher is a process as any other."""
    assert not detect(worker(), ProcessFacts(spawned=True)).has_part
    alone = detect({}, ProcessFacts(spawned=True))
    assert (alone.launcher, alone.has_part) == ("single", True)


@pytest.mark.parametrize("environ", [{}, worker(), STALE, {"RANK": "x"}], ids=["bare", "of a worker", "stale", "odd"])
def test_a_spawned_child_with_a_group(environ):
    """The group gives the place, whatever the inherited variables are."""
    context = detect(environ, ProcessFacts(group=Topology(3, 4), spawned=True))
    assert (context.launcher, context.topology) == ("process_group", Topology(3, 4))
