"""Ranks for tests of single steps: plans and contexts, over a store in this process."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.environments import detect
from pluto_dist.identity import decide
from pluto_dist.lifecycle.agreement import agree
from pluto_dist.lifecycle.context import RankContext
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import Member
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.run_channel import RunChannel
from pluto_dist.rendezvous.store import Store
from pluto_dist.settings.arguments import Arguments, resolve


def plan_of(environ: dict[str, str], *, host: str = "here", cuda_device: int | None = None, **arguments: Any) -> Plan:
    """What ``init(**arguments)`` decides in ``environ``."""
    resolved = resolve(Arguments(**arguments), environ)
    context = detect(environ)
    decision = decide(context, run_id=resolved.settings.run_id, resume=resolved.settings.resume)
    given = (resolved.settings, context, decision, resolved.request, {}, 1, host, time.monotonic())
    return Plan(*given, environ=environ, cuda_device=cuda_device)


def member_of(store: Store, rank: int = 0, node: str = "0", nonce: str = "n", host: str = "here") -> Membership:
    """A rank that has registered in the current attempt, on a node that keeps nothing."""
    return Membership(store, Member(rank, node, nonce, host), NodeState(None))


def context_of(
    plan: Plan,
    membership: Membership,
    *,
    client: TrackerClient | None = None,
    spool: Path | None = None,
    channel: RunChannel | None = None,
) -> RankContext:
    """The rank once it has agreed with the others on the token and the run's id."""
    if not membership.token:
        membership.agree_on_token(None, 0)
    channel = channel or membership.run(plan.nth)
    agreed = agree(plan, channel, membership.token)
    outbox = Outbox(spool, plan.run_name(agreed.reference), membership.token)
    return RankContext(plan, membership, channel, agreed, client, outbox, threading.Event())
