"""What an outage kept, sent: run by run, to the tracker that it was meant for, by one process at a time.

The order within a run and what makes a repetition harmless are ``replay``; here is which runs, to where, and what
is done about a tracker that does not answer.
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
BUSY_SECONDS = 30.0  # how long a run that another process sends is waited for

_NOTHING = Replayed(None, 0)

ClientOf = Callable[[str], TrackerClient]


@dataclass(frozen=True, slots=True)
class Synced:
    """What came of one run.

    Attributes:
        name: the run.
        state: "sent" (nothing is kept of it any more), "kept" (all or some of it) or "elsewhere" (another process
            has sent it meanwhile).
        replayed: what the tracker took and answered.
        why: why something is kept.
    """

    name: RunName
    state: Literal["sent", "kept", "elsewhere"]
    replayed: Replayed = _NOTHING
    why: str = ""


def sync(waiting: Sequence[RunQueue], client_of: ClientOf) -> Iterator[Synced]:
    """Send ``waiting``; what came of each run, as it comes.

    Args:
        waiting: the runs, in the order in which they are tried. One that another process sends at the moment comes
            last, for that process may be killed over it.
        client_of: gives a client for a recorded origin; raises PlutoDistError where there is to be none.
    """
    busy: list[RunQueue] = []
    patience = RUN_SECONDS
    for seconds, runs in ((0.0, waiting), (BUSY_SECONDS, busy)):
        for spooled in runs:
            done = _send(spooled, client_of, seconds, patience)
            if done is None and runs is not busy:
                busy.append(spooled)
                continue
            done = done or Synced(spooled.name, "kept", why="another process is sending it")
            patience = NEXT_SECONDS if done.state == "kept" else RUN_SECONDS
            yield done


def _send(spooled: RunQueue, client_of: ClientOf, lock_seconds: float, patience: float) -> Synced | None:
    """What came of one run; ``None`` where another process sends it."""
    try:
        client = client_of(spooled.name.origin)
        with spooled.locked(lock_seconds) as mine:
            if not mine and not spooled.is_empty:
                return None
            if spooled.is_empty:
                return Synced(spooled.name, "elsewhere")
            done = replay(spooled, client, deadline=time.monotonic() + patience)
    except PlutoDistError as error:
        return Synced(spooled.name, "kept", why=str(error))
    kept = not spooled.is_empty
    done = replace(done, notes=(*done.notes, *spooled.warnings))
    return Synced(spooled.name, "kept" if kept else "sent", done, "some of it was not taken" if kept else "")
