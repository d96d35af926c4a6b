"""The ranks agree on the external id of their run."""

from __future__ import annotations

from pluto_dist.contract.run_ref import Reference
from pluto_dist.errors import RunIdMismatchError
from pluto_dist.identity import NeedsLaunchToken
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.rendezvous.messages import AgreedId, Outcome
from pluto_dist.rendezvous.run_channel import RunChannel


def agree(plan: Plan, channel: RunChannel, token: str) -> AgreedId:
    """The id that every rank of the launch uses.

    Args:
        plan: what this rank's ``init()`` decided.
        channel: the messages about the run.
        token: the launch's.

    Raises:
        RunIdMismatchError: this rank derived another id than the rank that proposed one first.
    """
    decision = plan.decision
    if isinstance(decision, NeedsLaunchToken):
        mine = Reference("external id", decision.external_id(token, plan.nth))
    else:
        mine = decision.reference_of(plan.nth)
    agreed = channel.propose_run_id(mine, decision.source, plan.variables)
    if agreed.reference == mine:
        return agreed
    if isinstance(decision, NeedsLaunchToken) and decision.is_same_run(agreed.reference, token, plan.nth):
        return agreed
    error = RunIdMismatchError(
        "ranks of one launch name different runs:\n"
        f"  rank {agreed.rank} on {agreed.host}: {agreed.reference.value!r} from {agreed.source}\n"
        f"  rank {plan.topology.rank} on {plan.host}: {mine.value!r} from {decision.source}\n"
        f"{_differing(agreed.variables, plan.variables)}"
        "Give every rank the same run_id and PLUTO_RUN_ID (or none), and every node the same --rdzv-id."
    )
    channel.publish_outcome(Outcome("error", error=type(error).__name__, message=str(error)))
    raise error


def _differing(theirs: tuple[tuple[str, str], ...], mine: tuple[tuple[str, str], ...]) -> str:
    """One line for each variable of which the two ranks have different values."""
    there, here = dict(theirs), dict(mine)
    names = [name for name in dict.fromkeys((*there, *here)) if there.get(name) != here.get(name)]
    return "".join(f"  {name} is {_shown(there.get(name))} there and {_shown(here.get(name))} here\n" for name in names)


def _shown(value: str | None) -> str:
    return "not set" if value is None else repr(value[:80])
