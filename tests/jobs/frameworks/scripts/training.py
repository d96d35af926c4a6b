"""What the scripts of this folder share: the run, if the job has one, and steps that end as the job is to end.

TRACKED=1 is a job with a run, TRACKED=0 the same job without this package. HOW is "succeeds", "raises" (rank 1, in its
third step) or "stops" (all ranks train until a signal ends them).
"""

from __future__ import annotations

import os
import time
from typing import Any

from reporting import report

HOW = os.environ["HOW"]
STEPS = 4000 if HOW == "stops" else 4
TRACKED = os.environ["TRACKED"] == "1"


def begin(**arguments: Any) -> Any:
    """``pluto_dist.init()``; ``None`` in the job without this package."""
    if not TRACKED:
        return None
    import pluto_dist

    return pluto_dist.init(**{"project": "frameworks"} | arguments)


def step(rank: int, number: int) -> None:
    """One step of the training on this rank; ``number`` counts from 0."""
    if number == 1:
        report(rank=rank)
        _say(f"rank {rank} trains")
    if HOW == "raises" and rank == 1 and number == 2:
        raise RuntimeError("rank 1 fails")
    time.sleep(0.1)  # a job trains for longer than a rank's request takes, and destroys its process group after that


def done(rank: int) -> None:
    """The last line of a rank that succeeded."""
    _say(f"rank {rank} is done")


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # in one piece, whatever the interpreter buffers
