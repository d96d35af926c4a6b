"""The place of a worker in its launch: its rank, and its node.

The terms are torchrun's. What a launcher does not give is ``None``, never a guess. An impossible place is an error.

>>> Topology(rank=0, world_size=2).is_rank_zero
True
>>> Topology(rank=2, world_size=2)
Traceback (most recent call last):
    ...
pluto_dist.errors.LauncherError: rank is 2 but world_size is 2: rank counts from 0 to world_size - 1.
Pass the launcher's variables on to the script unchanged, or start the script with torchrun.
"""

from __future__ import annotations

from dataclasses import dataclass

from pluto_dist.errors import LauncherError

_PAIRS = (("rank", "world_size"), ("local_rank", "local_world_size"), ("node_rank", "node_count"))
_FIX = "Pass the launcher's variables on to the script unchanged, or start the script with torchrun."


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
        node_count: torchrun's GROUP_WORLD_SIZE; known only together with ``node_rank``, see :func:`node_place`.

    Raises:
        LauncherError: a number is not below its count, or ``node_count`` is known without ``node_rank``.
    """

    rank: int
    world_size: int
    local_rank: int | None = None
    local_world_size: int | None = None
    node_rank: int | None = None
    node_count: int | None = None

    def __post_init__(self) -> None:
        for name, size_name in _PAIRS:
            number, size = getattr(self, name), getattr(self, size_name)
            if size is not None and not 0 <= (number or 0) < size:
                raise LauncherError(
                    f"{name} is {number} but {size_name} is {size}: {name} counts from 0 to {size_name} - 1.\n{_FIX}"
                )
        if self.node_count is not None and self.node_rank is None:
            raise LauncherError(
                f"node_count is {self.node_count} but node_rank is unknown, so this node cannot be identified.\n{_FIX}"
            )

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is global rank 0, the one that creates and ends the run."""
        return self.rank == 0


def node_place(node_rank: int | None, node_count: int | None) -> tuple[int | None, int | None]:
    """Node rank and node count as :class:`Topology` takes them: without the rank, a count other than 1 is dropped.

    >>> node_place(1, 2), node_place(None, 2), node_place(None, 1)
    ((1, 2), (None, None), (0, 1))
    """
    if node_rank is None:
        return (0, 1) if node_count == 1 else (None, None)
    return node_rank, node_count
