"""Mutants of ``pluto_dist/lifecycle``: from the agreement on the run's id to its creation, or its recovery."""

from __future__ import annotations

from simulation.mutants.mutant import Mutant

AGREEMENT = (
    Mutant(
        "restart-is-another-run",
        "lifecycle/agreement.py",
        before="decision.external_id(token, plan.nth)",
        after="decision.external_id(token, plan.nth + (plan.context.restart_count or 0))",
        breaks="One launch is one run, however often it is restarted.",
    ),
    Mutant(
        "mismatch-ignored",
        "lifecycle/agreement.py",
        before="if agreed.reference == mine:",
        after="if agreed.reference.kind == mine.kind:",
        breaks="Ranks that name different runs are told so, and none of them joins a run that it did not name.",
    ),
    Mutant(
        "variables-published",
        "lifecycle/plan.py",
        before="""\
return tuple(dict.fromkeys((*given, *self.context.variables, *(() if scope is None else scope.variables))))""",
        after="""\
key = self.environ.secret("PLUTO_API_KEY")
        return tuple(dict.fromkeys((*given, *(() if key is None else (("PLUTO_API_KEY", key.reveal()),)))))""",
        breaks="The API key is in no message that a rank writes into the store.",
    ),
    Mutant(
        "init-unbounded",
        "api.py",
        before="return participant.settled.result(timeout=left)",
        after="return participant.settled.result()",
        breaks="init() returns within its timeout, also if the rank that creates the run is stopped.",
    ),
)

CREATION = (
    Mutant(
        "begun-is-believed",
        "lifecycle/creation.py",
        before="(creation.prior is not None and attempts.has_launch(records, creation.launch)):",
        after="creation.prior is not None:",
        breaks="A launch that is refused stays out of the run, also when its launcher restarts it.",
    ),
    Mutant(
        "restart-revives-cancelled",
        "lifecycle/creation.py",
        before="        return None\n    refuse_cancelled(state)\n",
        after="        return None\n",
        breaks="A restart does not set a run to RUNNING that a person cancelled.",
    ),
    Mutant(
        "own-create-taken-for-anothers",
        "lifecycle/creation.py",
        before="    if creation.key in records or (creation.prior",
        after="    if (creation.prior",
        breaks="A rank does not take the run that another rank of its launch has just created for another launch's.",
    ),
    Mutant(
        "created-after-the-end",
        "lifecycle/creation.py",
        before="        if not is_open or context.channel.outcome() is not None:\n",
        after="        if False:\n",
        breaks="No create comes after the end, or after another rank's refusal.",
    ),
    Mutant(
        "twin-stays",
        "lifecycle/creation.py",
        before="if answer.resumed and creation.prior is None and plan.continues_job:",
        after="if answer.resumed and creation.prior is not None and plan.continues_job:",
        breaks="Of two launches that create one run at the same moment one leaves it.",
    ),
    Mutant(
        "a-cancel-is-taken-back",
        "lifecycle/creation.py",
        before="    if answer.resumed and known is None:\n        _refuse_cancelled_run(",
        after="    if False:\n        _refuse_cancelled_run(",
        breaks="A cancelled run that only its creation finds is left, and cancelled again.",
    ),
    Mutant(
        "prior-attempt-ignored",
        "lifecycle/creation.py",
        before="prior=channel.prior_attempt(),",
        after="prior=None,",
        breaks="A restart goes on in the run of its own launch, and never waits for, or is refused by, itself.",
    ),
    Mutant(
        "records-not-continued",
        "lifecycle/creation.py",
        before="topology, earlier = plan.topology, {} if known is None else attempts.recorded(known.config)",
        after="topology, earlier = plan.topology, dict[str, Any]()",
        breaks="No two attempts of a run have one number.",
    ),
    Mutant(
        "no-grant-awaited",
        "lifecycle/creation.py",
        before="return await_grant(context, client, found) if plan.continues_job else found",
        after="return found",
        breaks="A launch with resume does not join a run in which another launch is alive.",
    ),
)

RESUME = (
    Mutant(
        "claim-counts-before-it-is-made",
        "client/claims.py",
        before="            until += time.monotonic() - began",
        after="            until += 0.0",
        breaks="Another launch has its time to answer a claim from the moment on that it can see it.",
    ),
    Mutant(
        "cancel-while-it-waits",
        "lifecycle/resume.py",
        before="    channel.end_wait()\n    refuse_cancelled(state)\n",
        after="    channel.end_wait()\n",
        breaks="A run that is cancelled while a launch waits for it is not continued.",
    ),
    Mutant(
        "not-set-back",
        "client/lookup.py",
        before="        set_back(client, resumed.run_id, before, deadline)\n",
        after="        pass\n",
        breaks="A refused launch leaves the status as it was, also if it had to resume the run to find it.",
    ),
    Mutant(
        "alive-by-updated-at",
        "client/claims.py",
        before="silent = 0.0 if found.heartbeat is None else self.client.server_time - found.heartbeat",
        after="silent = 0.0 if found.last_sign is None else self.client.server_time - found.last_sign",
        breaks="A launch is not taken for ended because its run was not changed for a while.",
    ),
    Mutant(
        "granted-too-early",
        "client/claims.py",
        before="MISSED_HEARTBEATS = 1.5",
        after="MISSED_HEARTBEATS = 0.5",
        breaks="A claim is granted only after a living launch has had a heartbeat at which to answer it.",
    ),
    Mutant(
        "monitors-end-believed",
        "client/claims.py",
        before='if not ends or ends[-1].source in ("api", "resume"):',
        after="if not ends or ends[-1].to_status == found.status:",
        breaks="A run that the tracker's monitor ended may have a living launch, whose answer is waited for.",
    ),
    Mutant(
        "claim-not-withdrawn",
        "client/claims.py",
        before="""\
            try:
                self._change(claims.withdraw(self.token), time.monotonic() + _WITHDRAW_SECONDS)
            except TrackerError as error:
                logger.debug("the claim on the run stays in its config: %s", error)
            raise
""",
        after="""\
            raise
""",
        breaks="A launch that is refused leaves no claim in the run's config.",
    ),
)

ELECTION = (
    Mutant(
        "taken-over-by-all",
        "lifecycle/election.py",
        before='if channel.claim(f"taker {turns}"):',
        after='if channel.claim(f"taker {turns} {context.plan.topology.rank}"):',
        breaks="One rank at a time takes over from a silent rank 0, so the create-run call is sent once.",
    ),
    Mutant(
        "not-retracted",
        "lifecycle/election.py",
        before="""\
    if keeps_early and not (told.is_to_be_kept(on_error) and _is_owner(context, mine, told)):
        outbox.retract()
""",
        after="",
        breaks="What rank 0 kept is removed once another rank has created the run, or a sync would revive it.",
    ),
    Mutant(
        "old-outcome-taken",
        "lifecycle/election.py",
        before="    if plan.context.store_address is None:\n        return\n",
        after="    if plan.context.store_address is not None:\n        return\n",
        breaks="A node that registers early does not take the outcome of the attempt before for that of its own.",
    ),
    Mutant(
        "another-leads",
        "lifecycle/election.py",
        before="    if not context.channel.lead():\n        context.membership.leave()\n",
        after="    context.channel.lead()\n",
        breaks="The rank 0 of a new node registers in its own attempt, and not in the one before.",
    ),
    Mutant(
        "silence-without-end",
        "rendezvous/store_thread.py",
        before="    return min(_limit.get(), HURRIED_SECONDS if stop.is_set() else math.inf)\n",
        after="    return math.inf\n",
        breaks="No call of the script waits without a bound for the host of the ranks' store.",
    ),
    Mutant(
        "over-not-noticed",
        "lifecycle/election.py",
        before="""\
            break
        context.membership.stay()
""",
        after="            break\n",
        breaks="A rank that registered in an attempt that is over goes on to the next one, where the others are.",
    ),
    Mutant(
        "two-owners",
        "lifecycle/election.py",
        before='return told == mine or told.kind != "online"',
        after="return True",
        breaks="A run has one owner: rank 0 is none if another rank has created the run in its place.",
    ),
    Mutant(
        "taker-does-not-own",
        "lifecycle/participant.py",
        before="self._is_owner, outcome = election.is_owner, election.outcome",
        after="outcome = election.outcome",
        breaks="The rank that creates the run in rank 0's place sends the heartbeats and ends it.",
    ),
)

KEPT = (
    Mutant(
        "settled-not-retracted",
        "lifecycle/unsettled.py",
        before="""\
            self._is_settled = True
            self._retract()
""",
        after="""\
            self._is_settled = True
""",
        breaks="What was kept of an unsettled run is removed once the tracker has it, or a sync would revive it.",
    ),
    Mutant(
        "recovery-not-published",
        "lifecycle/recovery.py",
        before="        channel.publish_late(outcome)\n",
        after="",
        breaks="All ranks learn that a run which began offline is in the tracker.",
    ),
)

MUTANTS = (*AGREEMENT, *CREATION, *RESUME, *ELECTION, *KEPT)
