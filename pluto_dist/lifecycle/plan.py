"""What one ``init()`` set out to do: the facts and the decision, before anybody was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pluto_dist.contract.run_requests import CreateRunRequest
from pluto_dist.environments.context import LaunchContext
from pluto_dist.identity import Decision
from pluto_dist.settings.settings import Settings


@dataclass(frozen=True, slots=True)
class Plan:
    """What one ``init()`` set out to do.

    Attributes:
        settings: as the user set them.
        context: the launch.
        decision: the run's identity, or what must be agreed.
        request: the leader's create-run call, still without external id, metadata and default name.
        config: the user's config, a JSON object.
        nth: which ``init()`` of this attempt it is, counted from 1.
        host: this node's name.
        began: when ``init()`` was called, on the monotonic clock.
        fork_of: the display id of the run to fork from, where it was named so.
        environ: this process's environment, for what describes the job; not shown, for it holds secrets.
        cuda_device: torch's current device in the thread that called ``init()``; ``None`` where CUDA is not up.
    """

    settings: Settings
    context: LaunchContext
    decision: Decision
    request: CreateRunRequest
    config: dict[str, Any]
    nth: int
    host: str
    began: float
    fork_of: str = ""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    cuda_device: int | None = None

    @property
    def deadline(self) -> float:
        """When every step must be over, so that ``init()`` returns within its timeout."""
        return self.began + self.settings.timeout * 0.95

    @property
    def is_rank_zero(self) -> bool:
        return self.context.topology.is_rank_zero

    @property
    def variables(self) -> tuple[tuple[str, str], ...]:
        """What named the run, by variable; told where ranks disagree."""
        given = () if self.settings.run_id is None else (("run_id or PLUTO_RUN_ID", self.settings.run_id),)
        scope = self.context.scope
        return tuple(dict.fromkeys((*given, *self.context.variables, *(() if scope is None else scope.variables))))
