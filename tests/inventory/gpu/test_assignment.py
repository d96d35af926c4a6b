"""Which GPU each rank uses, from CUDA_VISIBLE_DEVICES in all its forms and from torch; the rest stays unknown."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pluto_dist.inventory.gpu import torch_device
from pluto_dist.inventory.gpu.assignment import of_ranks
from pluto_dist.inventory.ranks import RankGpu, RankView
from pluto_dist.inventory.records import Gpu, GpuReport, MigInstance

SLICE = MigInstance(uuid="MIG-11aa", name="NVIDIA A100 MIG 3g.20gb")


def node(*names: str, mig: bool = False) -> GpuReport:
    """GPUs of these names, the later ones at lower bus addresses."""
    devices = [
        Gpu(index=n, name=name, uuid=f"GPU-{n}{n}ff", pci_bus_id=f"0000:{n:02}", mig_instances=(SLICE,) if mig else ())
        for n, name in enumerate(names)
    ]
    return GpuReport(count=len(names), devices=tuple(devices))


FOUR, MIXED, LOST = node(*["H100"] * 4), node("H100", "T4"), GpuReport(count=2, bad=((1, "GpuIsLost"),))


@pytest.mark.parametrize(
    ("gpus", "size", "visible", "expected"),
    [
        (FOUR, 4, None, (0, 1, 2, 3)),
        (FOUR, 2, None, (0, 1)),
        (FOUR, 2, "3,1", (3, 1)),
        (FOUR, 2, " 3 , 1 ", (3, 1)),
        (FOUR, 2, "GPU-22,GPU-00ff", (2, 0)),
        (FOUR, 2, "GPU-,GPU-00ff", (None, None)),
        (FOUR, 2, "", (None, None)),
        (FOUR, 2, "-1", (None, None)),
        (FOUR, 2, "9,1", (None, None)),
        (FOUR, 2, "1,x,2", (None, None)),
        (FOUR, 1, "1,x,2", (1,)),
        (FOUR, 2, "0", (None, None)),  # they share it, or a cgroup shows each another GPU under that number
        (MIXED, 2, None, (None, None)),
        (MIXED, 2, "GPU-11ff,GPU-00ff", (1, 0)),
        (node("A100", mig=True), 1, "MIG-11aa", (0,)),
        (LOST, 1, None, (None,)),
        (GpuReport(count=0), 2, None, (None, None)),
    ],
)
def test_ranks_that_share_a_list(gpus, size, visible, expected):
    views = [RankView(8 + place, visible) for place in range(size)]
    assert of_ranks(gpus, views, size=size) == tuple(RankGpu(8 + n, gpu) for n, gpu in enumerate(expected))


@pytest.mark.parametrize(
    ("gpus", "told", "expected"),
    [
        (FOUR, {0: "0", 1: "1", 2: "3", 3: "2"}, {0: 0, 1: 1, 2: 3, 3: 2}),
        (FOUR, {5: "2,3", 1: "0,1"}, {1: 0, 5: 2}),
        (FOUR, {0: "0", 1: None}, {0: 0, 1: 0}),
        (FOUR, {0: "GPU-33", 1: "x"}, {0: 3, 1: None}),
        (MIXED, {0: "0", 1: "1"}, {0: None, 1: None}),
    ],
)
def test_ranks_with_lists_of_their_own(gpus, told, expected):
    """Each starts with the first of its list, and each list is kept."""
    found = of_ranks(gpus, [RankView(rank, visible) for rank, visible in told.items()], size=len(told))
    assert {each.rank: each.gpu for each in found} == expected
    assert [each.rank for each in found] == sorted(told)
    assert {each.rank: each.visible for each in found} == told


def test_a_rank_that_has_not_told():
    """Without it nobody knows which entry of a shared list is whose; a list of its own still says what it says."""
    shared = [RankView(0, "0,1,2"), RankView(2, "0,1,2")]
    assert [each.gpu for each in of_ranks(FOUR, shared, size=3)] == [None, None]
    own = [RankView(0, "0"), RankView(2, "2")]
    assert [each.gpu for each in of_ranks(FOUR, own, size=3)] == [0, 2]


def test_numbers_in_the_order_of_the_bus():
    """Unlike GPUs are numbered by CUDA's own taste, unless it is told to go by the bus."""
    views = [RankView(0), RankView(1)]
    assert [each.gpu for each in of_ranks(MIXED, views, size=2, in_bus_order=True)] == [0, 1]


def test_the_gpu_that_torch_names():
    """It settles what the list leaves open, or says otherwise; one that NVML does not show is kept by its UUID."""
    views = [RankView(0, "0,1", "11ff"), RankView(1, "0,1", "00ff"), RankView(2, "0,1", "22ff"), RankView(3, "0,1")]
    found = of_ranks(MIXED, views, size=4)
    assert found == (RankGpu(0, 1), RankGpu(1, 0), RankGpu(2, None, uuid="22ff"), RankGpu(3, None))
    (sliced,) = of_ranks(node("A100", mig=True), [RankView(0, "", "11aa")], size=1)
    assert sliced.gpu == 0


@dataclass
class Cuda:
    """torch.cuda of a process that sees GPUs with these UUIDs, for the machine of the tests has none."""

    uuids: str
    current: int = 0
    contexts: tuple[int, ...] = ()
    up: bool = True
    asked: list[str] = field(default_factory=list)

    def is_initialized(self) -> bool:
        return self.up

    def current_device(self) -> int:
        self.asked.append("current_device")
        return self.current

    def device_count(self) -> int:
        return len(self.uuids)

    def get_device_properties(self, device: int) -> SimpleNamespace:
        return SimpleNamespace(uuid=self.uuids[device])

    def torch(self) -> SimpleNamespace:
        return SimpleNamespace(
            cuda=self, _C=SimpleNamespace(_cuda_hasPrimaryContext=lambda device: device in self.contexts)
        )


def uuid_of(torch: Any, local_rank: int | None) -> str | None:
    device = torch_device.current_device(torch)
    return None if device is None else torch_device.uuid_in_use(torch, device, local_rank)


@pytest.mark.parametrize(
    ("cuda", "local_rank", "uuid"),
    [
        (Cuda("abcd", current=3), 1, "d"),
        (Cuda("abcd", current=3, contexts=(0,)), 1, "d"),
        (Cuda("abcd", contexts=(2,)), 1, "c"),
        (Cuda("abcd", contexts=(2,)), None, "c"),
        (Cuda("abcd", contexts=(0, 2)), 1, "b"),
        (Cuda("abcd"), 1, "b"),
        (Cuda("abcd"), 0, "a"),
        (Cuda("abcd"), None, None),
        (Cuda("abcd"), 4, None),
        (Cuda("c"), 2, "c"),
        (Cuda("c"), None, "c"),
        (Cuda(""), 0, None),
        (Cuda("a", up=False), 0, None),
    ],
)
def test_torch_is_asked_for_the_gpu_of_this_rank(cuda, local_rank, uuid):
    """The current device if one was set; else the one with a context, the rank's own place, or the only GPU."""
    assert uuid_of(cuda.torch(), local_rank) == uuid


def test_torch_without_cuda_is_left_alone():
    """No question to CUDA where it is not initialised, for it would bring it up; what fails is unknown."""
    down = Cuda("a", up=False)
    assert torch_device.current_device(down.torch()) is None
    assert down.asked == []
    assert torch_device.current_device(SimpleNamespace()) is torch_device.current_device(None) is None
    assert uuid_of(SimpleNamespace(cuda=Cuda("ab"), _C=None), 1) == "b"
    assert torch_device.uuid_in_use(SimpleNamespace(), 3, 0) is None


def test_the_real_torch():
    """A build without CUDA has a torch.cuda all the same."""
    assert torch_device.current_device(torch) is None or torch.cuda.is_initialized()
