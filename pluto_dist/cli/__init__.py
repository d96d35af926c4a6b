"""The ``pluto-dist`` command: printing and exit codes; what a command does is in a module of its own below.

One file here per command, imported when it is asked for: ``pluto-dist --help`` is quick, and a command works
without the extras of the others. The package itself never imports this one, nor click.
"""

from __future__ import annotations

import importlib

import click

from pluto_dist.version import __version__

COMMANDS = {
    "run": "Run a script on many ranks, as torchrun does, and record it as one run.",
    "server": "Run the embedded tracker until SIGTERM or ctrl-C.",
    "sync": "Send what jobs kept while their tracker did not answer.",
    "nodes": "Show the nodes and GPUs of a run, which rank is where, and what differs.",
    "explain": "Tell which run this environment would join, and why.",
    "doctor": "Check this machine before a job: what was seen, and what mends it.",
}


class _Commands(click.Group):
    """The commands by name; a test keeps their summaries those of the commands themselves."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"pluto_dist.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pluto-dist")
def main() -> None:
    """One job, one run: tools around distributed jobs and their experiment tracker."""
