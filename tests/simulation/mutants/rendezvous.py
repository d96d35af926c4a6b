"""Mutants of ``pluto_dist/rendezvous``: how ranks meet, and what an attempt hands to the next one."""

from __future__ import annotations

from simulation.mutants.mutant import Mutant

MEMBERSHIP = (
    Mutant(
        "token-of-each-rank",
        "rendezvous/membership.py",
        before='token = known or self.store.compare_set("token", "", fresh)',
        after="token = known or fresh",
        breaks="All ranks of a launch have one token, and with it one run.",
    ),
    Mutant(
        "token-lost-with-the-store",
        "rendezvous/membership.py",
        before="if mine is not None and TOKEN.fullmatch(mine):",
        after="if mine is not None and node_count == 1 and TOKEN.fullmatch(mine):",
        breaks="A restart on several nodes is in the run of its launch, also if every attempt has a store of its own.",
    ),
    Mutant(
        "store-not-restored",
        "rendezvous/membership.py",
        before="            self._restore(mine)\n",
        after="",
        breaks="A restart with a store of its own knows of its launch's earlier attempt, and is not refused by it.",
    ),
)

RUN_CHANNEL = (
    Mutant(
        "last-outcome-counts",
        "rendezvous/run_channel.py",
        before='return _outcome(self._store.compare_set(f"{self._scope}/outcome", "", dump(outcome.to_json())))',
        after='self._store.set(f"{self._scope}/outcome", dump(outcome.to_json()))\n        return outcome',
        breaks="The ranks of an attempt agree on the outcome of the run's creation, which is the one published first.",
    ),
    Mutant(
        "refusal-remembered",
        "rendezvous/run_channel.py",
        before="""\
        if outcome.kind == "error":
            return
""",
        after="",
        breaks="The restart of a launch that was refused is checked again, and does not take the run for its own.",
    ),
    Mutant(
        "key-of-each-node",
        "rendezvous/run_channel.py",
        before='return self._store.compare_set(f"{self._scope}/key", "", mine)[:_KEY_LIMIT]',
        after="return mine",
        breaks="An attempt knows its own record from that of a later one, and reports its end.",
    ),
)

SESSION = (
    Mutant(
        "one-nonce-for-all-attempts",
        "rendezvous/session.py",
        before='nonce="one" if context.restart_count is None else node_state.attempt_nonce(context),',
        after='nonce="one",',
        breaks="A restart is an attempt of its own, with roles and counters that nobody has used.",
    ),
)

MUTANTS = (*MEMBERSHIP, *RUN_CHANNEL, *SESSION)
