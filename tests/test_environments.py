"""Detection as a whole: which launcher is believed, and what real launches have in common."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from environments.recorded import NAMES, recorded
from environments.typical import UUID, WORKER, task, worker
from pluto_dist import environments
from pluto_dist.doctor.explain import explain
from pluto_dist.environments import PRECEDENCE, LaunchContext, ProcessFacts, detect, detectors, mpich, openmpi, slurm
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
MODULES = {"openmpi": openmpi, "hydra": mpich, "slurm": slurm}
OF_EACH = [("openmpi", "openmpi4_one_node"), ("hydra", "mpich4_one_node"), ("slurm", "slurm_one_node")]


def test_every_recorded_launch_is_in_a_table():
    """Every recorded launch is checked."""
    assert sorted({*RANKS, *ONE_PROCESS}) == NAMES


@pytest.mark.parametrize(("name", "expected"), RANKS.items(), ids=RANKS)
def test_where_the_ranks_of_a_real_launch_stand(name, expected):
    """Each rank has the place that its launcher gave it, number for number; what was not given is unknown."""
    launcher, world_size, local, nodes = expected
    found = [detect(environ) for environ in recorded(name)]
    assert {context.launcher for context in found} == {launcher}
    assert [context.topology for context in found] == [
        Topology(rank, world_size, *local[rank], *nodes[rank]) for rank in range(world_size)
    ]


@pytest.mark.parametrize("name", ONE_PROCESS)
def test_one_process_is_a_world_of_one(name):
    """One rank, a batch script and an allocation's shell are single processes, whatever SLURM_NTASKS is."""
    [environ] = recorded(name)
    assert (detect(environ).launcher, detect(environ).topology.world_size) == ("single", 1)


@pytest.mark.parametrize("name", RANKS)
def test_ranks_of_a_launch_agree(name):
    """The facts that decide the store of the ranks and the id of their run are the same on all of them."""
    found = [detect(environ) for environ in recorded(name)]
    assert len({(c.hosted_address, c.is_on_one_node, c.scope, c.worker_marks, c.variables) for c in found}) == 1
    places = [(c.topology.node_rank, c.topology.local_rank) for c in found if c.topology.node_rank is not None]
    assert len(places) == len(set(places))


@pytest.mark.parametrize("name", RANKS)
def test_every_rank_has_its_marks(name):
    """Every rank has the variables that its agent lacks; the launcher's name can begin a run id."""
    for environ in recorded(name):
        context = detect(environ)
        assert set(context.worker_marks) <= environ.keys()
        assert context.launcher.isalpha()
        assert context.launcher.islower()


# The processes that started ranks, as the walk up from a rank found them, with their own variables of a launch.
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
    """The process that started a node's ranks differs from every one of them in a mark; a shell in between does not."""
    for environ in recorded(name):
        assert any(ancestor.get(mark) != environ.get(mark) for mark in detect(environ).worker_marks)


@pytest.mark.parametrize("name", ["openmpi4_one_node", "mpich4_one_node", "slurm_one_node"])
@pytest.mark.parametrize(
    ("of_torch", "believed"),
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
def test_rank_and_world_size_go_first(name, of_torch, believed):
    """RANK and WORLD_SIZE of the same values change nothing; other values are right: they count the real ranks."""
    environ = recorded(name)[2] | of_torch
    own = detect(recorded(name)[2])
    found = detect(environ)
    assert found.launcher == (own.launcher if believed else "environment")
    assert (found.topology.rank, found.topology.world_size) == (
        int(of_torch.get("RANK", "2")),
        int(of_torch.get("WORLD_SIZE", "4")),
    )


@pytest.mark.parametrize("name", ["openmpi4_one_node", "mpich4_one_node", "slurm_one_node"])
@pytest.mark.parametrize("of_torch", [{"WORLD_SIZE": "32"}, {"RANK": "1"}], ids=str)
def test_half_of_rank_and_world_size_that_contradicts(name, of_torch):
    """WORLD_SIZE for more ranks than were started, and no RANK: one task per node, before it starts the ranks."""
    with pytest.raises(LauncherError, match="is not"):
        detect(recorded(name)[2] | of_torch)


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
    assert not detect(environ, ProcessFacts(spawned=True)).has_part
    with pytest.raises(NoSharedRunError):
        detect(environ, ProcessFacts(spawned=True, starts_ranks=True))
    group = Topology(0, 2)
    assert detect(environ, ProcessFacts(group=group, spawned=True)).topology == group


@pytest.mark.parametrize(("launcher", "name"), OF_EACH)
def test_a_world_that_the_script_divided(launcher, name):
    """A process group of other ranks than were started is a world of its own; one of the same ranks is not."""
    environ = recorded(name)[3]
    assert detect(environ, ProcessFacts(group=Topology(1, 2))).launcher == "process_group"
    assert detect(environ, ProcessFacts(group=Topology(3, 4))).launcher == launcher


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
    """If several launchers have left their variables, the one that started this process as a rank counts."""
    assert detect(environ).launcher == launcher


GROUP = Topology(rank=3, world_size=4)
STALE = {"RANK": "0", "WORLD_SIZE": "1"}
PRECEDENCES: dict[str, tuple[dict[str, str], ProcessFacts, str, Topology | None]] = {
    "nothing": ({}, ProcessFacts(), "single", Topology(0, 1, 0, 1, 0, 1)),
    "torchrun": (worker(), ProcessFacts(), "torchrun", None),
    "torchrun, initialised": (worker(), ProcessFacts(group=Topology(1, 2)), "torchrun", None),
    "bare": ({"RANK": "1", "WORLD_SIZE": "2"}, ProcessFacts(), "environment", Topology(1, 2)),
    "bare with local ranks": (
        {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"},
        ProcessFacts(),
        "environment",
        Topology(1, 2, 0, 1),
    ),
    "a world of one": ({"RANK": "0", "WORLD_SIZE": "1"}, ProcessFacts(), "environment", Topology(0, 1)),
    "a group against stale variables": (STALE, ProcessFacts(group=GROUP), "process_group", GROUP),
    "a group against half of them": ({"RANK": "7"}, ProcessFacts(group=GROUP), "process_group", GROUP),
    "a spawned child with a group": (worker(), ProcessFacts(group=GROUP, spawned=True), "process_group", GROUP),
    "a group alone": ({}, ProcessFacts(group=GROUP), "process_group", GROUP),
    "LOCAL_RANK alone": ({"LOCAL_RANK": "1"}, ProcessFacts(), "single", None),
    "MASTER_* alone": ({"MASTER_ADDR": "a", "MASTER_PORT": "x"}, ProcessFacts(), "single", None),
}


@pytest.mark.parametrize(("environ", "process", "launcher", "topology"), PRECEDENCES.values(), ids=PRECEDENCES)
def test_which_launcher_is_believed(environ, process, launcher, topology):
    """torchrun's own variables first, then the process group, then bare RANK and WORLD_SIZE, then a world of one."""
    context = detect(environ, process)
    assert context.launcher == launcher
    assert topology in (None, context.topology)


@pytest.mark.parametrize("environ", [{}, dict(WORKER), {"RANK": "1", "WORLD_SIZE": "2"}])
def test_detecting_is_pure(environ):
    """The environment may be any Mapping, is not changed, and the same one gives the same answer."""
    before = dict(environ)
    first = detect(MappingProxyType(environ))
    assert environ == before
    assert detect(environ) == first
    assert hash(first) == hash(detect(environ))


def test_every_launcher_is_registered_once():
    """Each module with a ``detect`` is in PRECEDENCE; the last one always answers."""
    names = [module.name for module in pkgutil.iter_modules(environments.__path__)]
    modules = [importlib.import_module(f"pluto_dist.environments.{name}") for name in names]
    *_, last = detectors()
    assert sorted(detector.__module__ for detector in detectors()) == sorted(
        module.__name__ for module in modules if hasattr(module, "detect")
    )
    assert last({}, ProcessFacts()) is not None


ORDER = {
    "torchrun's agent hosts a store, whatever started the agent": ("torchrun", "openmpi"),
    "srun starts mpirun's daemons": ("openmpi", "slurm"),
    "srun starts hydra's proxies": ("mpich", "slurm"),
    "Flux sets PMI_RANK too": ("flux", "mpich"),
    "scripts export WORLD_SIZE and leave RANK to srun": ("slurm", "env_vars"),
    "variables before the process group": ("env_vars", "process_group"),
    "a world of one if nothing else is known": ("process_group", "single_process"),
}


@pytest.mark.parametrize(("first", "then"), ORDER.values(), ids=ORDER)
def test_the_order_of_launchers_has_its_reasons(first, then):
    """The launcher that knows more of the ranks is asked first."""
    order = [detector.__module__.rpartition(".")[2] for detector in detectors()]
    assert order.index(first) < order.index(then)


# A launcher of a test's own, registered as the documentation of the package says.

MADE_UP = """
from pluto_dist import environments
from pluto_dist.environments.topology import Topology
from pluto_dist.environments.variables import place


def detect(environ, process):
    found = place(environ, "MADEUP_RANK", "MADEUP_SIZE", start="madeup")
    if found is None:
        return None
    topology = Topology(*found, local_world_size=found[1])
    return environments.LaunchContext("madeup", topology, worker_marks=("MADEUP_RANK",))


environments.PRECEDENCE = (detect, *environments.PRECEDENCE)
"""
TWO_RANKS = [{"MADEUP_RANK": str(rank), "MADEUP_SIZE": "2"} for rank in range(2)]


def test_a_new_launcher_needs_only_its_detector(monkeypatch):
    """Once it is in PRECEDENCE, detection and explain have it; other environments are detected as before."""
    monkeypatch.setattr(environments, "PRECEDENCE", PRECEDENCE)  # put back after the test
    exec(MADE_UP, {})

    assert [detect(environ).topology.rank for environ in TWO_RANKS] == [0, 1]
    assert explain(TWO_RANKS[0]).external_id == "madeup-<token>"
    assert explain(TWO_RANKS[0]).meet == "a store that rank 0 hosts on this node"
    assert detect(worker()).launcher == "torchrun"
    assert detect({}).launcher == "single"


@pytest.mark.multiprocess
def test_ranks_of_a_new_launcher_share_a_run(tmp_path: Path):
    """Its ranks get one run from init(), named after the launcher, without a change to any module."""
    (tmp_path / "train.py").write_text(MADE_UP + "import pluto_dist\nprint(pluto_dist.init(mode='offline').run_id)\n")
    ranks = [
        subprocess.Popen(
            [sys.executable, tmp_path / "train.py"],
            env={**os.environ, **environ, "TMPDIR": str(tmp_path), "PLUTO_DIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for environ in TWO_RANKS
    ]
    printed = [rank.communicate(timeout=120)[0].strip() for rank in ranks]

    assert [rank.returncode for rank in ranks] == [0, 0]
    assert len(set(printed)) == 1
    assert printed[0].startswith("madeup-")


TORCHRUN_NAMES = st.sampled_from(sorted({*WORKER, "PET_RDZV_ID", "NODE_RANK"}))
TORCHRUN_VALUES = st.one_of(st.text(max_size=12), st.integers(-3, 9).map(str), st.sampled_from(["none", "True", UUID]))


@given(
    environ=st.dictionaries(TORCHRUN_NAMES, TORCHRUN_VALUES),
    spawned=st.booleans(),
    group=st.sampled_from([None, GROUP]),
)
def test_any_environment_gives_a_context_or_a_launch_error(environ: dict[str, str], spawned: bool, group: Any):
    """Whatever the variables hold, the answer is a place within its world, or an error of this package."""
    try:
        context = detect(environ, ProcessFacts(group=group, spawned=spawned))
    except (LauncherError, NoSharedRunError):
        return
    assert isinstance(context, LaunchContext)
    assert 0 <= context.topology.rank < context.topology.world_size


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
def test_any_change_gives_a_place_or_a_launch_error(start, changes, group):
    """However a launcher's variables are changed, the answer is a place in its world, or an error of this package."""
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
