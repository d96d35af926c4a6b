"""The root cause of a failed job: the first rank of this node to fail, and why.

Pure. The agent knows exit codes and signals, a worker's error file or report has the exception, the kernel's counters
show out-of-memory kills.

>>> find([Failure("", "a", rank=1, at_ms=5000, exitcode=-9)], oom="its cgroup reached its limit").reason
'killed by SIGKILL, probably by the out-of-memory killer (its cgroup reached its limit)'
"""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Sequence
from typing import Literal

from pluto_dist.contract.failure import Failure

Status = Literal["COMPLETED", "FAILED", "TERMINATED", "CANCELLED"]


def find(failures: Sequence[Failure], *, oom: str | None = None, reported: Failure | None = None) -> Failure:
    """The root cause on this node.

    Args:
        failures: of the workers that the agent found dead, each with rank, time and exit code; the reason is "" if the
            worker left no error file.
        oom: what the kernel's counters show of out-of-memory kills since the job began, in words.
        reported: the first failure that a worker of this node reported.
    """
    # The agent ends the others of its node with SIGTERM, so a worker that ended otherwise was before them.
    own = [failure for failure in failures if failure.exitcode != -signal.SIGTERM] or failures
    first = min(own, key=lambda failure: (failure.at_ms or 0, failure.rank or 0))
    if reported is not None and (reported.rank == first.rank or (reported.at_ms or 0) < (first.at_ms or 0)):
        exitcode = next((each.exitcode for each in failures if each.rank == reported.rank), None)
        return dataclasses.replace(reported, exitcode=exitcode)
    return dataclasses.replace(
        first,
        reason=first.reason.strip() or _in_words(first.exitcode or 0, oom),
        traceback=first.traceback or None,
    )


def _in_words(exitcode: int, oom: str | None) -> str:
    if exitcode >= 0:
        return f"exit code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    if name == "SIGKILL" and oom is not None:
        return f"killed by {name}, probably by the out-of-memory killer ({oom})"
    return f"killed by {name}"
