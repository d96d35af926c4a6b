"""What does the process that creates the run tell of itself? Its command line, packages, variables and commit.

These are told once for a job, by one rank; what may differ between nodes travels with each node's inventory, as
hashes and as the commit.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable

from . import git, packages, redaction
from .decoding import VARIABLE_LIMIT, clean
from .reading import known
from .records import Process
from .sources import Sources

GIT_SECONDS = 1.5  # within the creator's wait for the nodes


def describe(sources: Sources) -> Callable[[], Process]:
    """Starts describing this process; what it returns waits for git, no longer than it may take, and never raises."""
    parts, until = sources.families, time.monotonic() + GIT_SECONDS
    asking = git.ask(sources.code, sources.environ, GIT_SECONDS) if "git" in parts and sources.code else None
    words = redaction.argv(sys.orig_argv) if "argv" in parts else ()
    environ = redaction.environment(sources.environ) if "env" in parts else {}
    process = Process(
        pid=os.getpid() if "argv" in parts else None,
        exe=clean(sys.executable) if "argv" in parts else None,
        cmdline=tuple(clean(word) or "" for word in words[:1024]),
        requirements=(known(lambda: packages.installed(sys.path)) or ()) if "packages" in parts else (),
        environ=tuple(list(environ.items())[:VARIABLE_LIMIT]),
    )
    return lambda: dataclasses.replace(process, git=asking(until)) if asking else process
