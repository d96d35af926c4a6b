"""The command line that ``pluto-dist run`` starts: torchrun's own, with the script inside our runner.

Pure, except that torch is asked for its parser, and the disk whether the script is there. Every option of the
installed torchrun is understood, because torchrun's parser reads them. ``script.py ARGS`` becomes ``-m pluto_dist
OPTIONS script.py ARGS``, so that an exception leaves torch's error file, and the run begins before the script does.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path

WRAPPER = "pluto_dist"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """torchrun's view of ``arguments``; exits with its usage message where they are wrong."""
    try:
        from torch.distributed.run import get_args_parser
    except ImportError as error:
        raise not_this_torch(error) from error

    parsed: argparse.Namespace = get_args_parser().parse_args(list(arguments))
    return parsed


def not_this_torch(error: ImportError) -> SystemExit:
    """The end of a launcher whose torch lacks what it starts the agent with."""
    return SystemExit(
        f"pluto-dist run cannot start this torch's torchrun: {error}\n"
        "Start the same with: torchrun [TORCHRUN OPTIONS] -m pluto_dist [OPTIONS] SCRIPT [ARGS]"
    )


def why_not_wrapped(parsed: argparse.Namespace) -> str | None:
    """Why what torchrun is to start cannot be wrapped, and what to do instead; ``None`` where it can."""
    if parsed.no_python:
        return "--no-python starts no Python script: let the command itself run `python -m pluto_dist script.py`"
    if parsed.run_path:
        return "--run-path runs the script inside torchrun's own process: leave it away"
    return None


def missing_script(parsed: argparse.Namespace) -> str | None:
    """Why the script cannot be started, on a job of one node; ``None`` if it can, or if other nodes wait for this one.

    >>> named = argparse.Namespace(training_script="no/such.py", module=False, no_python=False, nnodes="1:1")
    >>> missing_script(named)
    'no/such.py does not exist'
    """
    if parsed.module or parsed.no_python or str(parsed.nnodes) not in ("1", "1:1"):
        return None
    path = Path(parsed.training_script)
    return None if path.exists() else f"{path} does not exist"


def wrapped(parsed: argparse.Namespace, options: Sequence[str]) -> argparse.Namespace:
    """The same launch, with the script inside the wrapper.

    Args:
        parsed: torchrun's view of the command line.
        options: the wrapper's own, such as ``--project digits``.

    >>> asked = argparse.Namespace(
    ...     training_script="train.py", training_script_args=["-x"], module=False, no_python=False, run_path=False)
    >>> started = wrapped(asked, ["--project", "digits"])
    >>> started.module, started.training_script, started.training_script_args
    (True, 'pluto_dist', ['--project', 'digits', '--', 'train.py', '-x'])
    """
    if why_not_wrapped(parsed) is not None:
        return parsed
    changed = copy.copy(parsed)
    script = ["-m", parsed.training_script] if parsed.module else ["--", parsed.training_script]
    changed.training_script_args = [*options, *script, *parsed.training_script_args]
    changed.training_script, changed.module = WRAPPER, True
    return changed
