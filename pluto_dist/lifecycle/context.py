"""What one rank works with in one run, handed to every step from the agreement on its id to its end."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_ref import RunName
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import AgreedId
from pluto_dist.rendezvous.run_channel import RunChannel


@dataclass(frozen=True, slots=True)
class RankContext:
    """One rank in one run.

    Attributes:
        plan: what ``init()`` decided.
        membership: this rank in the current attempt.
        channel: the messages about the run.
        agreed: the id of the run, on which all ranks agreed.
        client: of the tracker; ``None`` if none is to be asked.
        outbox: this rank's requests about the run.
        stop: set when this rank's part in the run ends.
    """

    plan: Plan
    membership: Membership
    channel: RunChannel
    agreed: AgreedId
    client: TrackerClient | None
    outbox: Outbox
    stop: threading.Event

    @property
    def run_name(self) -> RunName:
        """The run, as the tracker knows it."""
        return self.plan.run_name(self.agreed.reference)
