"""What a rank knows of its own GPU, and what its node makes of it, as records."""

from __future__ import annotations

from dataclasses import dataclass

from pluto_dist.inventory.limits import DEVICE_LIMIT
from pluto_dist.serialization.codec import Record, decode_int, decode_text, optional, required, several


@dataclass(frozen=True, slots=True)
class RankView(Record):
    """What one rank tells its node."""

    rank: int = required(decode_int)
    """Its global rank."""
    visible: str | None = optional(decode_text)
    """Its CUDA_VISIBLE_DEVICES, as it is."""
    uuid: str | None = optional(decode_text)
    """The GPU that its torch uses, by CUDA; known once CUDA is initialised."""
    devices: tuple[int, ...] | None = optional(several(decode_int, DEVICE_LIMIT))
    """The minors of the device files that it may open; ``None`` where there are none."""


@dataclass(frozen=True, slots=True)
class RankGpu(Record):
    """The GPU of one rank."""

    rank: int = required(decode_int)
    gpu: int | None = optional(decode_int)
    """By NVML's number; ``None`` where that cannot be told."""
    visible: str | None = optional(decode_text)
    """Its CUDA_VISIBLE_DEVICES, where the ranks of its node have lists of their own."""
    uuid: str | None = optional(decode_text)
    """The GPU that its torch uses, where NVML shows the node no such GPU (a cgroup hides it, say)."""
