"""Mutants of ``pluto_dist/client``: requests to the tracker, and those that are kept until it answers."""

from __future__ import annotations

from simulation.mutants.mutant import Mutant

ONLINE = (
    Mutant(
        "cancel-overwritten",
        "client/ending.py",
        before="""\
    if state.status == "CANCELLED":
        return False
""",
        after="",
        breaks="A run that a person cancelled stays cancelled, however the job ends.",
    ),
    Mutant(
        "monitors-end-stays",
        "client/ending.py",
        before="(supersedes or Failure.of_status(state.status_metadata) is None)",
        after="supersedes",
        breaks="A run that the tracker's monitor ended has the job's own end in the end.",
    ),
    Mutant(
        "heartbeat-revives",
        "client/heartbeats.py",
        before="        return state is not None and Failure.of_status(state.status_metadata) is None\n",
        after="        return True\n",
        breaks="A heartbeat after an outage takes back the monitor's end only, not one that a job has told.",
    ),
    Mutant(
        "claim-removed-unanswered",
        "client/claims.py",
        before="claims.answer(others, token, host)",
        after="claims.withdraw(others[0])",
        breaks="A living launch tells each one that claims its run that it is alive.",
    ),
    Mutant(
        "refusals-do-not-slow-down",
        "client/rate_limit.py",
        before="first, level = max(first, slower), level + 1",
        after="first, level = max(first, slower), level",
        breaks="The attaches of a job go at half the rate after the tracker has refused some.",
    ),
    Mutant(
        "500-is-a-refusal",
        "client/tracker_client.py",
        before="frozenset({408, 429, 500, 502, 503, 504})",
        after="frozenset({408, 429, 502, 503, 504})",
        breaks="An outage ends no training, and loses no request.",
    ),
    Mutant(
        "limit-is-a-refusal",
        "client/tracker_client.py",
        before="if status == 400 and text.startswith(AT_LIMIT):",
        after="if status == 402 and text.startswith(AT_LIMIT):",
        breaks="A training goes on, and its run is kept, while the organization is at its limit.",
    ),
    Mutant(
        "own-clock-for-the-trackers",
        "client/tracker_client.py",
        before="self.server_time = answer.date()",
        after="self.server_time = time.time()",
        breaks="Whether another launch is alive does not depend on this machine's clock.",
    ),
    Mutant(
        "headers-logged",
        "client/tracker_client.py",
        before="""\
                answer = responses.Answer.read(response, ANSWER_LIMIT + 1, self._key)
""",
        after="""\
                answer = responses.Answer.read(response, ANSWER_LIMIT + 1, self._key)
                logger.debug("%s was asked with %s", url, self._key.reveal())
""",
        breaks="The API key is in no log line, at whatever level.",
    ),
)

OFFLINE = (
    Mutant(
        "memory-alone-is-looked-at",
        "client/offline/queue.py",
        before="return not self._memory and not (self.folder is not None and any(_files(self.folder)))",
        after="return not self._memory",
        breaks="What another process keeps of a run is sent too.",
    ),
    Mutant(
        "full-disk-drops",
        "client/offline/queue.py",
        before="            self._memory.append(entry)\n",
        after="",
        breaks="A request that neither the tracker nor the disk takes is sent once the tracker answers.",
    ),
    Mutant(
        "outage-drops",
        "client/offline/outbox.py",
        before="""\
            self.enqueue(request)
            return False
""",
        after="""\
            return False
""",
        breaks="The end of a run that the tracker does not take is kept.",
    ),
    Mutant(
        "order-by-time-alone",
        "client/offline/entry.py",
        before="key=lambda entry: (begun[entry.launch], entry.launch, KINDS.index(entry.kind), entry.at)",
        after="key=lambda entry: entry.at",
        breaks="What is kept is sent launch by launch, and the end of a run last, whatever the clocks say.",
    ),
    Mutant(
        "removed-before-it-is-sent",
        "client/offline/replay.py",
        before="""\
    for entry, file in entries:
        try:
            notes +=""",
        after="""\
    for entry, file in entries:
        if file is not None:
            queue.remove(entry, file)
        try:
            notes +=""",
        breaks="What is kept stays on disk until the tracker has taken it.",
    ),
    Mutant(
        "a-stranger-ends",
        "client/offline/replay.py",
        before="    if not attempts.has_launch(records, entry.launch):\n",
        after="    if records and not attempts.has_launch(records, entry.launch):\n",
        breaks="An end is told only to a run that has an attempt of its launch on record.",
    ),
    Mutant(
        "later-launch-ended",
        "client/offline/replay.py",
        before='        return [f"{request.status} not told: a later launch has gone on with the run"]\n',
        after="        pass\n",
        breaks="A launch's kept end is not that of a later launch.",
    ),
    Mutant(
        "waits-for-no-create",
        "client/offline/replay.py",
        before='        raise RequestRefusedError("the run knows nothing of this launch", 404)\n',
        after="            return []\n",
        breaks="An end is kept until what begins its launch, kept on another node, was sent.",
    ),
    Mutant(
        "second-end-counts",
        "client/offline/replay.py",
        before="    if theirs is not None and not (is_first or supersedes) and state.status in _ENDS_BY_FAILURE:\n",
        after="    if False:\n",
        breaks="Of the ends that several nodes keep the first stays.",
    ),
    Mutant(
        "stop-outlives-success",
        "client/offline/replay.py",
        before='    return is_before or (state.status == "TERMINATED" and theirs.get("attempt") != entry.key)',
        after="    return is_before",
        breaks="The success of the last attempt supersedes that a rank of an earlier one was stopped.",
    ),
    Mutant(
        "failure-outlives-success",
        "client/offline/replay.py",
        before="    is_before = came_after is not None and",
        after="    is_before = False and",
        breaks="The success of the last attempt supersedes the failure that it came after.",
    ),
    Mutant(
        "taken-back-counts",
        "contract/attempts.py",
        before="for key, entry in ours(config, FIELD).items() if entry is not None}",
        after="for key, entry in ours(config, FIELD).items()}",
        breaks="A record that was taken back is no record.",
    ),
    Mutant(
        "late-launch-counts",
        "client/offline/replay.py",
        before="    elif known.attempt in records or _is_late(",
        after="    elif False and _is_late(",
        breaks="What comes late, of a launch before the last one, neither wakes the run nor ends it.",
    ),
    Mutant(
        "the-living-come-late",
        "client/offline/replay.py",
        before="is_late(records, entry.key, mine, is_alive=known.is_alive)",
        after="is_late(records, entry.key, mine, is_alive=False)",
        breaks="A launch that is alive comes last, also in a run that another launch began after it.",
    ),
    Mutant(
        "sync-asks-nobody",
        "client/offline/replay.py",
        before="        if not entry.resumes:\n",
        after="        if True:\n",
        breaks="What an offline launch kept enters a run only once no other launch can be alive in it.",
    ),
    Mutant(
        "an-earlier-attempts-end-counts",
        "client/offline/replay.py",
        before="    return known.is_alive or bool(ends - ",
        after="    return False and bool(ends - ",
        breaks="The end of an attempt is not told after another attempt of the launch has gone on.",
    ),
    Mutant(
        "a-stop-hides-a-failure",
        "client/offline/replay.py",
        before='bool(ends - {"TERMINATED"} if request.status == "FAILED" else ends)',
        after="bool(ends)",
        breaks="That one rank failed is told although another one, which was not connected, was stopped.",
    ),
    Mutant(
        "recovery-enters-a-run-that-is-over",
        "client/offline/outbox.py",
        before="if done is not None and (done.is_over or not self._has_pending) else None",
        after="if not self._has_pending else None",
        breaks="A launch that recovers goes nowhere near a run that was cancelled meanwhile.",
    ),
    Mutant(
        "order-by-the-hosts-clocks",
        "client/tracker_client.py",
        before="        self.clock_offset = self.server_time - time.time()\n",
        after="",
        breaks="Launches are put in order by the tracker's clock.",
    ),
    Mutant(
        "sync-without-lock",
        "client/offline/sync.py",
        before="""\
            if not mine and not queue.is_empty:
                return None
""",
        after="",
        breaks="One process at a time sends what is kept of a run.",
    ),
)

MUTANTS = (*ONLINE, *OFFLINE)
