"""The ``--help`` texts of all commands are those in ``help/``; PLUTO_DIST_WRITE_SNAPSHOTS=1 writes them there."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.asked import every_command
from pluto_dist.cli import main
from pluto_dist.cli.wrap import PROGRAM, wrap
from project.test_readme import understand

FOLDER = Path(__file__).with_name("help")
TEXTS = {
    "pluto-dist": (main, "pluto-dist", ["--help"]),
    **{
        f"pluto-dist-{name.replace(' ', '-')}": (main, "pluto-dist", [*name.split(), "--help"])
        for name, _ in every_command()
    },
    "python-m-pluto_dist": (wrap, PROGRAM, ["--help"]),
}


@pytest.mark.parametrize("name", TEXTS)
def test_help(name):
    """The text is that of the file."""
    command, program, arguments = TEXTS[name]
    done = CliRunner().invoke(command, arguments, prog_name=program, terminal_width=110)
    assert done.exit_code == 0, done.output
    file = FOLDER / f"{name}.txt"
    if os.environ.get("PLUTO_DIST_WRITE_SNAPSHOTS"):
        FOLDER.mkdir(exist_ok=True)
        file.write_text(done.output)
    assert file.read_text() == done.output


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "pluto-dist"])
def test_two_examples(name):
    """Each text ends with two examples, in which the command is typed with options that it has."""
    text = (FOLDER / f"{name}.txt").read_text()
    examples = [line.strip() for line in text.partition("Examples:\n")[2].splitlines()]
    assert len(examples) == 2, text
    for example in examples:
        understand(shlex.split(example.partition("|")[0]))


def test_no_other_texts():
    """No file is left of a command that is gone."""
    assert {file.stem for file in FOLDER.iterdir()} == set(TEXTS)
