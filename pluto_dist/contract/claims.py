"""Claims on a run: how a launch that would continue it learns whether another launch is alive in it.

Pure. A launch that would continue a run writes a claim into the run's config, under ``pluto_dist.claims`` and its own
token. A launch that is alive in the run reads the config at each of its heartbeats, and answers claims that have no
answer. A claim that nobody answers for 1.5 heartbeats and 2 s is granted. No clock is compared with another one's, and
nothing is written periodically: on the hosted tracker concurrent changes of a config lose keys.

Of two launches that claim a run at the same time the one with the lower token answers the other.

>>> config = {"pluto_dist": claim("k3", "node-a")}
>>> unanswered(config, "zz"), unanswered(config, "k3")
(['k3'], [])
>>> config["pluto_dist"]["claims"]["k3"] |= answer(["k3"], "zz", "node-b")["claims"]["k3"]
>>> unanswered(config, "zz"), answered_by(config, "k3")
([], 'node-b')
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pluto_dist.contract.attempts import ours

FIELD = "claims"


def claim(token: str, host: str) -> dict[str, Any]:
    """A change of ``config.pluto_dist``: the claim of the launch with this token."""
    return {FIELD: {token: {"host": host}}}


def answer(claimants: Iterable[str], token: str, host: str) -> dict[str, Any]:
    """A change of ``config.pluto_dist``: the launch with this token answers that it is alive, on ``host``."""
    return {FIELD: {claimant: {"alive": {"launch": token, "host": host}} for claimant in claimants}}


def withdraw(token: str) -> dict[str, Any]:
    """A change of ``config.pluto_dist``: the claim is over. Trackers merge configs, so its key stays, with null."""
    return {FIELD: {token: None}}


def recorded(config: Any) -> dict[str, dict[str, Any]]:
    """The claims in a run's config, by token; what is none is ignored."""
    return {token: each for token, each in ours(config, FIELD).items() if isinstance(each, dict)}


def unanswered(config: Any, token: str) -> list[str]:
    """The claims of other launches than the one with this token that nobody has answered."""
    return [other for other, each in recorded(config).items() if other != token and "alive" not in each]


def answered_by(config: Any, token: str) -> str | None:
    """The host of the launch that answered the claim of ``token``; ``None`` if there is no answer."""
    alive = recorded(config).get(token, {}).get("alive")
    if alive is None:
        return None
    host = alive.get("host") if isinstance(alive, dict) else None
    return host if isinstance(host, str) else "an unknown host"
