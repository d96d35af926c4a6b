"""The root cause of a failed job, from exit codes, error files, reports and the kernel's counters."""

from __future__ import annotations

import signal

import pytest

from pluto_dist.contract.failure import Failure
from pluto_dist.launcher.root_cause import find


def died(rank: int, exitcode: int, at: float, message: str = "") -> Failure:
    return Failure(message, "a", rank, int(1000 * at), exitcode, "trace" if message else "")


@pytest.mark.parametrize(
    ("endings", "rank", "reason"),
    [
        ([died(1, -9, 5.0)], 1, "killed by SIGKILL"),
        ([died(0, -15, 5.0), died(1, -11, 5.0)], 1, "killed by SIGSEGV"),
        ([died(0, 1, 7.0, "RuntimeError: peer"), died(3, 1, 6.5, "ValueError: boom")], 3, "ValueError: boom"),
        ([died(2, 3, 5.0)], 2, "exit code 3"),
        ([died(0, -15, 5.0)], 0, "killed by SIGTERM"),
        ([died(0, -64, 5.0)], 0, f"killed by {signal.Signals(64).name}"),
        ([died(0, -200, 5.0)], 0, "killed by signal 200"),
    ],
)
def test_the_first_to_die_of_its_own_is_the_cause(endings, rank, reason):
    """The earliest failure, but for ranks that the agent ended with SIGTERM because another had failed."""
    cause = find(endings)
    assert (cause.rank, cause.reason, cause.host) == (rank, reason, "a")


def test_memory_is_named_for_sigkill_alone():
    """A SIGKILL while the kernel counted a kill for memory is probably that; an exception is itself."""
    memory = "its cgroup reached its memory limit"
    assert "out-of-memory killer" in find([died(1, -9, 5.0)], oom=memory).reason
    assert find([died(1, 1, 5.0, "ValueError: x")], oom=memory).reason == "ValueError: x"


def test_a_ranks_own_words_go_before_its_exit_code():
    """What the rank said of itself is the reason; what another rank said later is not."""
    report = Failure("ValueError: boom", "a", 1, 4900, traceback="trace")
    told = find([died(0, -15, 5.0), died(1, 1, 5.0)], reported=report)
    assert (told.reason, told.rank, told.exitcode, told.traceback) == ("ValueError: boom", 1, 1, "trace")
    late = Failure("RuntimeError: peer", "a", 0, 6000, traceback="trace")
    assert find([died(0, 1, 6.0), died(1, -9, 5.0)], reported=late).reason == "killed by SIGKILL"
