"""Runs a command in this process as a shell would: against a tracker, without a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
from click.testing import CliRunner, Result

from hosted.columns import AnyTracker
from pluto_dist.cli import main


def every_command(command: click.Command = main, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Each command below ``command``, groups included, by the words that name it ("server status")."""
    if words:
        yield " ".join(words), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None, name
            yield from every_command(inner, (*words, name))


def ask(server: AnyTracker | None, *arguments: str, **more: Any) -> Result:
    """The result of ``pluto-dist ARGUMENTS`` with the environment of a job of ``server``."""
    environ = {"PLUTO_PROJECT": "", "NO_COLOR": "", **({} if server is None else server.environ())}
    return CliRunner().invoke(main, list(arguments), env=environ, prog_name="pluto-dist", **more)


def printed(server: AnyTracker | None, *arguments: str, **more: Any) -> str:
    """What a command that succeeds prints."""
    done = ask(server, *arguments, **more)
    assert done.exit_code == 0, done.output
    return done.stdout
