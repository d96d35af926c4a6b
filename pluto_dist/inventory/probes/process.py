"""What does the process that creates the run tell of itself? Its command line, packages, variables and commit.

These are told once for a job, by one rank; what may differ between nodes travels with each node's inventory, as
hashes and as the commit.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping

from pluto_dist.inventory import redaction
from pluto_dist.inventory.limits import VARIABLE_LIMIT
from pluto_dist.inventory.probes import git, packages
from pluto_dist.inventory.probes.sources import Sources
from pluto_dist.inventory.records import Process
from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.serialization.codec import TEXT_LIMIT
from pluto_dist.serialization.text import clean_text

KONDUKTOR = {  # as the SDK (0.0.29) has them; its tracker finds runs by the job's name
    "num_nodes": "NUM_NODES",
    "num_gpus_per_node": "NUM_GPUS_PER_NODE",
    "rank": "RANK",
    "accelerator_type": "KONDUKTOR_ACCELERATOR_TYPE",
    "node_name": "KONDUKTOR_NODENAME",
    "restart_attempt": "RESTART_ATTEMPT",
    "namespace": "KONDUKTOR_NAMESPACE",
    "job_name": "KONDUKTOR_JOB_NAME",
}
CMDLINE_LIMIT = 8192  # characters of all words together
GIT_SECONDS = 1.5  # within the creator's wait for the nodes


def describe(sources: Sources) -> Callable[[], Process]:
    """Starts describing this process; what it returns waits for git, no longer than it may take, and never raises."""
    parts, until = sources.families, time.monotonic() + GIT_SECONDS
    asking = git.ask(sources.code, sources.environ, GIT_SECONDS) if "git" in parts and sources.code else None
    words = redaction.argv(_first_of(sys.orig_argv)) if "argv" in parts else ()
    environ = redaction.environment(sources.environ) if "env" in parts else {}
    process = Process(
        pid=os.getpid() if "argv" in parts else None,
        exe=clean_text(sys.executable) if "argv" in parts else None,
        cmdline=tuple(clean_text(word) or "" for word in words),
        requirements=(value_or_none(lambda: packages.installed(sys.path)) or ()) if "packages" in parts else (),
        environ=tuple(list(environ.items())[:VARIABLE_LIMIT]),
        konduktor=_konduktor(sources.environ) if "env" in parts else (),
    )
    return lambda: dataclasses.replace(process, git=asking(until)) if asking else process


def _first_of(words: Iterable[str]) -> tuple[str, ...]:
    """As many words as the limits allow; "..." for the others."""
    kept: list[str] = []
    size = 0
    for word in words:
        size += min(len(word), TEXT_LIMIT) + 1
        if len(kept) == 1023 or size > CMDLINE_LIMIT:
            return (*kept, "...")
        kept.append(word)
    return tuple(kept)


def _konduktor(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """What names the job where Konduktor, Trainy's scheduler, started it."""
    if not environ.get("KONDUKTOR_JOB_NAME"):
        return ()
    values = {key: clean_text(redaction.text(environ.get(name, ""))) for key, name in KONDUKTOR.items()}
    return tuple((key, value) for key, value in values.items() if value)
