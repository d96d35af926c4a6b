"""Where a worker stands in its launch: which rank of how many, on which node of how many.

The words are torchrun's. What a launcher does not tell is ``None``, never a guess.

>>> Topology(rank=0, world_size=2).is_rank_zero
True
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topology:
    """Ranks and nodes count from 0.

    Attributes:
        rank: global rank.
        world_size: number of workers of the attempt.
        local_rank: rank among the workers of this node; 0 on every worker under ``--virtual-local-rank``,
            so it elects nobody.
        local_world_size: number of workers on this node.
        node_rank: torchrun's GROUP_RANK.
        node_count: torchrun's GROUP_WORLD_SIZE.
    """

    rank: int
    world_size: int
    local_rank: int | None = None
    local_world_size: int | None = None
    node_rank: int | None = None
    node_count: int | None = None

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is global rank 0, the one that creates and ends the run."""
        return self.rank == 0
