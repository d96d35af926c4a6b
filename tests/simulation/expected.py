"""The end that a job should have, by what became of its processes."""

from __future__ import annotations

from pluto_dist.contract import attempts
from simulation.history import LOST, SET_ASIDE, came_after_a_cancel, ended_at, is_admitted, lifetime
from simulation.jobs import Part
from simulation.kernel import Process
from simulation.schedule import EXPERIMENT
from simulation.simulate import Finished

_LATENCY = 0.1  # seconds from the call of init() to the moment that its record has as its start


def expected_end(finished: Finished) -> tuple[set[str] | None, str]:
    """The statuses that the run may have in the end, and why; ``None`` if nobody can know it."""
    admitted = [number for number in range(len(finished.schedule.launches)) if is_admitted(finished, number)]
    if not admitted or any(lost in text for *_, text in finished.messages for lost in LOST):
        return None, ""
    if came_after_a_cancel(finished):
        return None, ""  # its attach revives the run on the embedded tracker, and its launcher may have left
    if ("PLUTO_RUN_ID", EXPERIMENT) in finished.schedule.launches[0].variables and len(admitted) > 1:
        return None, ""  # launches with the user's own id may be in one run at the same time
    steps = any(step for _, _, step in finished.schedule.clocks)
    if len(admitted) > 1 and (steps or (finished.schedule.shared_spool and finished.schedule.clocks)):
        return None, ""  # what was kept is put in order by another clock than the one that told its start
    last = max(admitted, key=lambda number: lifetime(finished, number)[0])
    begin = lifetime(finished, last)[0]
    was_cancelled = finished.schedule.cancels or finished.schedule.foreign == "CANCELLED"
    allowed: set[str] = {"CANCELLED"} if was_cancelled else set()
    reasons = []
    # Of launches that were offline beside each other, or began within what a clock is read to, any counts as the last.
    for number in admitted:
        began, ended = lifetime(finished, number)
        if number == last or ended > begin or began > begin - attempts.DATE_SECONDS - _LATENCY:
            expected, why = _expected_of(finished, number)
            if expected is None:
                return None, ""
            allowed |= expected
            reasons.append(why)
    return allowed, "; ".join(reasons)


def _expected_of(finished: Finished, number: int) -> tuple[set[str] | None, str]:
    launch, job = finished.schedule.launches[number], finished.job
    if launch.launcher == "supervised":
        return _expected_by_launchers(finished, number)
    parts = job.attempts[number][-1].parts if job.attempts[number] else []
    joined = [part for part in parts if part.began is not None and part.token]  # the others know no run
    if not joined or launch.odd or any(_is_silent(part) for part in joined):
        return None, "a rank ended without a word, or names another run"
    if any(who.startswith(f"L{number}.") and SET_ASIDE in text for _, who, _, text in finished.messages):
        return None, "it was refused; nodes that were not connected then may have kept it"
    ends = {part.end for part in joined}
    if all(part.process.exit_code == 0 for part in parts):
        return {"COMPLETED"}, "every rank was done"
    if ends <= {"done", "SIGTERM"}:
        allowed = {"TERMINATED"} | {"FAILED" for part in joined if part.intended != "done"}
        return allowed | {"COMPLETED" for end in ends if end == "done"}, "ranks got SIGTERM"
    stopped = any(fault.what in ("preempt", "lose node", "kill") for fault in finished.schedule.faults)
    # Of a rank that fails before it calls init() the others see SIGTERM.
    stopped |= any(part.began is None and part.process.exit_code for part in parts)
    allowed = {"FAILED", "TERMINATED"} if stopped else {"FAILED"}
    waited = [part.finishing + part.timeout for part in joined if part.end == "done" and part.finishing is not None]
    if waited and min(waited) <= max(ended_at(finished, part) for part in joined if part.end != "done"):
        allowed |= {"COMPLETED"}  # a rank that is done waits no longer for the others
    return allowed, f"ranks ended: {', '.join(sorted(ends))}"


def _expected_by_launchers(finished: Finished, number: int) -> tuple[set[str] | None, str]:
    agents, end = finished.job.agents[number], finished.job.ends.get(number, "")
    if any(agent.exit_code in (None, -9) for agent in agents):
        return None, "an agent was killed"
    if finished.schedule.disk:
        return None, "workers report to their launcher by the disk"
    if not any(part.facts for attempt in finished.job.attempts[number] for part in attempt.parts):
        return None, "it was stopped in init(); a create that is still on its way is nobody's"
    if end == "success":
        return {"COMPLETED"}, "all agents saw success"
    stopped = any(agent.state.get("signalled") for agent in agents)
    allowed = {"TERMINATED", "FAILED"} if stopped else {"FAILED"}
    if any(agent.exit_code == 1 and not _knows_the_run(finished, number, agent) for agent in agents):
        allowed |= {"COMPLETED"}  # to other nodes' launchers torchrun does not tell that one failed
    return allowed, f"the agents saw: {end}"


def _knows_the_run(finished: Finished, number: int, agent: Process) -> bool:
    """Whether a worker of the agent knew in its last attempt that the run is there; else nobody told the agent."""
    mine = [part for part in finished.job.attempts[number][-1].parts if part.process.host is agent.host]
    return any(part.facts for part in mine)


def _is_silent(part: Part) -> bool:
    """Whether a process ended in a way that runs none of its hooks, or leaves the end to a restart."""
    if part.run is None and part.error is None:
        return True  # inside init()
    left = int(part.process.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) - int(
        part.process.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
    )
    if part.end in ("killed", "alive"):
        return True
    return left > 0 and part.end != "done"
