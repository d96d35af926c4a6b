"""srun's variables: the layout of a step, its first host, the port that its ranks derive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from environments.contradictions import assert_is_rejected
from environments.recorded import recorded
from environments.typical import task
from pluto_dist.environments import detect, slurm
from pluto_dist.environments.topology import Topology
from pluto_dist.errors import LauncherError

ADDRESSES = {
    # name: (environment, where rank 0 may host a store)
    "two nodes": (task(), ("n1", 25005)),
    "cyclic": (recorded("slurm_cyclic")[1], ("n1", 25007)),
    "plane": (recorded("slurm_plane")[2], ("n1", 25022)),
    "arbitrary: rank 0 is on n2": (recorded("slurm_arbitrary")[0], None),
    "groups in reverse: rank 0 is on n2": (recorded("slurm_heterogeneous_reversed")[0], None),
    "one node": (recorded("slurm_one_node")[0], None),
    "number of nodes unknown": (task(SLURM_STEP_NUM_NODES=None), None),
    "both given": (task(MASTER_ADDR="10.0.0.7", MASTER_PORT="29500"), ("10.0.0.7", 29500)),
    "both given, one node": (
        recorded("slurm_one_node")[0] | {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"},
        ("localhost", 29500),
    ),
    "address alone": (task(MASTER_ADDR="ib-n1"), ("ib-n1", 25005)),
    "port alone": (task(MASTER_PORT="29500"), ("n1", 29500)),
    "address alone, arbitrary": (task(MASTER_ADDR="n2", SLURM_DISTRIBUTION="arbitrary"), ("n2", 25005)),
    "address alone, heterogeneous": (task(MASTER_ADDR="n2", SLURM_HET_SIZE="2"), ("n2", 25005)),
    "port alone, arbitrary": (task(MASTER_PORT="29500", SLURM_DISTRIBUTION="arbitrary"), None),
    "another step": (task(SLURM_STEP_ID="1"), ("n1", 26014)),
    "a step without a job": (task(SLURM_JOB_ID=None), None),
    "no list of nodes": (task(SLURM_STEP_NODELIST=None), None),
    "a list that cannot be read": (task(SLURM_STEP_NODELIST="n[1-2"), None),
    "number of the node unknown": (task(SLURM_NODEID=None), ("n1", 25005)),
}


@pytest.mark.parametrize(("environ", "address"), ADDRESSES.values(), ids=ADDRESSES)
def test_where_rank_0_may_host_a_store(environ, address):
    """The address that the user gives; else one on the node of rank 0, if Slurm's layout leaves no doubt; else none."""
    assert detect(environ).hosted_address == address


def test_two_nodes_without_the_nodes_own_number():
    """Without SLURM_NODEID the number of nodes is left out too: no node is recorded as missing."""
    environ = task(SLURM_NODEID=None)
    assert environ["SLURM_STEP_NUM_NODES"] == "2"
    assert detect(environ).topology == Topology(0, 4, 0, None, None, None)
    assert not detect(environ).is_on_one_node


def test_one_node_without_its_number():
    """A single node is node 0, with SLURM_NODEID or without."""
    for environ in recorded("slurm_one_node"):
        context = detect({name: value for name, value in environ.items() if name != "SLURM_NODEID"})
        assert context == detect(environ)
        assert (context.topology.node_rank, context.topology.node_count) == (0, 1)


@pytest.mark.parametrize("text", ["3", "4"])
def test_a_layout_is_checked_without_the_nodes_number(text):
    """Tasks and nodes of the layout are compared with the step's also if SLURM_NODEID is not set."""
    with pytest.raises(LauncherError, match="SLURM_STEP_TASKS_PER_NODE is"):
        detect(task(SLURM_NODEID=None, SLURM_STEP_TASKS_PER_NODE=text))


JOB_IDS = st.integers(1, 2**32 - 1)


@given(job=JOB_IDS, other=st.integers(1, 4_999), step=st.integers(0, 2**32 - 1))
def test_jobs_at_the_same_time_have_different_ports(job, other, step):
    """Any job has a port in the range, and the next 4,999 jobs have others."""
    ports = [
        detect(task(SLURM_JOB_ID=str(number), SLURM_STEP_ID=str(step))).hosted_address[1]
        for number in (job, job + other)
    ]
    assert all(25_000 <= port < 30_000 for port in ports)
    assert ports[0] != ports[1]


HOSTS = {
    "n1": "n1",
    "n[1-2]": "n1",
    "n[01-04,07],gpu3": "n01",
    "gpu3,n[1-2]": "gpu3",
    "n[7,1-3]": "n7",
    "n[0001-9999]": "n0001",
    "r[2-3]n[0-7]": "r2n0",
    "dgx-a100-[3]": "dgx-a100-3",
    "n1.cluster.example": "n1.cluster.example",
    "": None,
    ",n1": None,
    "n[": None,
    "n[1-2": None,
    "n]1": None,
    "n[]": None,
    "n[a-b]": None,
    "[": None,
}


@pytest.mark.parametrize(("node_list", "host"), HOSTS.items(), ids=repr)
def test_the_first_host_of_a_list(node_list, host):
    """The first host as Slurm would write it out, its zeros kept; nothing for what is no list."""
    assert slurm.first_host(node_list) == host


@given(
    prefix=st.from_regex(r"[a-z][a-z-]{0,8}", fullmatch=True),
    first=st.integers(0, 9_999),
    width=st.integers(1, 6),
    more=st.lists(st.sampled_from(["1-4", "7", "003-009"]), max_size=3),
    after=st.sampled_from(["", ",gpu3", ",x[1-2]", ",x[1-2],y"]),
)
def test_the_first_host_of_any_list(prefix, first, width, more, after):
    """What stands behind the first number of the first entry changes nothing."""
    number = f"{first:0{width}}"
    listed = f"{prefix}[{','.join([number, *more])}]{after}"
    assert slurm.first_host(listed) == prefix + number


@given(text=st.text(st.sampled_from("n12[],-(x)"), max_size=16))
def test_any_list_is_read_or_not(text):
    """A list that cannot be read gives nothing; a host that is given has no brackets and no comma."""
    host = slurm.first_host(text)
    assert host is None or not {"[", "]", ","} & set(host)
    slurm.tasks_per_node(text)


@given(layout=st.lists(st.tuples(st.integers(0, 999), st.integers(1, 99)), min_size=1, max_size=6))
def test_tasks_per_node_both_ways(layout):
    """The short form of Slurm means what it was made of, with and without (x1)."""
    written = ",".join(f"{tasks}(x{nodes})" if nodes > 1 else str(tasks) for tasks, nodes in layout)
    assert slurm.tasks_per_node(written) == tuple(layout)


@pytest.mark.parametrize("text", ["", ",", "2,", "2(x)", "(x3)", "2(3)", "-1", "2 ,1", "\u0662", "2(x9999999999)"])
def test_no_list_of_tasks(text):
    """A layout that cannot be read is unknown, and contradicts nothing."""
    assert slurm.tasks_per_node(text) is None
    assert detect(task(SLURM_STEP_TASKS_PER_NODE=text)).topology == Topology(0, 4, 0, None, 0, 2)


CONTRADICTIONS = {
    "srun, no number of tasks": (
        task(SLURM_STEP_NUM_TASKS=None, SLURM_NTASKS=None),
        ("SLURM_PROCID is set ('0')", "SLURM_NTASKS is not", "srun"),
    ),
    "srun, rank beyond": (task(SLURM_PROCID="4"), ("SLURM_PROCID is 4", "SLURM_STEP_NUM_TASKS is 4")),
    "srun, node beyond": (task(SLURM_NODEID="2"), ("SLURM_NODEID is '2'", "SLURM_STEP_NUM_NODES is '2'")),
    "srun, local rank beyond": (task(SLURM_LOCALID="3"), ("SLURM_LOCALID is '3'", "is '3,1'", "unset")),
    "srun, other tasks than nodes hold": (task(SLURM_STEP_TASKS_PER_NODE="2(x2),9"), ("'2(x2),9'", "rank 0 of 4")),
    "srun, other nodes than have tasks": (task(SLURM_STEP_TASKS_PER_NODE="4"), ("is '4'", "is '2'")),
    "srun, node no number": (task(SLURM_NODEID="n1"), ("SLURM_NODEID", "'n1'")),
    "srun, MASTER_PORT no number": (task(MASTER_PORT="http"), ("MASTER_PORT", "'http'")),
}


@pytest.mark.parametrize(("environ", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_variables_that_contradict_each_other(environ, words):
    """An impossible place is an error with what was seen, and on its last line what to do."""
    assert_is_rejected(environ, words)
