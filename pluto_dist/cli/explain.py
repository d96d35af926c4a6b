"""``pluto-dist explain``: which run this environment would join, and why; no network, no torch."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import click

from pluto_dist.cli import asking
from pluto_dist.cli.examples import examples
from pluto_dist.contract.secret import Environ
from pluto_dist.doctor.explain import Explanation
from pluto_dist.doctor.explain import explain as explained
from pluto_dist.errors import PlutoDistError, readable

WIDTH = 120  # of the sentence where no terminal shows it
_IS_ASSIGNED = re.compile("[A-Za-z_][A-Za-z0-9_]*=")


@click.command(
    epilog=examples(
        "torchrun --nproc-per-node=2 --no-python pluto-dist explain", "pluto-dist explain --env worker.env --resume"
    )
)
@click.option(
    "--env",
    "file",
    metavar="FILE",
    help="Explain this environment instead: the output of `env`, lines of `export NAME=value`, or /proc/PID/environ. "
    "- reads standard input.",
)
@click.option("--run-id", help="As given to init(run_id=...).")
@click.option("--resume/--no-resume", default=None, help="As given to init(resume=...).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(*, file: str | None, run_id: str | None, resume: bool | None, as_json: bool) -> None:
    """Tell which run this environment would join, and why.

    Starts nothing and asks nobody. Run it where a worker runs (`torchrun ... --no-python pluto-dist explain`), or
    give it a worker's environment as a file. Exits with 1 where init() would raise an error, which it prints.
    """
    try:
        told = explained(_environment(file), run_id=run_id, resume=resume)
    except PlutoDistError as error:
        if as_json:
            click.echo(json.dumps({"error": type(error).__name__, "message": str(error)}, indent=2))
        else:
            click.echo(f"init() would raise {type(error).__name__}: {error}")
        sys.exit(1)
    if as_json:
        click.echo(json.dumps(told.to_json(), indent=2))
        return
    click.echo("\n".join(textwrap.wrap(readable(told.sentence), asking.width() or WIDTH)))
    click.echo(readable("\n".join(["", *_lines(told)])))


def _environment(file: str | None) -> Environ:
    if file is None:
        return Environ(os.environ)
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise click.ClickException(f"the environment file {file} cannot be read: {error.strerror}") from error
    found = parse(text)
    if not found:
        raise click.ClickException(
            f"{'standard input' if file == '-' else file} is no environment: it has no line NAME=value.\n"
            "Give the output of `env`, lines of `export NAME=value`, or /proc/PID/environ."
        )
    return Environ(found)


def parse(text: str) -> dict[str, str]:
    """The variables in ``text``: NUL-separated, or a line each, with or without ``export`` and shell quotes.

    >>> parse("export A='x y'  # note\\nB=2\\n"), parse("A=1\\0B=2\\0")
    ({'A': 'x y', 'B': '2'}, {'A': '1', 'B': '2'})
    >>> parse("this = no\\n{'a': 'b=c'}"), parse("\\0\\1=x")
    ({}, {})
    """
    if "\0" in text:
        return dict(_assigned(entry) for entry in text.split("\0") if _IS_ASSIGNED.match(entry))
    found = {}
    for line in text.splitlines():
        words = line.strip()
        if words.startswith("export "):
            with suppress(ValueError):  # a quote that is not closed
                words = " ".join(shlex.split(words.removeprefix("export "), comments=True))
        if _IS_ASSIGNED.match(words):
            name, value = _assigned(words)
            found[name] = value
    return found


def _assigned(entry: str) -> tuple[str, str]:
    name, _, value = entry.partition("=")
    return name, value


def _lines(told: Explanation) -> list[str]:
    place = f"rank {told.rank} of {told.world_size}"
    if told.node_rank is not None:
        place += f", node {told.node_rank}" + (f" of {told.node_count}" if told.node_count else "")
    sent = told.requests
    rows = {
        "run": told.external_id,
        "because": told.source,
        "launcher": f"{told.launcher} ({place})",
        "shared store": told.meet,
        "restart": told.restart,
        "requeue": told.requeue,
        "second launch": told.second_launch,
        "scheduler job": told.job or "none",
        "not used": "; ".join(told.also_named),
        "tracker": told.tracker,
        "requests": f"{sent.creates} create-run (the last after {sent.last_create_after:g} s), {sent.others} other, "
        f"{sent.heartbeats_a_minute:g} heartbeats a minute",
    }
    return [f"{name:14} {value}" for name, value in rows.items() if value]
