"""What the README files say is what the code does, shows and has."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import pluto_dist
from pluto_dist.cli import COMMANDS, main
from pluto_dist.cli.wrap import wrap
from pluto_dist.launcher import command as launcher_command
from pluto_dist.run import Run
from pluto_dist.settings.settings import VARIABLES, Variable

ROOT = Path(pluto_dist.__file__).parents[1]
FOLDERS = ("pluto_dist", "examples", "scripts", "tests")
README = (ROOT / "README.md").read_text()
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [ROOT / "README.md", *(found for name in FOLDERS for found in sorted((ROOT / name).rglob("*.md")))]
}
ARGUMENTS = inspect.signature(pluto_dist.init).parameters
LINES, CELL = 150, 110  # of README.md; of a cell of a table, in characters

# What no setting of `init()` is, and the file that reads or writes it.
OTHER_VARIABLES = {
    "PLUTO_DIST_SERVER_KEY": "pluto_dist/cli/server.py",
    "PLUTO_DIST_CONTRACT_URL": "tests/server/contract/table.py",
    "PLUTO_DIST_CONTRACT_KEY": "tests/server/contract/table.py",
    "PLUTO_DIST_CONTRACT_PY": "tests/server/contract/table.py",
    "PLUTO_DIST_PARENT": "pluto_dist/environments/process_facts.py",
    "PLUTO_DIST_WRITE_SNAPSHOTS": "tests/cli/test_help.py",
    "PLUTO_URL_": "pluto_dist/server/env_file.py",  # `PLUTO_URL_*`
}
USERS_FILES = {"train.py", "package.train", "pluto.env", "worker.env", "node.profile", "tracker.db", "dist/"}
GROUP = click.Context(main, **main.context_settings)  # of all commands: they share its names of --help
AVOIDED = r"\b(beats?|tells?|hears?|told|seats?)\b|\branks meet\b|\bthe leader\b"

every_document = pytest.mark.parametrize("name", DOCUMENTS)


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of ``text`` in ``language``."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    """``text`` without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def spans(text: str) -> list[str]:
    """The code spans of ``text``."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command at a prompt of ``text``, without the variables that stand before them."""
    for block in blocks(text, "console"):
        for line in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
            for part in line.split(" && "):
                words = shlex.split(part, comments=True)
                while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                    words = words[1:]
                yield words


# The settings.


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


@every_document
def test_variables_exist(name):
    """Every variable of this package or the SDK that a document names is a setting, or is read by a known file."""
    named = set(re.findall(r"\b(?:PLUTO|MLOP)_[A-Z_]+", DOCUMENTS[name]))
    settings = {name for variable in VARIABLES for name in variable.names}
    assert named - settings <= OTHER_VARIABLES.keys()
    for variable in named - settings:
        assert variable in (ROOT / OTHER_VARIABLES[variable]).read_text()


# Commands.


@every_document
def test_command_lines_parse(name):
    """Every command line at a prompt is one that the command, torchrun or the script understands."""
    for words in commands(DOCUMENTS[name]):
        understand(words)


def understand(words: list[str]) -> None:
    """Parse a command line without running it; raises if it is wrong."""
    program, *arguments = words
    if program == "pluto-dist":
        understand_ours(arguments)
    elif program == "torchrun":
        parsed = launcher_command.parse(arguments)
        if parsed.training_script == "pluto_dist":
            wrap.make_context("", list(parsed.training_script_args))
        elif parsed.training_script == "pluto-dist":
            understand_ours(parsed.training_script_args)
        else:
            assert parsed.training_script in USERS_FILES or (ROOT / parsed.training_script).exists()
    elif program == "srun":
        understand(words[next(n for n, word in enumerate(words) if n and not word.startswith("-")) :])
    elif program == ".venv/bin/python":
        assert arguments[:2] == ["-m", "pytest"]
        assert all((ROOT / path).exists() for path in arguments[2:])
    elif program == ".":
        assert Path(arguments[0]).name in USERS_FILES
    else:
        assert program.startswith("./scripts/")
        assert (ROOT / program).stat().st_mode & 0o111
        assert all((ROOT / word).exists() for word in arguments if "/" in word)


def understand_ours(arguments: list[str]) -> None:
    """Parse a command line of ``pluto-dist``, and what `pluto-dist run` gives to torchrun."""
    if arguments == ["--help"]:
        return
    command = main.get_command(GROUP, arguments[0])
    assert command is not None, arguments[0]
    with command.make_context(arguments[0], list(arguments[1:]), GROUP) as context:
        if arguments[0] == "run":
            script = launcher_command.parse(context.params["command"]).training_script
            assert script in USERS_FILES or (ROOT / script).exists()


@every_document
def test_commands_in_the_text_exist(name):
    """A code span that starts with `pluto-dist` names a command, with options that it has."""
    for span in spans(DOCUMENTS[name]):
        program, *arguments = shlex.split(span)
        if program != "pluto-dist" or not arguments:
            continue
        command = main.get_command(GROUP, arguments[0])
        assert command is not None, span
        command.make_context(arguments[0], list(arguments[1:]), GROUP, resilient_parsing=True).close()


@every_document
def test_scripts_are_there(name):
    """The scripts that a document names exist and can be run, the benchmarks too."""
    for script in set(re.findall(r"\./scripts/([a-z]+)", DOCUMENTS[name])):
        assert (ROOT / "scripts" / script).stat().st_mode & 0o111
    for benchmark in set(re.findall(r"\./scripts/bench ([a-z]+)", DOCUMENTS[name])) - {"all"}:
        assert (ROOT / "scripts" / "benchmarks" / f"{benchmark}.py").exists()


def test_every_command_is_in_the_readme():
    """The list of commands is complete."""
    table = README.split("## Commands")[1].split("\n## ")[0]
    first_cells = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    assert set(re.findall(r"`pluto-dist ([a-z]+)`", " ".join(first_cells))) == set(COMMANDS)


# Files.


@every_document
def test_files_in_the_text_exist(name):
    """A code span that looks like the path of a file or folder is one, from the document's folder or from the top."""
    here = (ROOT / name).parent
    for span in spans(DOCUMENTS[name]):
        looks = re.fullmatch(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*(/|\.(py|md|json|txt|toml|c))", span)
        if looks and span not in USERS_FILES:
            assert (here / span).exists() or (ROOT / span).exists(), span


@every_document
def test_links_lead_somewhere(name):
    """A link to a file of the tree finds it, and the heading behind its #."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(DOCUMENTS[name])):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        found = ((ROOT / name).parent / path).resolve()
        assert found.exists(), target
        file = found / "README.md" if found.is_dir() else found
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings], target


def test_every_document_can_be_reached():
    """From README.md, links lead to every other document."""
    seen, waiting = set(), ["README.md"]
    while waiting:
        seen.add(name := waiting.pop())
        folder = (ROOT / name).parent
        for target in re.findall(r"\]\(([^)#\s]+\.md)(?:#[^)]*)?\)", DOCUMENTS[name]):
            linked = (folder / target).resolve().relative_to(ROOT.resolve()).as_posix()
            waiting.extend({linked} - seen)
    assert seen == set(DOCUMENTS)


def test_every_package_is_on_the_map():
    """The map of the packages is complete."""
    table = README.split("## Packages")[1].split("\n## ")[0]
    for folder in sorted((ROOT / "pluto_dist").iterdir()):
        if (folder / "__init__.py").exists():
            assert re.search(rf"^\| (`pluto_dist/{folder.name}/`|\[{folder.name}\])", table, re.MULTILINE), folder.name


# Snippets and form.


@every_document
def test_python_compiles(name):
    """Every Python snippet compiles, and of a run it uses what a run has."""
    for code in blocks(DOCUMENTS[name], "python"):
        tree = ast.parse(code)
        compile(tree, name, "exec")
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "run"
        }
        assert used <= set(dir(Run))


def test_the_readme_is_short():
    """README.md can be read in one sitting; what does not fit stands in the README.md of its folder."""
    assert len(README.splitlines()) <= LINES
    assert len(blocks(README, "python")[0].splitlines()) <= 12


@every_document
def test_tables_hold_words(name):
    """No cell of a table is a paragraph, and every row has as many cells as its head."""
    for table in re.findall(r"(?:^\|.*\|\n)+", prose(DOCUMENTS[name]), re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()]
        assert {len(cells) for cells in rows} == {len(rows[0])}
        for cell in (cell for cells in rows for cell in cells):
            assert len(cell.strip()) <= CELL, cell


@every_document
def test_words(name):
    """The words are those of torch.distributed; there are no absolute paths of one machine."""
    assert not re.search(AVOIDED, prose(DOCUMENTS[name])), re.search(AVOIDED, prose(DOCUMENTS[name]))
    assert not re.search(r"(?<![\w.~])/(root|work|tmp|mnt)/", DOCUMENTS[name])
    assert not re.search(r"(?<![\w/])#\d+\b", DOCUMENTS[name])


def test_the_changes_have_a_section_for_this_version():
    """The newest section of CHANGELOG.md is that of the version of the package."""
    newest = re.findall(r"^## (.*)$", DOCUMENTS["pluto_dist/CHANGELOG.md"], re.MULTILINE)[0]
    assert pluto_dist.__version__ in newest


def test_they_are_in_the_tree():
    """Git does not ignore any of them."""
    done = subprocess.run(
        ["git", "check-ignore", *DOCUMENTS], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert not done.stdout
