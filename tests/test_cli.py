"""The list of commands."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from pluto_dist.cli import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_summaries_are_the_commands_own(name):
    """`pluto-dist --help` has the first line of each command's help."""
    command = main.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    assert (command.help or "").partition("\n")[0] == COMMANDS[name]
    assert COMMANDS[name] in CliRunner().invoke(main, ["--help"]).output.replace("\n" + " " * 11, " ")
