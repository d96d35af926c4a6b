"""What one ``init()`` decided, before any other rank or the tracker was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.contract.run_ref import Reference, RunName
from pluto_dist.contract.run_requests import CreateRunRequest
from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.topology import Topology
from pluto_dist.identity import Decision, Named
from pluto_dist.settings.settings import Settings


@dataclass(frozen=True, slots=True)
class Plan:
    """What one ``init()`` decided.

    Attributes:
        settings: of the user.
        context: the launch.
        decision: the run's id, or what the ranks must agree on to know it.
        request: the owner's create-run call, without external id, metadata and default name.
        config: the user's config, a JSON object.
        nth: number of this ``init()`` within the attempt, from 1.
        host: this node's name.
        started: when ``init()`` was called, on the monotonic clock.
        fork_of: the display id of the run to fork from; "" if it is not given by display id.
        environ: this process's environment, read by the probes; not shown, for it holds secrets.
        cuda_device: torch's current device in the thread that called ``init()``; ``None`` if CUDA is not initialised.
    """

    settings: Settings
    context: LaunchContext
    decision: Decision
    request: CreateRunRequest
    config: dict[str, Any]
    nth: int
    host: str
    started: float
    fork_of: str = ""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    cuda_device: int | None = None

    @property
    def topology(self) -> Topology:
        return self.context.topology

    @property
    def is_rank_zero(self) -> bool:
        return self.context.topology.is_rank_zero

    @property
    def continues_job(self) -> bool:
        """Whether this launch continues the run of its job (``resume``), in which another launch may be alive."""
        return isinstance(self.decision, Named) and self.decision.derived

    @property
    def deadline(self) -> float:
        """When every step must be over, so that ``init()`` returns within its timeout (monotonic clock)."""
        return self.started + self.settings.timeout * 0.95

    @property
    def variables(self) -> tuple[tuple[str, str], ...]:
        """The variables that name the run, shown if ranks disagree."""
        given = () if self.settings.run_id is None else (("run_id or PLUTO_RUN_ID", self.settings.run_id),)
        scope = self.context.scope
        return tuple(dict.fromkeys((*given, *self.context.variables, *(() if scope is None else scope.variables))))

    def outbox(self, reference: Reference, launch: str) -> Outbox:
        """The requests of that run that are kept, from the launch with this token."""
        name, begins = self.run_name(reference), self.settings.resume is False
        return Outbox(self.settings.spool, name, launch, resumes=self.continues_job, begins=begins)

    def run_name(self, reference: Reference) -> RunName:
        """The run of this tracker and project that ``reference`` refers to."""
        return RunName(self.settings.url_api, self.request.project_name, reference)
