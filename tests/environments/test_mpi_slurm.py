"""mpirun and srun: what the environments that they really made mean, and what is made of bent ones."""

from __future__ import annotations

from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from environments.recorded import NAMES, recorded
from pluto_dist.environments import PRECEDENCE, detect, mpich, openmpi, slurm
from pluto_dist.environments.context import LaunchContext, ProcessFacts
from pluto_dist.environments.topology import Topology
from pluto_dist.errors import LauncherError, NoSharedRunError

UNKNOWN = (None, None)
FIRST = (0, 1)  # all ranks are on one node
RANKS = {
    # name: (launcher, world size, per rank: local rank and size, node rank and count)
    "openmpi4_one_node": ("openmpi", 4, [(0, 4), (1, 4), (2, 4), (3, 4)], [FIRST] * 4),
    "openmpi4_two_nodes": ("openmpi", 4, [(0, 2), (1, 2), (0, 2), (1, 2)], [UNKNOWN] * 4),
    "openmpi4_round_the_nodes": ("openmpi", 3, [(0, 2), (0, 1), (1, 2)], [UNKNOWN] * 3),
    "openmpi5_one_node": ("openmpi", 4, [(0, 4), (2, 4), (1, 4), (3, 4)], [FIRST] * 4),
    "mpich4_one_node": ("hydra", 4, [(0, 4), (1, 4), (2, 4), (3, 4)], [FIRST] * 4),
    "mpich4_two_nodes": ("hydra", 4, [(0, 2), (1, 2), (0, 2), (1, 2)], [UNKNOWN] * 4),
    "mpich5_one_node": ("hydra", 4, [(0, 4), (1, 4), (2, 4), (3, 4)], [FIRST] * 4),
    "intelmpi_one_node": ("hydra", 4, [(0, 4), (1, 4), (2, 4), (3, 4)], [FIRST] * 4),
    "slurm_one_node": ("slurm", 4, [(0, 4), (1, 4), (2, 4), (3, 4)], [FIRST] * 4),
    "slurm_two_nodes": ("slurm", 4, [(0, 3), (1, 3), (2, 3), (0, 1)], [(0, 2), (0, 2), (0, 2), (1, 2)]),
    "slurm_cyclic": ("slurm", 4, [(0, 3), (0, 1), (1, 3), (2, 3)], [(0, 2), (1, 2), (0, 2), (0, 2)]),
    "slurm_plane": ("slurm", 4, [(0, 3), (1, 3), (0, 1), (2, 3)], [(0, 2), (0, 2), (1, 2), (0, 2)]),
    "slurm_arbitrary": ("slurm", 3, [(0, 1), (0, 2), (1, 2)], [(1, 2), (0, 2), (0, 2)]),
    "slurm_pmi2": ("slurm", 4, [(0, 3), (1, 3), (2, 3), (0, 1)], [(0, 2), (0, 2), (0, 2), (1, 2)]),
    "slurm_batch_first_step": ("slurm", 4, [(0, 3), (1, 3), (2, 3), (0, 1)], [(0, 2), (0, 2), (0, 2), (1, 2)]),
    "slurm_batch_second_step": ("slurm", 2, [(0, 2), (1, 2)], [FIRST] * 2),
    "slurm_array_3": ("slurm", 2, [(0, 2), (1, 2)], [FIRST] * 2),
    "slurm_array_4": ("slurm", 2, [(0, 2), (1, 2)], [FIRST] * 2),
    "slurm_array_before_requeue": ("slurm", 2, [(0, 2), (1, 2)], [FIRST] * 2),
    "slurm_array_after_requeue": ("slurm", 2, [(0, 2), (1, 2)], [FIRST] * 2),
    "slurm_before_requeue": ("slurm", 2, [(0, 1), (0, 1)], [(0, 2), (1, 2)]),
    "slurm_after_requeue": ("slurm", 2, [(0, 1), (0, 1)], [(0, 2), (1, 2)]),
    "slurm_heterogeneous": ("slurm", 3, [(0, None), (0, None), (1, None)], [(0, 2), (1, 2), (1, 2)]),
    "slurm_heterogeneous_reversed": ("slurm", 3, [(0, None), (0, None), (1, None)], [(0, 2), (1, 2), (1, 2)]),
    "slurm_heterogeneous_before_requeue": ("slurm", 3, [(0, None), (0, None), (1, None)], [(0, 2), (1, 2), (1, 2)]),
    "slurm_heterogeneous_after_requeue": ("slurm", 3, [(0, None), (0, None), (1, None)], [(0, 2), (1, 2), (1, 2)]),
    "slurm_salloc_shell_step": ("slurm", 4, [(0, 3), (1, 3), (2, 3), (0, 1)], [(0, 2), (0, 2), (0, 2), (1, 2)]),
    "slurm_openmpi4_daemons": ("openmpi", 4, [(0, 3), (1, 3), (2, 3), (0, 1)], [UNKNOWN] * 4),
    "slurm_openmpi4_beside": ("openmpi", 4, [(0, 3), (1, 3), (2, 3), (0, 1)], [UNKNOWN] * 4),
    "slurm_mpich4": ("hydra", 4, [(0, 3), (1, 3), (2, 3), (0, 1)], [UNKNOWN] * 4),
    "slurm_intelmpi": ("hydra", 4, [(0, 3), (1, 3), (2, 3), (0, 1)], [UNKNOWN] * 4),
}
ONE_PROCESS = (
    "openmpi4_one_rank",
    "mpich4_one_rank",
    "slurm_one_task",
    "slurm_batch_script",
    "slurm_array_script",
    "slurm_script_before_requeue",
    "slurm_script_after_requeue",
    "slurm_salloc_shell",
    "slurm_salloc_command",
)
TASK = MappingProxyType(recorded("slurm_two_nodes")[0])
MODULES = {"openmpi": openmpi, "hydra": mpich, "slurm": slurm}
OF_EACH = [("openmpi", "openmpi4_one_node"), ("hydra", "mpich4_one_node"), ("slurm", "slurm_one_node")]


def task(**changes: str | None) -> dict[str, str]:
    """Rank 0 of ``srun -N2 -n4`` with changes; ``None`` takes a variable away."""
    return {name: value for name, value in {**TASK, **changes}.items() if value is not None}


def test_every_recorded_launch_is_in_a_table():
    """What was recorded is also checked."""
    assert sorted({*RANKS, *ONE_PROCESS}) == NAMES


@pytest.mark.parametrize(("name", "expected"), RANKS.items(), ids=RANKS)
def test_where_the_ranks_of_a_real_launch_stand(name, expected):
    """Each rank is where its launcher put it, number for number; what the launcher does not tell stays unknown."""
    launcher, world_size, local, nodes = expected
    found = [detect(environ) for environ in recorded(name)]
    assert {context.launcher for context in found} == {launcher}
    assert [context.topology for context in found] == [
        Topology(rank, world_size, *local[rank], *nodes[rank]) for rank in range(world_size)
    ]


@pytest.mark.parametrize("name", ONE_PROCESS)
def test_one_process_is_a_world_of_one(name):
    """One rank, a batch script and an allocation's shell are single processes, whatever SLURM_NTASKS promises."""
    [environ] = recorded(name)
    assert (detect(environ).launcher, detect(environ).topology.world_size) == ("single", 1)


@pytest.mark.parametrize("name", RANKS)
def test_ranks_of_a_launch_agree(name):
    """What decides where ranks meet and what their run is called is the same on all of them."""
    found = [detect(environ) for environ in recorded(name)]
    assert len({(c.hosted_address, c.is_on_one_node, c.scope, c.worker_marks, c.variables) for c in found}) == 1
    places = [(c.topology.node_rank, c.topology.local_rank) for c in found if c.topology.node_rank is not None]
    assert len(places) == len(set(places))


@pytest.mark.parametrize("name", RANKS)
def test_every_rank_has_its_marks(name):
    """Every rank has the variables by which its agent is told from it; the launcher's name can begin a run id."""
    for environ in recorded(name):
        context = detect(environ)
        assert set(context.worker_marks) <= environ.keys()
        assert context.launcher.isalpha()
        assert context.launcher.islower()


# The processes that started ranks, as the walk up from a rank found them: what they have of a launch's variables.
ANCESTORS = {
    "mpirun": ("openmpi4_one_node", {}),
    "mpirun in a batch script": ("slurm_openmpi4_beside", recorded("slurm_batch_script")[0]),
    "orted": ("slurm_openmpi4_daemons", {"SLURM_JOB_ID": "19", "SLURM_STEP_ID": "1", "SLURM_PROCID": "0"}),
    "prterun within a rank of another": (
        "openmpi5_one_node",
        {"OMPI_COMM_WORLD_RANK": "0", "PMIX_NAMESPACE": "prterun-head-1@1"},
    ),
    "hydra_pmi_proxy": ("mpich4_one_node", {"HYDI_CONTROL_FD": "7"}),
    "hydra_pmi_proxy under srun": ("slurm_mpich4", {"SLURM_STEP_ID": "2", "SLURM_PROCID": "0"}),
    "hydra_pmi_proxy within a rank of another": ("mpich4_one_node", {"PMI_RANK": "0", "PMI_FD": "9", "PMI_SIZE": "4"}),
    "slurmstepd": ("slurm_one_node", {}),
    "slurmstepd of a Slurm within a batch script": ("slurm_one_node", recorded("slurm_batch_script")[0]),
    "slurmstepd of a Slurm within a step": ("slurm_one_node", recorded("slurm_batch_first_step")[0]),
}


@pytest.mark.parametrize(("name", "ancestor"), ANCESTORS.values(), ids=ANCESTORS)
def test_what_started_the_ranks_differs_in_the_marks(name, ancestor):
    """The process that started a node's ranks differs from every one of them in a mark; a shell between has them."""
    for environ in recorded(name):
        assert any(ancestor.get(mark) != environ.get(mark) for mark in detect(environ).worker_marks)


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
    "Open MPI": (recorded("openmpi4_two_nodes")[0], None),
    "Open MPI, both given": (
        recorded("openmpi4_two_nodes")[0] | {"MASTER_ADDR": "a", "MASTER_PORT": "29500"},
        ("a", 29500),
    ),
    "hydra, both given": (
        recorded("mpich4_two_nodes")[0] | {"MASTER_ADDR": "a", "MASTER_PORT": "29500"},
        ("a", 29500),
    ),
}


@pytest.mark.parametrize(("environ", "address"), ADDRESSES.values(), ids=ADDRESSES)
def test_where_rank_0_may_host_a_store(environ, address):
    """Where the user says; else where Slurm's layout leaves no doubt which node rank 0 is on; else nowhere."""
    assert detect(environ).hosted_address == address


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


@pytest.mark.parametrize("name", ["openmpi4_one_node", "mpich4_one_node", "slurm_one_node"])
@pytest.mark.parametrize(
    ("torchs", "believed"),
    [
        ({"WORLD_SIZE": "4"}, True),
        ({"RANK": "2"}, True),
        ({"RANK": "2", "WORLD_SIZE": "4"}, True),
        ({"RANK": "17", "WORLD_SIZE": "32"}, False),
        ({"RANK": "2", "WORLD_SIZE": "32"}, False),
        ({"RANK": "0", "WORLD_SIZE": "1"}, False),
    ],
    ids=str,
)
def test_torchs_own_words_go_first(name, torchs, believed):
    """RANK and WORLD_SIZE that say the same are no hindrance; others are right, for they count the real ranks."""
    environ = recorded(name)[2] | torchs
    own = detect(recorded(name)[2])
    found = detect(environ)
    assert found.launcher == (own.launcher if believed else "environment")
    assert (found.topology.rank, found.topology.world_size) == (
        int(torchs.get("RANK", "2")),
        int(torchs.get("WORLD_SIZE", "4")),
    )


@pytest.mark.parametrize("name", ["openmpi4_one_node", "mpich4_one_node", "slurm_one_node"])
@pytest.mark.parametrize("torchs", [{"WORLD_SIZE": "32"}, {"RANK": "1"}], ids=str)
def test_half_of_torchs_words_that_says_something_else(name, torchs):
    """WORLD_SIZE for more ranks than were started, and no RANK: a task a node that has not started them yet."""
    with pytest.raises(LauncherError, match="is not"):
        detect(recorded(name)[2] | torchs)


@pytest.mark.parametrize("name", RANKS)
def test_torchrun_within_goes_first(name):
    """A torchrun that mpirun or srun started has ranks and a store of its own."""
    inside = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    assert all(detect(environ | inside).launcher == "torchrun" for environ in recorded(name))


@pytest.mark.parametrize(("launcher", "name"), OF_EACH)
def test_a_spawned_child_is_no_rank(launcher, name):
    """A child that multiprocessing started inherits its parent's variables, and is none of the launcher's ranks."""
    environ = recorded(name)[1]
    assert MODULES[launcher].detect(environ, ProcessFacts(spawned=True)) is None
    with pytest.raises(NoSharedRunError):
        detect(environ, ProcessFacts(spawned=True))
    group = Topology(0, 2)
    assert detect(environ, ProcessFacts(group=group, spawned=True)).topology == group


@pytest.mark.parametrize(("launcher", "name"), OF_EACH)
def test_a_world_that_the_script_divided(launcher, name):
    """A process group of other ranks than were started is a world of its own; one of the same ranks is not."""
    environ = recorded(name)[3]
    assert detect(environ, ProcessFacts(group=Topology(1, 2))).launcher == "process_group"
    assert detect(environ, ProcessFacts(group=Topology(3, 4))).launcher == launcher


OPENMPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4"}
HYDRA = {"PMI_RANK": "1", "PMI_SIZE": "4"}
CONTRADICTIONS = {
    "Open MPI, no size": ({"OMPI_COMM_WORLD_RANK": "1"}, ("OMPI_COMM_WORLD_SIZE is not", "'1'", "mpirun")),
    "Open MPI, no rank": ({"OMPI_COMM_WORLD_SIZE": "4"}, ("OMPI_COMM_WORLD_RANK is not", "'4'")),
    "Open MPI, rank beyond": (OPENMPI | {"OMPI_COMM_WORLD_RANK": "4"}, ("RANK is 4", "SIZE is 4", "unchanged")),
    "Open MPI, a world of none": (OPENMPI | {"OMPI_COMM_WORLD_SIZE": "0"}, ("SIZE is 0",)),
    "Open MPI, rank no number": (OPENMPI | {"OMPI_COMM_WORLD_RANK": "one"}, ("OMPI_COMM_WORLD_RANK", "'one'")),
    "Open MPI, local rank beyond": (
        OPENMPI | {"OMPI_COMM_WORLD_LOCAL_RANK": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
        ("LOCAL_RANK is 2", "LOCAL_SIZE is 2", "unset these two"),
    ),
    "Open MPI, node beyond the world": (OPENMPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "5"}, ("LOCAL_SIZE is 5", "of 4")),
    "Open MPI, an empty node": (OPENMPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "0"}, ("LOCAL_SIZE is 0",)),
    "hydra, no size": ({"PMI_RANK": "1"}, ("PMI_SIZE is not",)),
    "hydra, rank beyond": (HYDRA | {"PMI_RANK": "9"}, ("PMI_RANK is 9", "PMI_SIZE is 4")),
    "hydra, rank negative": (HYDRA | {"PMI_RANK": "-1"}, ("PMI_RANK", "'-1'")),
    "hydra, local rank beyond": (HYDRA | {"MPI_LOCALRANKID": "3", "MPI_LOCALNRANKS": "2"}, ("MPI_LOCALRANKID is 3",)),
    "hydra, local rank no number": (HYDRA | {"MPI_LOCALRANKID": ""}, ("MPI_LOCALRANKID", "''")),
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


@pytest.mark.parametrize(("environ", "told"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_variables_that_contradict_each_other(environ, told):
    """A place that cannot be is an error that says what was seen, and on its last line what to do."""
    with pytest.raises(LauncherError) as caught:
        detect(environ)
    assert all(words in str(caught.value) for words in told), str(caught.value)
    assert "\n" in str(caught.value)


ODD = {
    "PMI ranks that srun made, hydra's variables within": (
        recorded("slurm_pmi2")[1] | {"MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "1"},
        "hydra",
    ),
    "PMI ranks of another process manager": ({"PMI_RANK": "1", "PMI_SIZE": "4"}, "hydra"),
    "PMIx ranks of srun": (recorded("slurm_one_node")[1] | {"PMIX_RANK": "1", "PMIX_NAMESPACE": "slurm.4.0"}, "slurm"),
    "a step of an old Slurm": (task(SLURM_STEP_NUM_TASKS=None), "slurm"),
    "srun's variables without the rank": (task(SLURM_PROCID=None), "single"),
    "mpirun -n 1 in a task of srun": (recorded("slurm_two_nodes")[3] | recorded("openmpi4_one_rank")[0], "slurm"),
    "RANK and WORLD_SIZE beside half of mpirun's": (
        {"OMPI_COMM_WORLD_RANK": "1", "RANK": "1", "WORLD_SIZE": "4"},
        "environment",
    ),
}


@pytest.mark.parametrize(("environ", "launcher"), ODD.values(), ids=ODD)
def test_whose_ranks_they_are(environ, launcher):
    """Where several have left their variables, the ranks are those of whoever started this process as one."""
    assert detect(environ).launcher == launcher


def test_the_order_of_launchers_has_its_reasons():
    """Who knows most of the ranks is asked first; mpirun before srun, which may have started only its daemons."""
    order = [detector.__module__.rpartition(".")[2] for detector in PRECEDENCE]
    assert order == ["torchrun", "openmpi", "mpich", "slurm", "env_vars", "process_group", "single_process"]


VARIABLES = sorted(
    {name for launch in NAMES for environ in recorded(launch) for name in environ} | {"RANK", "WORLD_SIZE"}
)
VALUES = st.one_of(
    st.integers(-2, 9).map(str), st.text(max_size=6), st.sampled_from(["2(x3),1", "n[1-2]", "arbitrary", "9" * 12])
)


@given(
    start=st.sampled_from(NAMES).map(lambda name: recorded(name)[-1]),
    changes=st.dictionaries(st.sampled_from(VARIABLES), VALUES, max_size=6),
    group=st.sampled_from([None, Topology(1, 2)]),
)
def test_any_environment_gives_a_place_or_a_launch_error(start, changes, group):
    """However a launcher's variables are bent, the answer is a place within its world, or an error of this package."""
    environ = MappingProxyType({**start, **changes})
    try:
        context = detect(environ, ProcessFacts(group=group))
    except LauncherError:
        return
    place = context.topology
    assert isinstance(context, LaunchContext)
    assert 0 <= place.rank < place.world_size
    assert place.local_rank is None or place.local_world_size is None or place.local_rank < place.local_world_size
    assert hash(context) == hash(detect(environ, ProcessFacts(group=group)))
