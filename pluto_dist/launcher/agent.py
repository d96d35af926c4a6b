"""Runs the job: torch's elastic agent in this process, and the report of how it ended.

Starts the agent through the entry points that torchrun itself uses (torch 2.5 to 2.15). Exit code and report are
torchrun's: the report of a failure is printed once, without a traceback of this process, and then one line of ours.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil

from pluto_dist.background import report, start_timer
from pluto_dist.client import tracker_client
from pluto_dist.contract.failure import Failure, now_ms
from pluto_dist.environments.process_facts import process_name
from pluto_dist.environments.torchrun import FOLDER_VARIABLE, SUPERVISOR_VARIABLE, TRACKER_VARIABLE
from pluto_dist.launcher import root_cause
from pluto_dist.launcher.command import WRAPPER, not_this_torch
from pluto_dist.launcher.oom import OomKillCounts, count_oom_kills
from pluto_dist.launcher.supervisor import Supervisor
from pluto_dist.log import lacking, logger
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.worker_reports import read_failure, read_run
from pluto_dist.settings.settings import Settings

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

CANCELLED = 77  # the exit code of a job that was cancelled in the tracker
FORCE_SECONDS = 45.0  # after a cancel: torch gives workers 30 s, but may sit in a wait of its own for 300 s


def run(parsed: argparse.Namespace, settings: Settings) -> None:
    """Run the job to its end, as ``torchrun`` would, and report its end to the tracker.

    Args:
        parsed: the command line, as torchrun's parser understood it.
        settings: of the user.

    Raises:
        SystemExit: the job failed, was stopped by a signal, or its run was cancelled in the tracker.
        Exception: whatever else torchrun raises.
    """
    elastic = _elastic()
    host, kills = socket.gethostname(), count_oom_kills()
    is_online = settings.mode == "online" and settings.api_key is not None
    with _folder(settings.url_api if is_online else "") as folder:
        supervisor = _supervisor(folder, settings, host)
        try:
            elastic.record(elastic.run)(parsed)
        except elastic.ChildFailedError as error:
            failure = _root_cause(error, folder, host, kills)
            first = supervisor.end("FAILED", failure) or failure
            sys.stderr.write(_torchruns_report(error, parsed))
            sys.exit(_report(supervisor, first))
        except elastic.SignalException as error:
            if supervisor.cancelled:
                sys.exit(_cancelled(supervisor))
            failure = Failure(f"{_signal_of(error)} to the launcher", host, at_ms=now_ms())
            supervisor.end("TERMINATED", failure)
            sys.exit(_report(supervisor, failure))
        except Exception as error:  # whatever it is goes on to the caller, after the run is ended
            reason = f"the launcher failed: {type(error).__name__}: {error}"
            supervisor.end("FAILED", Failure(reason[:500], host, at_ms=now_ms()))
            raise
        failed = supervisor.end("COMPLETED")
        if supervisor.run is not None and supervisor.run.owns:
            _report(supervisor, failed)


def _elastic() -> Any:
    """What torchrun itself starts, and the errors that it ends with.

    Raises:
        SystemExit: this torch lacks one of them.
    """
    try:
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, record
        from torch.distributed.run import run
    except ImportError as error:
        raise not_this_torch(error) from error
    return SimpleNamespace(SignalException=SignalException, ChildFailedError=ChildFailedError, record=record, run=run)


def _supervisor(folder: NodeState, settings: Settings, host: str) -> Supervisor:
    return Supervisor(
        folder,
        lambda: tracker_client.from_settings(settings, f"launcher; {host}"),
        settings.spool,
        settings.heartbeat,
        _stop_this_job,
    )


def _torchruns_report(error: ChildFailedError, parsed: argparse.Namespace) -> str:
    """The report that torchrun prints of a failure, with the user's script in its title."""
    name = _script_of(parsed)
    return f"{type(error)(name, error.failures)}\n"


def _script_of(parsed: argparse.Namespace) -> str:
    """The script, or module, that the user named, which the wrapper runs."""
    named = parsed.training_script
    if named == WRAPPER:
        rest = iter(parsed.training_script_args)
        named = next((next(rest, named) for word in rest if word in ("--", "-m")), named)
    return str(Path(named).name)


def _report(supervisor: Supervisor, failure: Failure | None) -> int:
    """Log how the job ended: the run, what failed first on all nodes, the address; the exit code of a failure."""
    run, status = supervisor.run, supervisor.status or "FAILED"
    what = "the job" if run is None else f"run {run.display_id or run.value}"
    rank = "" if failure is None or failure.rank is None else f"rank {failure.rank} "
    why = "" if failure is None else f": {rank}on {failure.host}: {failure.reason}"
    where = "no run was recorded" if run is None else run.url or "kept on this machine: `pluto-dist sync` sends it"
    logger.log(logging.INFO if failure is None else logging.ERROR, "%s %s%s (%s)", what, status, why, where)
    return 1


def _cancelled(supervisor: Supervisor) -> int:
    named = "the run" if supervisor.run is None else f"run {supervisor.run.display_id}"
    logger.error("%s was cancelled in the tracker; the workers of this node are stopped", named)
    supervisor.end("CANCELLED")
    return CANCELLED


def _root_cause(error: ChildFailedError, folder: NodeState, host: str, kills: OomKillCounts) -> Failure:
    failures = [_failure(rank, failure, host) for rank, failure in error.failures.items()]
    run = read_run(folder)
    reported = None if run is None else read_failure(folder, run.nonce)
    return root_cause.find(failures, oom=count_oom_kills().since(kills), reported=reported)


def _failure(rank: int, failure: ProcessFailure, host: str) -> Failure:
    """How a worker failed, with the exception and traceback of torch's error file, if it left one."""
    data = _read(failure, "error_file_data", {})
    inner = data.get("message") if isinstance(data, dict) else None
    reason = trace = ""
    if isinstance(inner, dict):
        extra = inner.get("extraInfo")
        trace = str((extra.get("py_callstack") if isinstance(extra, dict) else None) or "")[-2500:]
        reason = str(inner.get("message", _read(failure, "message", "")))[:500]
    return Failure(reason, host, rank, _time_of(failure), _read(failure, "exitcode", None), trace)


def _time_of(failure: ProcessFailure) -> int:
    """When a worker failed, in ms: the time of its error file, since torch's own is in whole seconds."""
    file = _read(failure, "error_file", None)
    with suppress(OSError):  # no error file: it was killed
        if file:
            return Path(file).stat().st_mtime_ns // 1_000_000
    return int(1000 * _read(failure, "timestamp", time.time()))


def _read(failure: ProcessFailure, field: str, default: Any) -> Any:
    """A field of torch's record of a failure; it is none of torch's public interface."""
    if not hasattr(failure, field):
        lacking(f"ProcessFailure.{field}", "the root cause of a failure is less exact")
    return getattr(failure, field, default)


def _signal_of(error: Exception) -> str:
    """The name of the signal that torch's agent turned into ``error``."""
    if not hasattr(error, "sigval"):
        lacking("SignalException.sigval", "the report names no signal")
        return "a signal"
    return str(error.sigval.name)


@contextmanager
def _folder(tracker: str) -> Iterator[NodeState]:
    """A private folder for this node's workers, which they find in their environment, with our tracker's origin."""
    try:
        path = Path(tempfile.mkdtemp(prefix="pluto_dist-launch-"))
    except OSError as error:
        report(
            error, "no temporary folder, so the workers report the run's end as under torchrun, and the launcher none"
        )
        yield NodeState(None)
        return
    _hand_down(FOLDER_VARIABLE, str(path))
    _hand_down(SUPERVISOR_VARIABLE, process_name(os.getpid()))
    _hand_down(TRACKER_VARIABLE, tracker)
    try:
        yield NodeState(path)
    finally:
        with suppress(OSError):  # ignore_errors ignores most
            shutil.rmtree(path, ignore_errors=True)


def _hand_down(name: str, value: str) -> None:
    """Set a variable that the workers inherit: torch hands them this process's environment, and nothing else."""
    os.environ[name] = value


def _stop_this_job() -> None:
    """End the agent as by SIGTERM, whose handler stops the workers; by force if it does not."""
    os.kill(os.getpid(), signal.SIGTERM)
    lost = "workers that do not stop are not killed"
    start_timer(FORCE_SECONDS, _force, "pluto_dist force", lost=lost)


def _force() -> None:
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(CANCELLED)
