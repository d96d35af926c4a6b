"""What the ranks of a launch say to each other, and under which key of the store.

This package carries messages; who sends which is ``joining``, ``leading`` and ``lifecycle``. Three scopes, because
torchrun's store outlives the attempts of its launch:

- the launch: the token and the runs it began, meant to be found again by the next attempt; every node also
  remembers them in its launch folder, for the store may die with its host;
- the attempt: which nodes take part, with which hardware (``attempt``);
- the run: the n-th ``init()`` of the attempt (``run``).
"""

from __future__ import annotations

from pluto_dist.exchange.attempt import NODE_LIMIT, Exchange
from pluto_dist.exchange.messages import MESSAGE_LIMIT, Begun, Failure, Member, Outcome, SignedId
from pluto_dist.exchange.run import RunExchange

__all__ = [
    "MESSAGE_LIMIT",
    "NODE_LIMIT",
    "Begun",
    "Exchange",
    "Failure",
    "Member",
    "Outcome",
    "RunExchange",
    "SignedId",
]
