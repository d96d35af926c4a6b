"""Mutants of ``pluto_dist/lifecycle``: attaches, heartbeats, and the end of a rank and of its run."""

from __future__ import annotations

from simulation.mutants.mutant import Mutant

ATTACH = (
    Mutant(
        "attached-after-the-end",
        "lifecycle/attach.py",
        before="return _attach_once(context, outcome, client) if is_open else None",
        after="return _attach_once(context, outcome, client)",
        breaks="No attach comes after the end, which it would take from the run.",
    ),
    Mutant(
        "attach-in-flight",
        "rendezvous/run_channel.py",
        before='        self.count("attach begun")\n',
        after="",
        breaks="The end waits for attaches that are on their way, since one that arrives later revives the run.",
    ),
    Mutant(
        "slots-ignored",
        "lifecycle/attach.py",
        before="""\
        left = start + rate_limit.due(slot, rate, known) - time.monotonic()
        if context.stop.wait(min(max(0.0, left), LONGEST_WAIT_SECONDS)):
""",
        after="""\
        left = start - time.monotonic()
        if context.stop.wait(min(max(0.0, left), LONGEST_WAIT_SECONDS)):
""",
        breaks="The attaches of a job come at no more than the set rate.",
    ),
    Mutant(
        "slowdowns-ignored",
        "lifecycle/attach.py",
        before="""\
        if (now_known := context.channel.slowdowns()) == known:
            return known
        known = now_known
""",
        after="""\
        return known
""",
        breaks="A rank whose attach waits slows down with the others when the tracker refuses some.",
    ),
)

HEARTBEAT = (
    Mutant(
        "ranks-answer-no-claims",
        "lifecycle/heartbeat.py",
        before="if context.plan.continues_job and not is_supervised(context.plan):",
        after="if context.plan.continues_job and is_supervised(context.plan):",
        breaks="A launch without a launcher of ours answers a claim on its run.",
    ),
    Mutant(
        "claims-wait-for-heartbeats",
        "lifecycle/heartbeat.py",
        before="return time.monotonic() + min(self._context.plan.settings.heartbeat, END_SECONDS)",
        after="return time.monotonic() + 3 * END_SECONDS",
        breaks="A heartbeat waits no longer for its answer than until the next one.",
    ),
    Mutant(
        "outage-ends-heartbeats",
        "lifecycle/heartbeat.py",
        before="""\
                logger.debug("a heartbeat was not taken: %s", error)
""",
        after="""\
                logger.debug("a heartbeat was not taken: %s", error)
                return
""",
        breaks="Heartbeats, and answers to claims, go on after an outage of the tracker.",
    ),
)

SHUTDOWN = (
    Mutant(
        "not-closed",
        "rendezvous/run_channel.py",
        before='        self.claim("closed")\n',
        after='        self.claim("closing")\n',
        breaks="A run is closed to attaches before its end is reported.",
    ),
    Mutant(
        "others-not-awaited",
        "lifecycle/shutdown.py",
        before="""\
            if status == "COMPLETED" and not self._all_left():
                return False
""",
        after="",
        breaks="COMPLETED is reported only when all ranks are done, and none of them has failed.",
    ),
    Mutant(
        "failure-by-every-rank",
        "lifecycle/shutdown.py",
        before='return channel.claim("failure")',
        after='return channel.claim("failure") or True',
        breaks="Of the ranks that fail the first reports the end, and no other.",
    ),
    Mutant(
        "superseded-not-asked",
        "lifecycle/shutdown.py",
        before="return mine is not None and attempts.has_gone_on(attempts.recorded(state.config), key=mine)",
        after="return False",
        breaks="A rank of an earlier attempt does not end the run in which a later attempt, or launch, goes on.",
    ),
    Mutant(
        "finish-unbounded",
        "lifecycle/shutdown.py",
        before="while time.monotonic() < until:",
        after="while True:",
        breaks="finish() returns within its bound, also if another rank never ends.",
    ),
    Mutant(
        "close-unbounded",
        "lifecycle/shutdown.py",
        before="while self.channel.has_attaches and time.monotonic() < until:",
        after="while self.channel.has_attaches:",
        breaks="The end waits for attaches within a bound, also if a rank was killed in its attach.",
    ),
    Mutant(
        "key-for-every-look",
        "lifecycle/shutdown.py",
        before='joined, left = channel.count("joined", 0) - 1, channel.count("left", 0) - 1',
        after='joined, left = channel.count("joined", 0) - 1, channel.count("left", 0) - 1\n'
        '            channel.claim(f"look at {time.monotonic():.2f}")',
        breaks="A rank leaves a bounded number of keys in the store, however long it waits.",
    ),
)

GIVEN_UP = (
    Mutant(
        "a-given-up-attach-is-forgotten",
        "lifecycle/shutdown.py",
        before="            if self.is_connected and self.channel.has_given_up:\n",
        after="            if False:\n",
        breaks="The end waits for an attach that its sender has given up, and that may be on its way.",
    ),
    Mutant(
        "recovers-after-the-end",
        "lifecycle/recovery.py",
        before="_flush(context, client) if is_open else None",
        after="_flush(context, client)",
        breaks="A rank that recovers what is kept does not write into a run that another rank has ended.",
    ),
    Mutant(
        "an-interrupted-end-is-nobodys",
        "lifecycle/participant.py",
        before="mine = self._is_reporter = self._is_reporter or step.is_mine",
        after="mine = step.is_mine",
        breaks="A rank that a signal interrupts while it reports the end goes on to report it.",
    ),
)

PARTICIPANT = (
    Mutant(
        "no-lingering",
        "lifecycle/participant.py",
        before="LINGER_SECONDS = 2.0",
        after="LINGER_SECONDS = 0.0",
        breaks="A launch that is refused is refused on all ranks, also if their store ends with rank 0.",
    ),
    Mutant(
        "init-keeps-nothing",
        "lifecycle/participant.py",
        before="        self._unsettled.keep(self._context, self._describing)\n",
        after="",
        breaks="When init() returns, the run is in the tracker or on disk.",
    ),
    Mutant(
        "end-without-create",
        "lifecycle/participant.py",
        before="""\
        if answer is None and mine and not context.outbox.holds_create():
            enqueue_create(plan, creation_of(context, self._describing), context.outbox)
        elif outcome is None""",
        after="""\
        if outcome is None""",
        breaks="The end of a run that the tracker does not have is kept together with what creates the run.",
    ),
    Mutant(
        "end-not-reported-late",
        "lifecycle/participant.py",
        before='            report_run(context, Outcome("offline"), owns=True, is_late=True)\n',
        after="            pass\n",
        breaks="The launcher learns of a run whose ranks ended before it was created.",
    ),
    Mutant(
        "deaf-in-finish",
        "lifecycle/participant.py",
        before="""\
            self._is_hurried = True
            if self._ending[0] == "COMPLETED":
                self._ending = status, failure
            return self._ending
""",
        after="""\
            return None
""",
        breaks="SIGTERM while finish() waits ends the run as TERMINATED.",
    ),
)

SUPERVISION = (
    Mutant(
        "owner-overwritten",
        "rendezvous/worker_reports.py",
        before="    return dataclasses.replace(found, owns=_attempt_of(found) in owners)\n",
        after="    return found\n",
        breaks="What the owner reports to its launcher no other rank of its node overwrites.",
    ),
    Mutant(
        "create-not-reported",
        "lifecycle/election.py",
        before="        report_begin(context)\n",
        after="",
        breaks="The launcher ends a run whose creator was killed before it knew the answer.",
    ),
    Mutant(
        "offline-run-has-no-end",
        "lifecycle/supervision.py",
        before="return outcome.answer is not None or outcome.is_to_be_kept(plan.settings.on_error)",
        after="return outcome.answer is not None",
        breaks="A run that the tracker does not have has the right end once it is sent.",
    ),
)

MUTANTS = (*ATTACH, *HEARTBEAT, *SHUTDOWN, *GIVEN_UP, *PARTICIPANT, *SUPERVISION)
