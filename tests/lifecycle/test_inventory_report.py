"""How a node hears from its ranks which GPUs they use: at once where all speak, within a bound where one does not."""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from environments.typical import MPIRUN, TORCHRUN
from lifecycle.ranks import member_of, plan_of
from pluto_dist.contract.run_ref import Reference
from pluto_dist.lifecycle.inventory_report import VIEW_SECONDS, publish_inventory
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import AgreedId
from pluto_dist.rendezvous.store import LocalStore

TWO_OF_MPI = MPIRUN | {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
RANK_1 = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
TWO_OF_TORCHRUN = TORCHRUN | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}


@pytest.fixture
def cuda_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch as it is in a process that uses a GPU, which this machine has not."""
    properties = SimpleNamespace(uuid="5fd4f087")
    cuda = SimpleNamespace(device_count=lambda: 1, get_device_properties=lambda device: properties)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))


class Node:
    """A node whose rank 0 collects."""

    def __init__(self) -> None:
        self.store = LocalStore()
        self.leader = self.place(0)

    def place(self, rank: int) -> Membership:
        membership = member_of(self.store, rank, nonce="monday")
        membership.token = "a" * 20
        return membership

    def inventory(self, leaders_plan: Plan) -> tuple[dict[str, Any], float]:
        """What the node hands over, and after how many seconds."""
        agreed: Future[AgreedId] = Future()
        agreed.set_result(AgreedId(Reference("external id", "job"), "", 0, "here"))
        began = time.monotonic()
        thread = publish_inventory(self.leader, agreed, leaders_plan)
        assert thread is not None
        thread.join(10)
        return self.leader.inventories()["0"], time.monotonic() - began


def ranks_in(handed_over: dict[str, Any]) -> list[tuple[int, str | None]]:
    ranks = handed_over["inventory"]["ranks"]
    return [(each["rank"], each.get("visible")) for each in ranks]


def test_ranks_with_lists_of_their_own_are_heard():
    """What the other rank told is in the inventory, and the node does not wait any longer."""
    node = Node()
    assert (
        publish_inventory(node.place(1), Future(), plan_of(TWO_OF_MPI | RANK_1 | {"CUDA_VISIBLE_DEVICES": "1"})) is None
    )
    found, seconds = node.inventory(plan_of(TWO_OF_MPI | {"CUDA_VISIBLE_DEVICES": "0"}))
    assert ranks_in(found) == [(0, "0"), (1, "1")]
    assert seconds < VIEW_SECONDS


@pytest.mark.parametrize("message", ["", "[" * 100_000, '{"rank": "one"}', '{"rank": -1}', '{"rank": 1, "visible": 7}'])
def test_a_garbled_word_is_no_word(message):
    node = Node()
    node.store.set(f"0/views/0/{node.store.add('0/views/0', 1)}", message)
    found, _ = node.inventory(plan_of(TWO_OF_MPI))
    assert ranks_in(found) == [(0, None)]


def test_a_silent_rank_is_waited_for_within_a_bound():
    """Its node hands over what it knows; a rank that has said that it joined is not waited for at all."""
    node = Node()
    found, seconds = node.inventory(plan_of(TWO_OF_MPI))
    assert ranks_in(found) == [(0, None)]
    assert VIEW_SECONDS <= seconds < VIEW_SECONDS + 2

    node = Node()
    node.leader.run(1).count("joined", 2)
    assert node.inventory(plan_of(TWO_OF_MPI))[1] < VIEW_SECONDS


def test_workers_of_torchrun_that_all_see_the_same_say_nothing():
    """They inherit one list, so the one that collects knows what all of them see."""
    node = Node()
    rank_1 = TWO_OF_TORCHRUN | {"RANK": "1", "LOCAL_RANK": "1"}
    assert publish_inventory(node.place(1), Future(), plan_of(rank_1 | {"CUDA_VISIBLE_DEVICES": "0,1"})) is None
    assert node.store.add("0/views/0", 0) == 0
    found, seconds = node.inventory(plan_of(TWO_OF_TORCHRUN | {"CUDA_VISIBLE_DEVICES": "0,1"}))
    assert ranks_in(found) == [(0, None), (1, None)]
    assert found["inventory"]["visible"] == "0,1"
    assert seconds < VIEW_SECONDS


def test_workers_of_torchrun_of_which_one_has_cuda_up(cuda_is_up):
    """It says so; the other one sees what all of them inherited."""
    node = Node()
    node.leader.run(1).count("joined", 2)
    found, seconds = node.inventory(plan_of(TWO_OF_TORCHRUN, cuda_device=0))
    assert found["inventory"]["ranks"] == [{"rank": 0, "uuid": "5fd4f087"}, {"rank": 1}]
    assert seconds < VIEW_SECONDS


def test_a_process_alone_tells_the_gpu_that_torch_uses(cuda_is_up):
    """Nobody knows which GPUs a program of one process will use, until torch has one in use."""
    assert "ranks" not in Node().inventory(plan_of({}))[0]["inventory"]
    found, _ = Node().inventory(plan_of({}, cuda_device=0))
    assert found["inventory"]["ranks"] == [{"rank": 0, "uuid": "5fd4f087"}]


def test_without_gpus_in_the_metadata_no_list_is_told():
    """The switch of the family holds for what ranks see too; which ranks they are stays."""
    node = Node()
    off = {"metadata": {"gpu": False}}
    environ = {"CUDA_VISIBLE_DEVICES": "1"}
    publish_inventory(node.place(1), Future(), plan_of(TWO_OF_MPI | RANK_1 | environ, **off))
    found, _ = node.inventory(plan_of(TWO_OF_MPI | environ, **off))
    assert ranks_in(found) == [(0, None), (1, None)]
    assert "visible" not in found["inventory"]


def test_without_metadata_nobody_is_asked():
    """No rank speaks, and none is waited for: what they see would be told nowhere."""
    node = Node()
    publish_inventory(node.place(1), Future(), plan_of(TWO_OF_MPI | RANK_1, metadata=False))
    assert node.store.add("0/views/0", 0) == 0
    _, seconds = Node().inventory(plan_of(TWO_OF_MPI, metadata=False))
    assert seconds < VIEW_SECONDS
