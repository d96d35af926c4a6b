"""torchrun's variables: every launch mode, its rendezvous id, its stores and folders."""

from __future__ import annotations

import pytest

from environments.contradictions import assert_is_rejected
from environments.typical import UUID, UUID_AS_INT, WORKER, worker
from pluto_dist.environments import detect
from pluto_dist.environments.topology import Topology
from pluto_dist.environments.torchrun import is_random

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
    """Only an id that torchrun makes up (a uuid4 in lower case, or its integer) counts as random."""
    assert is_random(rendezvous_id) is expected


def test_where_a_worker_stands():
    """The topology is torchrun's, number for number."""
    environ = worker(
        RANK="5", WORLD_SIZE="8", LOCAL_RANK="1", LOCAL_WORLD_SIZE="4", GROUP_RANK="1", GROUP_WORLD_SIZE="2"
    )
    assert detect(environ).topology == Topology(5, 8, 1, 4, 1, 2)


def test_virtual_local_ranks_elect_nobody():
    """Under --virtual-local-rank every worker has LOCAL_RANK 0; only global rank 0 is rank 0."""
    workers = [detect(worker(RANK=str(rank), WORLD_SIZE="4", LOCAL_RANK="0")) for rank in range(4)]
    assert {context.topology.local_rank for context in workers} == {0}
    assert [context.topology.is_rank_zero for context in workers] == [True, False, False, False]


@pytest.mark.parametrize(("count", "node"), [("2", (None, None)), ("1", (0, 1)), (None, (None, None))])
def test_a_number_of_nodes_without_the_nodes_own(count, node):
    """GROUP_WORLD_SIZE alone gives no node, unless there is one: a node is never recorded as missing for that."""
    topology = detect(worker(GROUP_RANK=None, GROUP_WORLD_SIZE=count)).topology
    assert (topology.node_rank, topology.node_count) == node


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
    """There is an address to connect to only if the agent hosts a store."""
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
    """The folder is taken from the error file only if the agent made that."""
    assert detect(worker(TORCHELASTIC_ERROR_FILE=error_file)).attempt_folder == folder


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
    "LOCAL_RANK beyond its node": (worker(LOCAL_RANK="2"), ("local_rank is 2", "local_world_size is 2", "unchanged")),
    "GROUP_RANK beyond the nodes": (worker(GROUP_RANK="1"), ("node_rank is 1", "node_count is 1")),
}


@pytest.mark.parametrize(("environ", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_an_environment_that_contradicts_itself(environ, words):
    """A place that is unknown is an error with the variable and its value; it is never guessed."""
    assert_is_rejected(environ, words)
