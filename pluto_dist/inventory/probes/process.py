"""The process that creates the run: its command line, packages, environment variables and git state.

One rank describes itself for the whole job. What may differ between nodes is in each node's inventory, as hashes and as
the commit.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping

from pluto_dist.inventory import redaction
from pluto_dist.inventory.probes import git, packages
from pluto_dist.inventory.probes.sources import Sources, recorded_environment
from pluto_dist.inventory.records import VARIABLE_LIMIT, Process
from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.serialization.codec import TEXT_LIMIT
from pluto_dist.serialization.text import record_text

KONDUKTOR = {  # the names of the SDK (0.0.29); its tracker finds runs by the name of the job
    "num_nodes": "NUM_NODES",
    "num_gpus_per_node": "NUM_GPUS_PER_NODE",
    "rank": "RANK",
    "accelerator_type": "KONDUKTOR_ACCELERATOR_TYPE",
    "node_name": "KONDUKTOR_NODENAME",
    "restart_attempt": "RESTART_ATTEMPT",
    "namespace": "KONDUKTOR_NAMESPACE",
    "job_name": "KONDUKTOR_JOB_NAME",
}
CMDLINE_LIMIT = 8192  # characters of all arguments together
GIT_SECONDS = 1.5  # less than the creator waits for the nodes


def describe(sources: Sources) -> Callable[[], Process]:
    """Starts to describe this process; the returned function waits for git, up to its time limit, and never raises."""
    families, until = sources.families, time.monotonic() + GIT_SECONDS
    code = sources.code_folder if "git" in families else None
    await_git = git.start_status(code, sources.environ, GIT_SECONDS) if code else None
    words = redaction.argv(_truncated(sys.orig_argv)) if "argv" in families else ()
    environ = recorded_environment(sources.environ) if "env" in families else {}
    process = Process(
        pid=os.getpid() if "argv" in families else None,
        exe=record_text(sys.executable) if "argv" in families else None,
        cmdline=tuple(record_text(word) or "" for word in words),
        requirements=(value_or_none(lambda: packages.installed(sys.path)) or ()) if "packages" in families else (),
        environ=tuple(list(environ.items())[:VARIABLE_LIMIT]),
        konduktor=_konduktor(sources.environ) if "env" in families else (),
    )
    return lambda: dataclasses.replace(process, git=await_git(until)) if await_git else process


def _truncated(words: Iterable[str]) -> tuple[str, ...]:
    """As many words as the limits allow; "..." in place of the others."""
    kept: list[str] = []
    size = 0
    for word in words:
        size += min(len(word), TEXT_LIMIT) + 1
        if len(kept) == 1023 or size > CMDLINE_LIMIT:
            return (*kept, "...")
        kept.append(word)
    return tuple(kept)


def _konduktor(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Name and size of the job, if Konduktor, Trainy's scheduler, started it."""
    if not environ.get("KONDUKTOR_JOB_NAME"):
        return ()
    values = {key: record_text(redaction.text(environ.get(name, ""))) for key, name in KONDUKTOR.items()}
    return tuple((key, value) for key, value in values.items() if value)
