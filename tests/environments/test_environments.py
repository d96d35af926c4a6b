"""What each launcher's environment means, as tables: a Mapping in, a LaunchContext or an error out."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluto_dist.environments import PRECEDENCE, detect
from pluto_dist.environments.context import LaunchContext, ProcessFacts
from pluto_dist.environments.topology import Topology
from pluto_dist.environments.torchrun import is_random
from pluto_dist.errors import LauncherError, NoSharedRunError

UUID = "cc9f1e1c-3a4b-4a53-9d2e-0d5f0f4f6a10"
UUID_AS_INT = "271920368236409116923454098231104537824"

# What a worker of `torchrun --nproc-per-node=2` finds in its environment (torch 2.13).
WORKER = MappingProxyType(
    {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "GROUP_WORLD_SIZE": "1",
        "ROLE_NAME": "default",
        "ROLE_RANK": "1",
        "ROLE_WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "40001",
        "TORCHELASTIC_RUN_ID": UUID,
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_ERROR_FILE": f"/var/log/job/{UUID}_x7/attempt_0/1/error.json",
        "OMP_NUM_THREADS": "1",
    }
)


def worker(**changes: str | None) -> dict[str, str]:
    """The environment above with changes; ``None`` takes a variable away."""
    merged = {**WORKER, **changes}
    return {name: value for name, value in merged.items() if value is not None}


LAUNCH_MODES = {
    # name: (changed variables, rendezvous id, whether it is random, id that torchrun dropped)
    "torchrun on one node": ({}, UUID, True, None),
    "--rdzv-id dropped without a trace": ({"TORCHELASTIC_RUN_ID": UUID}, UUID, True, None),
    "PET_RDZV_ID dropped, one node": ({"PET_RDZV_ID": "PETJOB"}, UUID, True, "PETJOB"),
    "PET_RDZV_ID none": ({"PET_RDZV_ID": "none"}, UUID, True, None),
    "PET_RDZV_ID empty": ({"PET_RDZV_ID": ""}, UUID, True, None),
    "PET_RDZV_ID on several nodes": ({"PET_RDZV_ID": "PETJOB", "GROUP_WORLD_SIZE": "2"}, UUID, True, None),
    "PET_RDZV_ID, number of nodes unknown": ({"PET_RDZV_ID": "PETJOB", "GROUP_WORLD_SIZE": None}, UUID, True, None),
    "PET_RDZV_ID obeyed": ({"PET_RDZV_ID": "PETJOB", "TORCHELASTIC_RUN_ID": "PETJOB"}, "PETJOB", False, None),
    "PET_RDZV_ID beside --rdzv-id": ({"PET_RDZV_ID": "PETJOB", "TORCHELASTIC_RUN_ID": "JOB7"}, "JOB7", False, None),
    "c10d --rdzv-id=JOB7": ({"TORCHELASTIC_RUN_ID": "JOB7"}, "JOB7", False, None),
    "c10d --rdzv-id=123": ({"TORCHELASTIC_RUN_ID": "123"}, "123", False, None),
    "c10d --rdzv-id=0": ({"TORCHELASTIC_RUN_ID": "0"}, "0", False, None),
    "c10d without id": ({"TORCHELASTIC_RUN_ID": "none"}, None, False, None),
    "c10d with an empty id": ({"TORCHELASTIC_RUN_ID": UUID_AS_INT}, UUID_AS_INT, True, None),
    "elastic_launch without id": (
        {"TORCHELASTIC_RUN_ID": UUID_AS_INT, "ROLE_NAME": "default_role"},
        UUID_AS_INT,
        True,
        None,
    ),
    "static without id": ({"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1"}, None, False, None),
    "torch 2.4 to 2.8": ({"TORCHELASTIC_RUN_ID": "none", "MASTER_PORT": "29500"}, None, False, None),
    "torch 2.4 to 2.8, PET_RDZV_ID": (
        {"TORCHELASTIC_RUN_ID": "none", "MASTER_PORT": "29500", "PET_RDZV_ID": "nightly"},
        None,
        False,
        "nightly",
    ),
    "empty id": ({"TORCHELASTIC_RUN_ID": ""}, None, False, None),
    "blank id": ({"TORCHELASTIC_RUN_ID": " "}, None, False, None),
    "a pod's uuid looks random": ({"TORCHELASTIC_RUN_ID": UUID, "GROUP_WORLD_SIZE": "4"}, UUID, True, None),
    "slashes and blanks": ({"TORCHELASTIC_RUN_ID": "a/b c"}, "a/b c", False, None),
    "unicode": ({"TORCHELASTIC_RUN_ID": "作業"}, "作業", False, None),
    "almost a uuid": ({"TORCHELASTIC_RUN_ID": UUID + "0"}, UUID + "0", False, None),
}


@pytest.mark.parametrize(("changes", "rendezvous_id", "random", "chosen"), LAUNCH_MODES.values(), ids=LAUNCH_MODES)
def test_launch_modes_of_torchrun(changes, rendezvous_id, random, chosen):
    """Each way to start torchrun gives the id that it really passed on, whether it is random, and what it dropped."""
    context = detect(worker(**changes))

    assert context.launcher == "torchrun"
    assert (context.rendezvous_id, context.rendezvous_is_random, context.chosen_id) == (rendezvous_id, random, chosen)


@pytest.mark.parametrize(
    ("rendezvous_id", "expected"),
    [
        (UUID, True),
        (UUID_AS_INT, True),
        ("9" * 36, True),
        ("9" * 35, False),
        ("9" * 40, False),
        (UUID.upper(), False),
        (UUID + "\n", False),
        ("\u0663" * 39, False),
        ("", False),
    ],
)
def test_what_looks_random(rendezvous_id, expected):
    """Only what torchrun itself makes up (a uuid4 in lower case, or its integer) counts as random."""
    assert is_random(rendezvous_id) is expected


def test_where_a_worker_stands():
    """The topology is torchrun's, number for number."""
    environ = worker(
        RANK="5", WORLD_SIZE="8", LOCAL_RANK="1", LOCAL_WORLD_SIZE="4", GROUP_RANK="1", GROUP_WORLD_SIZE="2"
    )
    assert detect(environ).topology == Topology(5, 8, 1, 4, 1, 2)


def test_virtual_local_ranks_elect_nobody():
    """Under --virtual-local-rank every worker has LOCAL_RANK 0; only global rank 0 is the leader."""
    workers = [detect(worker(RANK=str(rank), WORLD_SIZE="4", LOCAL_RANK="0")) for rank in range(4)]
    assert {context.topology.local_rank for context in workers} == {0}
    assert [context.topology.is_rank_zero for context in workers] == [True, False, False, False]


STORES = {
    "shared": ({}, ("localhost", 40001)),
    "private": ({"TORCHELASTIC_USE_AGENT_STORE": "False"}, None),
    "unset": ({"TORCHELASTIC_USE_AGENT_STORE": None}, None),
    "private without MASTER_*": (
        {"TORCHELASTIC_USE_AGENT_STORE": "False", "MASTER_ADDR": None, "MASTER_PORT": None},
        None,
    ),
    "static": ({"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "29500"}, ("10.0.0.7", 29500)),
    "ipv6": ({"MASTER_ADDR": "fe80::1"}, ("fe80::1", 40001)),
}


@pytest.mark.parametrize(("changes", "address"), STORES.values(), ids=STORES)
def test_where_the_agents_store_is(changes, address):
    """Only where the agent says that it hosts a store is there an address to connect to."""
    assert detect(worker(**changes)).store_address == address


FOLDERS = {
    "real": (WORKER["TORCHELASTIC_ERROR_FILE"], f"/var/log/job/{UUID}_x7/attempt_0"),
    "second attempt": ("/t/torchelastic_a/none_b/attempt_1/0/error.json", "/t/torchelastic_a/none_b/attempt_1"),
    "absent": (None, None),
    "empty": ("", None),
    "--log-dir=/dev/null": ("/dev/null", None),
    "relative": ("attempt_0/0/error.json", None),
    "a file of the user's": ("/home/me/errors/error.json", None),
    "another name": ("/t/a/attempt_0/0/errors.txt", None),
}


@pytest.mark.parametrize(("error_file", "folder"), FOLDERS.values(), ids=FOLDERS)
def test_the_attempts_folder(error_file, folder):
    """The folder is taken from the error file only where that is one the agent made."""
    assert detect(worker(TORCHELASTIC_ERROR_FILE=error_file)).attempt_folder == folder


@pytest.mark.parametrize(
    ("count", "most", "left"),
    [("0", "3", 3), ("2", "3", 1), ("3", "3", 0), ("4", "3", 0), (None, "3", 3), ("1", None, 0), (None, None, 0)],
)
def test_restarts_left(count, most, left):
    """What the agent would still restart, never below 0; unknown counts as none."""
    context = detect(worker(TORCHELASTIC_RESTART_COUNT=count, TORCHELASTIC_MAX_RESTARTS=most))
    assert context.restarts_left == left


CONTRADICTIONS = {
    "RANK without WORLD_SIZE": (worker(WORLD_SIZE=None), ("RANK is set", "WORLD_SIZE is not")),
    "WORLD_SIZE without RANK": (worker(RANK=None), ("WORLD_SIZE is set", "RANK is not")),
    "RANK equals WORLD_SIZE": (worker(RANK="2"), ("RANK is 2", "WORLD_SIZE is 2")),
    "RANK beyond WORLD_SIZE": (worker(RANK="7"), ("RANK is 7",)),
    "a world of none": (worker(RANK="0", WORLD_SIZE="0"), ("WORLD_SIZE is 0",)),
    "RANK no number": (worker(RANK="one"), ("RANK", "'one'")),
    "RANK empty": (worker(RANK=""), ("RANK", "''")),
    "RANK negative": (worker(RANK="-1"), ("RANK", "'-1'")),
    "RANK with a blank": (worker(RANK=" 1"), ("RANK", "' 1'")),
    "RANK a fraction": (worker(RANK="1.0"), ("RANK", "'1.0'")),
    "RANK in other digits": (worker(RANK="\u0661"), ("RANK",)),
    "RANK superscript": (worker(RANK="²"), ("RANK",)),
    "WORLD_SIZE no number": (worker(WORLD_SIZE="two"), ("WORLD_SIZE", "'two'")),
    "LOCAL_RANK no number": (worker(LOCAL_RANK="x"), ("LOCAL_RANK", "'x'")),
    "GROUP_RANK no number": (worker(GROUP_RANK="x"), ("GROUP_RANK",)),
    "RESTART_COUNT no number": (worker(TORCHELASTIC_RESTART_COUNT="x"), ("TORCHELASTIC_RESTART_COUNT",)),
    "MASTER_ADDR missing": (worker(MASTER_ADDR=None), ("MASTER_ADDR is None",)),
    "MASTER_ADDR empty": (worker(MASTER_ADDR=""), ("MASTER_ADDR is ''",)),
    "MASTER_PORT missing": (worker(MASTER_PORT=None), ("MASTER_PORT",)),
    "MASTER_PORT no number": (worker(MASTER_PORT="http"), ("MASTER_PORT", "'http'")),
    "bare RANK (a node's, say)": ({"RANK": "1"}, ("RANK is set", "torchrun")),
    "bare WORLD_SIZE": ({"WORLD_SIZE": "4"}, ("WORLD_SIZE is set", "RANK is not")),
    "bare RANK beyond the world": ({"RANK": "4", "WORLD_SIZE": "4"}, ("RANK is 4",)),
    "a number too long to convert": ({"RANK": "9" * 5000, "WORLD_SIZE": "9" * 5001}, ("RANK",)),
}


@pytest.mark.parametrize(("environ", "told"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_an_environment_that_contradicts_itself(environ, told):
    """A place that is unknown is an error that names the variable and its value; it is never guessed."""
    with pytest.raises(LauncherError) as caught:
        detect(environ)
    assert all(words in str(caught.value) for words in told), str(caught.value)


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
    "LOCAL_RANK alone says nothing": ({"LOCAL_RANK": "1"}, ProcessFacts(), "single", None),
    "MASTER_* alone say nothing": ({"MASTER_ADDR": "a", "MASTER_PORT": "x"}, ProcessFacts(), "single", None),
}


@pytest.mark.parametrize(("environ", "process", "launcher", "topology"), PRECEDENCES.values(), ids=PRECEDENCES)
def test_which_launcher_is_believed(environ, process, launcher, topology):
    """torchrun's own variables first, then the process group, then bare RANK and WORLD_SIZE, then a world of one."""
    context = detect(environ, process)
    assert context.launcher == launcher
    assert topology in (None, context.topology)


@pytest.mark.parametrize("environ", [{}, worker(), STALE, {"RANK": "x"}], ids=["bare", "of a worker", "stale", "odd"])
def test_a_spawned_child_without_a_group_is_told_what_to_do(environ):
    """A spawned child inherits variables that describe its parent: without a process group it is an error."""
    with pytest.raises(NoSharedRunError, match="init_process_group"):
        detect(environ, ProcessFacts(spawned=True))


@pytest.mark.parametrize("environ", [{}, dict(WORKER), {"RANK": "1", "WORLD_SIZE": "2"}])
def test_detecting_is_pure(environ):
    """The environment comes in as any Mapping, is not changed, and the same one gives the same answer."""
    before = dict(environ)
    first = detect(MappingProxyType(environ))
    assert environ == before
    assert detect(environ) == first
    assert hash(first) == hash(detect(environ))


NAMES = st.sampled_from(sorted({*WORKER, "PET_RDZV_ID", "NODE_RANK"}))
VALUES = st.one_of(st.text(max_size=12), st.integers(-3, 9).map(str), st.sampled_from(["none", "True", UUID]))


@given(environ=st.dictionaries(NAMES, VALUES), spawned=st.booleans(), group=st.sampled_from([None, GROUP]))
def test_any_environment_gives_a_context_or_a_launch_error(environ: dict[str, str], spawned: bool, group: Any):
    """Whatever stands in the variables, the answer is a place within its world, or an error of this package."""
    try:
        context = detect(environ, ProcessFacts(group=group, spawned=spawned))
    except (LauncherError, NoSharedRunError):
        return
    assert isinstance(context, LaunchContext)
    assert 0 <= context.topology.rank < context.topology.world_size


def test_the_order_of_launchers_is_one_visible_tuple():
    """Precedence stands in one place; the last launcher always answers."""
    assert [detector.__module__.rpartition(".")[2] for detector in PRECEDENCE] == [
        "torchrun",
        "openmpi",
        "mpich",
        "slurm",
        "env_vars",
        "process_group",
        "single_process",
    ]
    assert PRECEDENCE[-1]({}, ProcessFacts()) is not None
