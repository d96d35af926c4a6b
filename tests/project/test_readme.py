"""What the README says is what the code does."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import pluto_dist
from pluto_dist.cli import COMMANDS, main
from pluto_dist.cli.wrap import wrap
from pluto_dist.settings.settings import VARIABLES, Variable

ROOT = Path(pluto_dist.__file__).parents[1]
README = (ROOT / "README.md").read_text()
ARGUMENTS = inspect.signature(pluto_dist.init).parameters


def row(variable: Variable) -> str:
    """The line of the settings table that ``variable`` should have."""
    argument = f"`{variable.setting}=`" if variable.setting in ARGUMENTS else ""
    names = ", ".join(f"`{name}`" for name in variable.names)
    default = (
        ""
        if variable.default is None
        else f"`{variable.default:g}`"
        if isinstance(variable.default, float)
        else f"`{variable.default}`"
    )
    return re.sub(" +", " ", f"| {argument} | {names} | {default} | {variable.meaning} |")


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda v: v.setting)
def test_the_settings_table_is_the_codes(variable):
    """Every setting stands in the table with its argument, variables, default and meaning."""
    assert row(variable) in README


def test_the_settings_table_has_no_more():
    """No row of the table names a variable that the code does not read."""
    table = README.split("## Settings")[1].split("\n## ")[0]
    assert set(re.findall(r"`((?:PLUTO|MLOP)_[A-Z_]+)`", table)) <= {name for v in VARIABLES for name in v.names}


def test_every_script_is_there():
    """The commands that the README names exist and can be run."""
    for name in set(re.findall(r"\./scripts/([a-z]+)", README)):
        assert (ROOT / "scripts" / name).stat().st_mode & 0o111


def test_every_module_named_is_there():
    """The map of the tree leads somewhere."""
    for path in set(re.findall(r"`(pluto_dist/[a-z_./]+)`", README)):
        assert (ROOT / path).exists(), path


def test_the_first_screen_is_short():
    """One sentence, a script of at most eight lines, one command."""
    script = README.split("```python\n")[1].split("```")[0]
    assert len(script.strip().splitlines()) <= 8


HELPS = {
    "pluto-dist --help": (main, ["--help"]),
    **{f"pluto-dist {name} --help": (main, [name, "--help"]) for name in COMMANDS},
    "python -m pluto_dist --help": (wrap, ["--help"]),
}


def help_text(name: str) -> str:
    command, arguments = HELPS[name]
    program = name.partition(" --")[0] if command is wrap else "pluto-dist"
    done = CliRunner().invoke(command, arguments, prog_name=program, terminal_width=110)
    assert done.exit_code == 0, done.output
    return f"$ {name}\n{done.output.rstrip()}\n"


def test_the_help_of_every_command_is_in_the_readme():
    """What each command says of itself stands in the README; PLUTO_DIST_WRITE_SNAPSHOTS=1 writes it there."""
    block = "```console\n" + "\n".join(help_text(name) for name in HELPS) + "```\n"
    before, found, after = re.split(
        r"(?<=<!-- help -->\n)(.*?)(?=<!-- end of help -->)", (ROOT / "README.md").read_text(), flags=re.DOTALL
    )
    if os.environ.get("PLUTO_DIST_WRITE_SNAPSHOTS"):
        (ROOT / "README.md").write_text(before + block + after)
        found = block
    assert found == block
