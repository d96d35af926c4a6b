"""``pluto-dist run``: torchrun with a run around it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pluto_dist.cli.examples import examples
from pluto_dist.cli.wrap import init_arguments, run_options
from pluto_dist.contract.secret import Environ
from pluto_dist.errors import PlutoDistError
from pluto_dist.log import set_up
from pluto_dist.settings import keychain, settings
from pluto_dist.settings.settings import Settings


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="[OPTIONS] [TORCHRUN OPTIONS]",
    epilog=examples(
        "pluto-dist run --project digits --nproc-per-node=8 train.py --lr 1e-3",
        "pluto-dist run --tag sweep --nnodes=2 --rdzv-endpoint=node-a:29400 --nproc-per-node=8 train.py",
    ),
)
@run_options
@click.option("--dry-run", is_flag=True, help="Print what would be started, and start nothing.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="SCRIPT [ARGS]...")
def run(*, dry_run: bool, command: tuple[str, ...], **options: Any) -> None:
    """Run a script on many ranks, as torchrun does, and record it as one run.

    Takes torchrun's options, after its own, and behaves like torchrun: the same command on every node, the same
    output and exit code. The script needs no change; where one calls pluto_dist.init(), these options win over the
    same arguments of that call, config and tags are merged. The run ends as the job does: COMPLETED, FAILED with the
    root cause, or TERMINATED. If it is cancelled in the tracker, all nodes stop, with exit code 77.
    """
    from pluto_dist.launcher import agent
    from pluto_dist.launcher import command as commands

    if not command:
        raise click.UsageError("name a script: pluto-dist run [OPTIONS] [TORCHRUN OPTIONS] SCRIPT [ARGS]...")
    set_up()
    try:
        init_arguments(**options)
        chosen = _settings(**options)
    except PlutoDistError as error:
        raise click.UsageError(str(error)) from error
    parsed = commands.parse(command)
    if why := commands.why_not_wrapped(parsed):
        click.echo(f"pluto_dist: the script cannot be wrapped: {why}", err=True)
    started = commands.wrapped(parsed, own_options(**options))
    if dry_run:
        click.echo(_described(command, started.training_script_args if started is not parsed else None, chosen))
        return
    if why := commands.missing_script(parsed):
        raise click.ClickException(f"{why} (looked for in {Path.cwd()}); nothing was started")
    agent.run(started, chosen)


def own_options(**options: Any) -> list[str]:
    """The wrapper's options, as they were given here.

    >>> own_options(project="digits", tags=("a", "b"), resume=False, name=None, offline=True)
    ['--project=digits', '--tag=a', '--tag=b', '--no-resume', '--offline']
    """
    words: list[str] = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if value is True or (value is False and name == "resume"):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, tuple):
            words.extend(f"--{flag.removesuffix('s')}={each}" for each in value)
        elif value not in (None, False):
            words.append(f"--{flag}={value}")
    return words


def _settings(*, project: str | None, run_id: str | None, resume: bool | None, offline: bool, **_: Any) -> Settings:
    mode = "offline" if offline else None
    chosen = settings.load(Environ(os.environ), project=project, run_id=run_id, resume=resume, mode=mode)
    return keychain.with_stored_key(chosen) if chosen.mode == "online" else chosen


def _described(command: Sequence[str], wrapped: Sequence[str] | None, chosen: Settings) -> str:
    where = "nowhere: PLUTO_API_KEY is not set" if chosen.api_key is None else f"{chosen.url_api}, {chosen.project!r}"
    rows = {
        "torchrun": shlex.join(command),
        "each worker": shlex.join([sys.executable, "-m", "pluto_dist", *wrapped]) if wrapped else "as torchrun has it",
        "recorded in": "nowhere: --offline" if chosen.mode != "online" else where,
        "ends with": "the job, told by the launcher of rank 0's node; a heartbeat every "
        f"{chosen.heartbeat:g} s until then",
    }
    return "\n".join(f"{name:12} {value}" for name, value in rows.items())
