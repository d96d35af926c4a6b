"""The GPU that torch uses in this process."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pluto_dist.inventory.gpu import torch_device


@dataclass
class Cuda:
    """torch.cuda of a process that sees GPUs with these UUIDs; the test machine has none."""

    uuids: str
    current: int = 0
    contexts: tuple[int, ...] = ()
    initialized: bool = True
    calls: list[str] = field(default_factory=list)

    def is_initialized(self) -> bool:
        return self.initialized

    def current_device(self) -> int:
        self.calls.append("current_device")
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
        (Cuda("a", initialized=False), 0, None),
    ],
)
def test_the_gpu_of_this_rank(cuda, local_rank, uuid):
    """The current device if one was set; else the one with a context, the local rank, or the only GPU."""
    assert uuid_of(cuda.torch(), local_rank) == uuid


def test_uninitialized_cuda():
    """CUDA is not called if it is not initialized, since a call would initialize it; a failing call means unknown."""
    uninitialized = Cuda("a", initialized=False)
    assert torch_device.current_device(uninitialized.torch()) is None
    assert uninitialized.calls == []
    assert torch_device.current_device(SimpleNamespace()) is torch_device.current_device(None) is None
    assert uuid_of(SimpleNamespace(cuda=Cuda("ab"), _C=None), 1) == "b"
    assert torch_device.uuid_in_use(SimpleNamespace(), 3, 0) is None


def test_the_private_function_raises():
    """What tells contexts is private to torch: if it raises, the local rank says which GPU it is."""

    def raises(device: int) -> bool:
        raise RuntimeError("not this signature")

    module = SimpleNamespace(cuda=Cuda("ab"), _C=SimpleNamespace(_cuda_hasPrimaryContext=raises))
    assert uuid_of(module, 1) == "b"


def test_the_real_torch():
    """A build without CUDA has torch.cuda too."""
    assert torch_device.current_device(torch) is None or torch.cuda.is_initialized()
