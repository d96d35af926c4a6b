"""Sends all runs that wait on disk, each to the tracker that was recorded with it.

The order within a run is ``replay``. Here are the order of runs, locked runs, and a tracker that does not answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pluto_dist.client.offline.queue import RunQueue
from pluto_dist.client.offline.replay import Replayed, replay
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_ref import RunName
from pluto_dist.errors import PlutoDistError

RUN_SECONDS = 60.0  # how long one run is tried
NEXT_SECONDS = 5.0  # the same for the next one, while the tracker does not answer
BUSY_SECONDS = 30.0  # how long to wait for a run that another process sends

_NOTHING = Replayed(None, 0)

ClientOf = Callable[[str], TrackerClient]


@dataclass(frozen=True, slots=True)
class Synced:
    """The result for one run.

    Attributes:
        name: the run.
        state: "sent" (nothing of it is left on disk), "kept" (all or some of it, or set aside) or "elsewhere" (another
            process has sent it meanwhile).
        replayed: what was sent, and the answer.
        why: the reason why something is kept.
    """

    name: RunName
    state: Literal["sent", "kept", "elsewhere"]
    replayed: Replayed = _NOTHING
    why: str = ""


def sync(waiting: Sequence[RunQueue], client_of: ClientOf) -> Iterator[Synced]:
    """Send ``waiting``; yields the result of each run.

    Args:
        waiting: the runs, in the order in which they are tried. One that another process is sending comes last, since
            that process may be killed meanwhile.
        client_of: makes a client for a recorded origin; raises PlutoDistError if none may be made.
    """
    busy: list[RunQueue] = []
    patience = RUN_SECONDS
    for seconds, runs in ((0.0, waiting), (BUSY_SECONDS, busy)):
        for queue in runs:
            done = _send(queue, client_of, seconds, patience)
            if done is None and runs is not busy:
                busy.append(queue)
                continue
            done = done or Synced(queue.name, "kept", why="another process is sending it")
            patience = NEXT_SECONDS if done.state == "kept" else RUN_SECONDS
            yield done


def _send(queue: RunQueue, client_of: ClientOf, lock_seconds: float, patience: float) -> Synced | None:
    """The result for one run; ``None`` if another process is sending it."""
    try:
        client = client_of(queue.name.origin)
        with queue.locked(lock_seconds) as mine:
            if not mine and not queue.is_empty:
                return None
            if queue.is_empty:
                return Synced(queue.name, "elsewhere")
            done = replay(queue, client, deadline=time.monotonic() + patience, pause=time.sleep)
    except (PlutoDistError, OSError) as error:
        return Synced(queue.name, "kept", why=str(error))
    kept = not queue.is_empty or queue.aside > 0
    done = replace(done, notes=(*done.notes, *queue.warnings))
    return Synced(queue.name, "kept" if kept else "sent", done, "some of it was not taken" if kept else "")
