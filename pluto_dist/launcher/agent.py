"""The job itself: torch's elastic agent in this process, and the truth about how it ended.

The one place that starts the agent, through the entry points that torchrun itself uses (torch 2.4 to 2.13). What
it raises goes on to the caller, so that exit code and output are torchrun's; before that the run is ended.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.environments.torchrun import FOLDER_VARIABLE, SUPERVISOR_VARIABLE
from pluto_dist.launcher.oom import OomKillCounts, count_oom_kills
from pluto_dist.launcher.root_cause import Cause, Ending, Failed, ended
from pluto_dist.launcher.supervisor import Supervisor
from pluto_dist.log import logger
from pluto_dist.rendezvous import node_state
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.worker_reports import noted_failure, noted_run
from pluto_dist.settings.settings import Settings
from pluto_dist.version import __version__

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

CANCELLED = 77  # the exit code of a job that was cancelled in the tracker
FORCE_SECONDS = 45.0  # after a cancel: torch gives workers 30 s, but may sit in a wait of its own for 300 s


def run(parsed: argparse.Namespace, chosen: Settings) -> None:
    """Run the job to its end, as ``torchrun`` would, and tell the tracker how it ended.

    Args:
        parsed: the command line, as torchrun's parser understood it.
        chosen: where the tracker is.

    Raises:
        SystemExit: the run was cancelled in the tracker.
        Exception: whatever torchrun raises.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, record
    from torch.distributed.run import run as torchrun

    host, kills = socket.gethostname(), count_oom_kills()
    with _folder() as folder:
        supervisor = Supervisor(folder, lambda: _client(chosen, host), chosen.spool, chosen.heartbeat, _stop_this_job)
        try:
            record(torchrun)(parsed)
        except ChildFailedError as error:
            _tell(supervisor, _root_cause(error, folder, host, kills))
            raise
        except SignalException as error:
            if supervisor.cancelled:
                sys.exit(_cancelled(supervisor))
            supervisor.end("TERMINATED", Cause(f"{error.sigval.name} to the launcher", time.time(), host))
            raise
        except Exception as error:  # whatever it is goes on to the caller, after the run is ended
            reason = f"the launcher failed: {type(error).__name__}: {error}"
            supervisor.end("FAILED", Cause(reason[:500], time.time(), host))
            raise
        supervisor.end("COMPLETED")


def _tell(supervisor: Supervisor, cause: Cause) -> None:
    """End the run as failed, and say which failure came first on all nodes."""
    first = supervisor.end("FAILED", cause) or cause
    if supervisor.note is not None:
        named = supervisor.note.display_id or supervisor.note.value
        rank = "" if first.rank is None else f"rank {first.rank} "
        logger.error("run %s failed: %son %s: %s", named, rank, first.host, first.reason)


def _cancelled(supervisor: Supervisor) -> int:
    named = "the run" if supervisor.note is None else f"run {supervisor.note.display_id}"
    logger.error("%s was cancelled in the tracker; the workers of this node are stopped", named)
    supervisor.end("CANCELLED")
    return CANCELLED


def _root_cause(error: ChildFailedError, folder: NodeState, host: str, kills: OomKillCounts) -> Cause:
    endings = tuple(
        Ending(rank, failure.exitcode, _at(failure), *_told(failure.message, failure.error_file_data))
        for rank, failure in error.failures.items()
    )
    note = noted_run(folder)
    said = None if note is None else noted_failure(folder, note.nonce)
    return ended(Failed(endings, host), memory=count_oom_kills().since(kills), note=said)


def _at(failure: ProcessFailure) -> float:
    """When a worker failed: its error file's time, for torch knows whole seconds only."""
    with suppress(OSError):  # no error file: it was killed
        return Path(failure.error_file).stat().st_mtime
    return float(failure.timestamp)


def _told(message: object, data: object) -> tuple[str, str]:
    """What torch's error file says: the exception, and its traceback; nothing where there is no file."""
    inner = data.get("message") if isinstance(data, dict) else None
    if not isinstance(inner, dict):
        return "", ""
    extra = inner.get("extraInfo")
    trace = extra.get("py_callstack") if isinstance(extra, dict) else None
    return str(inner.get("message", message))[:500], str(trace or "")[-2500:]


@contextmanager
def _folder() -> Iterator[NodeState]:
    """A private folder for this node's workers, which they find by their environment."""
    path = Path(tempfile.mkdtemp(prefix="pluto_dist-launch-"))
    _hand_down(FOLDER_VARIABLE, str(path))
    _hand_down(SUPERVISOR_VARIABLE, node_state.process_name(os.getpid()))
    try:
        yield NodeState(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _hand_down(name: str, value: str) -> None:
    """Set a variable that the workers inherit: torch hands them this process's environment, and nothing else."""
    os.environ[name] = value


def _client(chosen: Settings, host: str) -> TrackerClient | None:
    if chosen.mode != "online" or chosen.api_key is None:
        return None
    return TrackerClient(
        chosen.url_api, chosen.url_py, chosen.api_key, user_agent=f"pluto-dist/{__version__} (launcher; {host})"
    )


def _stop_this_job() -> None:
    """End the agent as SIGTERM would, whose handler stops the workers; by force where it does not heed it."""
    os.kill(os.getpid(), signal.SIGTERM)
    force = threading.Timer(FORCE_SECONDS, _force)
    force.daemon = True
    force.start()


def _force() -> None:
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(CANCELLED)
