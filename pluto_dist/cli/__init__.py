"""The ``pluto-dist`` command: printing and exit codes; what a command does is in a module of its own below.

One file here per command, imported when it is asked for: ``pluto-dist --help`` is quick, and a command works
without the extras of the others. The package itself never imports this one, nor click.
"""

from __future__ import annotations

import difflib
import importlib
import keyword
from collections.abc import Iterable

import click

from pluto_dist.version import __version__

COMMANDS = {
    "run": "Run a script on many ranks, as torchrun does, and record it as one run.",
    "server": "Run the embedded tracker until SIGTERM or ctrl-C.",
    "runs": "List runs, the newest first.",
    "show": "Show one run: its status and why, attempts, nodes, config and metrics.",
    "nodes": "Show the nodes and GPUs of a run, which rank is where, and what differs.",
    "logs": "Print the console lines of a run, of all ranks by time.",
    "open": "Open the page of a run in the browser, and print its address.",
    "cancel": "Cancel a run: its job stops on all nodes at its next heartbeat.",
    "rm": "Delete a run and all that it logged, for good.",
    "export": "Write runs with their metrics, console lines and files into a folder.",
    "import": "Read runs that `pluto-dist export` wrote into the tracker.",
    "sync": "Send what jobs kept while their tracker did not answer.",
    "explain": "Tell which run this environment would join, and why.",
    "doctor": "Check this machine before a job: what was seen, and what mends it.",
}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question to add to an error about ``word``; "" if nothing that is known is like it.

    >>> did_you_mean("digts", ["faces", "digits"])
    " Did you mean 'digits'?"
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


class _Commands(click.Group):
    """The commands by name; a test keeps their summaries those of the commands themselves."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        command: click.Command = getattr(importlib.import_module(f"pluto_dist.cli.{name}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}.{did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="pluto-dist")
def main() -> None:
    """One job, one run: tools around distributed jobs and their experiment tracker."""
