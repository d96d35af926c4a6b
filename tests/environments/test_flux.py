"""Flux's variables, as its documentation lists them; no real Flux was run."""

from __future__ import annotations

import pytest

from environments.contradictions import assert_is_rejected
from environments.recorded import recorded
from environments.typical import worker
from pluto_dist.environments import ProcessFacts, detect, flux
from pluto_dist.environments.topology import Topology
from pluto_dist.errors import NoSharedRunError
from pluto_dist.identity import NeedsLaunchToken, decide


def task(rank: int = 1, **changes: str | None) -> dict[str, str]:
    """One task of ``flux run -N1 -n4`` with changes; ``None`` removes a variable."""
    merged = {
        "FLUX_JOB_ID": "ƒ2oZkRT4kX",
        "FLUX_JOB_SIZE": "4",
        "FLUX_JOB_NNODES": "1",
        "FLUX_TASK_RANK": str(rank),
        "FLUX_TASK_LOCAL_ID": str(rank),
        "FLUX_KVS_NAMESPACE": "job-1",
        "FLUX_URI": "local:///run/flux/local",
        "PMI_RANK": str(rank),
        "PMI_SIZE": "4",
        "PMI_FD": "20",
        **changes,
    }
    return {name: value for name, value in merged.items() if value is not None}


ON_TWO_NODES = [task(rank, FLUX_JOB_NNODES="2", FLUX_TASK_LOCAL_ID=str(rank % 2)) for rank in range(4)]
OF_ONE_TASK = task(0, FLUX_JOB_SIZE="1", PMI_SIZE="1")


def test_tasks_on_one_node():
    """A job on one node has every number: all tasks are on node 0."""
    assert [detect(task(rank)).topology for rank in range(4)] == [Topology(rank, 4, rank, 4, 0, 1) for rank in range(4)]
    assert detect(task()).is_on_one_node


@pytest.mark.parametrize("nodes", ["2", None])
def test_tasks_on_nodes_without_numbers(nodes):
    """On several nodes no variable says which node it is, or how many tasks it has: both are unknown."""
    for rank, environ in enumerate(ON_TWO_NODES):
        changed = {**environ, "FLUX_JOB_NNODES": nodes} if nodes else task(rank, FLUX_JOB_NNODES=None)
        topology = detect(changed).topology
        assert topology == Topology(rank, 4, int(changed["FLUX_TASK_LOCAL_ID"]))
        assert not detect(changed).is_on_one_node


@pytest.mark.parametrize("ranks", [[task(rank) for rank in range(4)], ON_TWO_NODES], ids=["one node", "two nodes"])
def test_tasks_of_a_job_agree(ranks):
    """The facts that decide the store of the ranks and the id of their run are the same on all of them."""
    found = [detect(environ) for environ in ranks]
    assert (
        len({(c.launcher, c.hosted_address, c.is_on_one_node, c.scope, c.worker_marks, c.variables) for c in found})
        == 1
    )
    assert all(set(found[0].worker_marks) <= environ.keys() for environ in ranks)
    assert {decide(context) for context in found} == {
        NeedsLaunchToken("flux", "a token of this launch: it has no rendezvous id", "no agent")
    }


STARTERS = {
    "flux-shell": {"FLUX_URI": "local:///run/flux/local"},
    "flux-shell of an instance in a task": {"FLUX_JOB_ID": "ƒouter", "FLUX_TASK_RANK": "1", "FLUX_JOB_SIZE": "4"},
}


@pytest.mark.parametrize("ancestor", STARTERS.values(), ids=STARTERS)
def test_what_started_the_tasks_differs_in_the_marks(ancestor):
    """The process that started a node's tasks differs from every one of them in a mark."""
    for rank in range(4):
        environ = task(rank)
        assert any(ancestor.get(mark) != environ[mark] for mark in detect(environ).worker_marks)


ADDRESSES = {
    "none given": (task(), None),
    "several nodes": (ON_TWO_NODES[0], None),
    "both given": (task(MASTER_ADDR="a", MASTER_PORT="29500"), ("a", 29500)),
    "address alone": (task(MASTER_ADDR="a"), None),
}


@pytest.mark.parametrize(("environ", "address"), ADDRESSES.values(), ids=ADDRESSES)
def test_where_rank_0_may_host_a_store(environ, address):
    """The address that the user gives, else none: Flux gives the tasks of several nodes no common address."""
    assert detect(environ).hosted_address == address


WHOSE = {
    "with PMI": (task(), "flux"),
    "-opmi=none": (task(PMI_RANK=None, PMI_SIZE=None, PMI_FD=None), "flux"),
    "an instance that srun started": (recorded("slurm_two_nodes")[0] | task(), "flux"),
    "mpirun in a task": (task() | recorded("openmpi4_one_node")[1], "openmpi"),
    "torchrun in a task": (task() | worker(), "torchrun"),
    "RANK and WORLD_SIZE alike": (task(RANK="1", WORLD_SIZE="4"), "flux"),
    "RANK and WORLD_SIZE of other ranks": (task(RANK="9", WORLD_SIZE="16"), "environment"),
    "one task": (OF_ONE_TASK, "single"),
    "mpirun in a job of one task": (OF_ONE_TASK | recorded("mpich4_one_node")[1], "hydra"),
    "the script of flux batch": ({"FLUX_URI": "local:///run/flux/local", "FLUX_ENCLOSING_ID": "ƒ2"}, "single"),
}


@pytest.mark.parametrize(("environ", "launcher"), WHOSE.values(), ids=WHOSE)
def test_whose_ranks_they_are(environ, launcher):
    """Flux goes before the PMI that it provides, and gives way to a launcher within a task."""
    assert detect(environ).launcher == launcher


def test_a_spawned_child_is_not_a_task():
    """A child that multiprocessing started inherits its parent's variables, and is none of Flux's tasks."""
    assert flux.detect(task(), ProcessFacts(spawned=True)) is None
    assert not detect(task(), ProcessFacts(spawned=True)).has_part
    with pytest.raises(NoSharedRunError):
        detect(task(), ProcessFacts(spawned=True, starts_ranks=True))
    assert detect(task(), ProcessFacts(group=Topology(0, 2), spawned=True)).topology == Topology(0, 2)


@pytest.mark.parametrize(("group", "launcher"), [(Topology(1, 2), "process_group"), (Topology(1, 4), "flux")])
def test_a_world_that_the_script_divided(group, launcher):
    """A process group of other ranks than Flux started is a world of its own; one of the same ranks is not."""
    assert detect(task(), ProcessFacts(group=group)).launcher == launcher


def test_a_job_id_alone_does_not_name_a_run_for_resume():
    """A job that is submitted again has another id: there is no scope, only a variable for errors."""
    context = detect(task())
    assert context.scope is None
    assert context.variables == (("FLUX_JOB_ID", "ƒ2oZkRT4kX"),)


CONTRADICTIONS = {
    "no size": (task(FLUX_JOB_SIZE=None), ("FLUX_JOB_SIZE is not", "'1'", "flux run")),
    "no rank": (task(FLUX_TASK_RANK=None), ("FLUX_TASK_RANK is not", "'4'")),
    "rank beyond": (task(FLUX_TASK_RANK="4"), ("FLUX_TASK_RANK is 4", "FLUX_JOB_SIZE is 4", "unchanged")),
    "a world of none": (task(0, FLUX_JOB_SIZE="0"), ("FLUX_JOB_SIZE is 0",)),
    "rank no number": (task(FLUX_TASK_RANK="one"), ("FLUX_TASK_RANK", "'one'")),
    "nodes no number": (task(FLUX_JOB_NNODES="n1"), ("FLUX_JOB_NNODES", "'n1'")),
    "local rank no number": (task(FLUX_TASK_LOCAL_ID=""), ("FLUX_TASK_LOCAL_ID", "''")),
    "local rank beyond": (task(FLUX_TASK_LOCAL_ID="4"), ("local_rank is 4", "local_world_size is 4")),
    "RANK of another rank": (task(RANK="9"), ("RANK is set", "WORLD_SIZE is not")),
}


@pytest.mark.parametrize(("environ", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_variables_that_contradict_each_other(environ, words):
    """An impossible place is an error with what was seen, and on its last line what to do."""
    assert_is_rejected(environ, words)
