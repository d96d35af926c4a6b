"""The list of commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import pluto_dist.cli
from cli.asked import ask, every_command, printed
from cli.test_asking import compare
from inventory.documents import compose_hosts, with_driver
from inventory.inventories import h100_node
from pluto_dist.cli import COMMANDS, main
from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.contract.run_ref import RunName, reference
from pluto_dist.contract.run_requests import CreateRunRequest
from pluto_dist.launcher.agent import CANCELLED
from pluto_dist.server import LocalServer
from pluto_dist.version import __version__
from recorded_runs import Recorder

README = Path(pluto_dist.cli.__file__).with_name("README.md").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_summaries_are_the_commands_own(name):
    """`pluto-dist --help` has the first line of each command's help."""
    command = main.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    assert (command.help or "").partition("\n")[0] == COMMANDS[name]
    assert COMMANDS[name] in CliRunner().invoke(main, ["--help"]).output.replace("\n" + " " * 11, " ")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("rnus", "runs"),
        ("log", "logs"),
        ("exprot", "export"),
        ("cancle", "cancel"),
        ("node", "nodes"),
        ("delete", None),
    ],
)
def test_did_you_mean(typed, meant):
    """A word that is nearly a command is an error that names the command; exit code 2 as for any wrong line."""
    done = CliRunner().invoke(main, [typed], prog_name="pluto-dist")
    assert done.exit_code == 2
    assert f"No such command {typed!r}." in done.output
    assert (f"Did you mean {meant!r}?" in done.output) is (meant is not None)


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version(option):
    """Both print the version."""
    assert CliRunner().invoke(main, [option]).output == f"pluto-dist, version {__version__}\n"


def shape(value: Any) -> Any:
    """A JSON document with types in the place of values."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def test_the_shapes_of_json(tmp_path):
    """Each document has the fields of the files in ``cli/output/``; the commands that ask a tracker have their own."""
    document = compose_hosts(a=h100_node("a", lost=(5,)), b=with_driver(h100_node("b"), "535.1"))
    with LocalServer(tmp_path / "t.db") as server:
        Recorder(server).whole()
        for number in (1, 2):
            name = RunName(server.url, "digits", reference(f"kept-{number}"))
            Outbox(tmp_path / "pluto-dist" / "spool", name, "launch").enqueue(
                CreateRunRequest("run", "digits", f"kept-{number}")
            )
        texts = {
            "nodes": ask(None, "nodes", "-", "--json", input=json.dumps(document)),
            "explain": ask(None, "explain", "--env", "-", "--json", input="RANK=0\nWORLD_SIZE=1\nPLUTO_RUN_ID=x\n"),
            "explain-error": ask(None, "explain", "--env", "-", "--json", input="RANK=3\n"),
            "doctor": ask(None, "doctor", "--offline", "--json"),
            "server-status": ask(None, "server", "status", "--db", str(tmp_path / "t.db"), "--json"),
            "sync-dry-run": ask(server, "sync", str(tmp_path), "--dry-run", "--json"),
            "sync": ask(server, "sync", str(tmp_path), "--json"),
        }
    for name, done in texts.items():
        found = json.loads(done.stdout)
        if name == "nodes":
            found["node_classes"] = found["cluster"] = found["nodes"] = "as in the system metadata"
        compare(f"shape-{name}", json.dumps(shape(found), indent=2) + "\n")


def test_each_json_has_its_shape():
    """Each command with --json, inner ones too, has a file in ``cli/output/`` and a row in the README."""
    asked = {name for name, command in every_command() if any("--json" in each.opts for each in command.params)}
    files = {file.stem for file in Path(__file__).parent.joinpath("cli", "output").glob("*.txt")}
    named = {name: name.replace(" ", "-") for name in asked}
    assert {name for name in asked if not {f"{named[name]}-json", f"shape-{named[name]}"} & files} == set()
    table = README.split("## JSON")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z ]+)` \|", table, re.MULTILINE)) == asked
    assert "server status" in asked  # the walk goes into groups


# Completion. The shells that are installed are asked; `pluto-dist` is a script in front of the PATH.

SHELLS = [
    pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed"))
    for name in ("bash", "zsh", "fish")
]
ASKED = {
    ("pluto-dist", "ru"): {"run", "runs"},
    ("pluto-dist", "server", "ba"): {"backup"},
    ("pluto-dist", "runs", "--status", "fa"): {"failed"},
    ("pluto-dist", "show", "--pro"): {"--project"},
}


@pytest.fixture
def pluto_dist_in_path(tmp_path) -> dict[str, str]:
    script = tmp_path / "pluto-dist"
    source = "from pluto_dist.cli import main; main(prog_name='pluto-dist')"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{source}" "$@"\n')
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(Path(__file__).parents[1])}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "words", [next(iter(ASKED)), *(pytest.param(each, marks=pytest.mark.exhaustive) for each in list(ASKED)[1:])]
)
def test_completion(shell, words, pluto_dist_in_path):
    """The line of the README makes the shell complete commands, options and their values."""
    (line,) = (row.split("`")[1] for row in README.splitlines() if row.startswith(f"| {shell} |"))
    line = line.replace("\\|", "|")
    if shell == "bash":
        typed = shlex.join(words)
        source = f"{line}\nCOMP_WORDS=({typed})\nCOMP_CWORD={len(words) - 1}\n_pluto_dist_completion pluto-dist\n"
        source += 'printf "%s\\n" "${COMPREPLY[@]}"\n'
    elif shell == "fish":
        source = f"{line}\ncomplete -C {shlex.quote(' '.join(words))} | cut -f1\n"
    else:
        line = line.removeprefix('eval "').removesuffix('"').removeprefix("$(").removesuffix(")")
        source = (
            f"{line} > /dev/null && COMP_WORDS={shlex.quote(' '.join(words))} COMP_CWORD={len(words) - 1} "
            "_PLUTO_DIST_COMPLETE=zsh_complete pluto-dist | sed -n '2~3p'\n"
        )
    done = subprocess.run(
        [shell, "-c", source], env=pluto_dist_in_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ASKED[words] <= set(done.stdout.split()), done.stdout + done.stderr


def test_exit_codes_are_those_of_the_table():
    """The table of exit codes has 0, 1, 2 and the code of a cancel."""
    table = README.split("## Exit codes")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| ([0-9]+) \|", table, re.MULTILINE)) == {"0", "1", "2", str(CANCELLED)}


def test_watching(monkeypatch):
    """--watch lists again until ctrl-C, which is no error."""
    with LocalServer() as server:
        recorder = Recorder(server)
        recorder.create("digits", runName="first")
        turns = []

        def sleep(_: float) -> None:
            turns.append(1)
            if len(turns) == 2:
                raise KeyboardInterrupt
            recorder.create("digits", runName="second")

        monkeypatch.setattr("pluto_dist.cli.runs.time.sleep", sleep)
        output = printed(server, "runs", "digits", "--watch")
    assert (output.count("first"), output.count("second")) == (2, 1)
    assert [text.count("first") for text in output.rstrip().split("\n\n")] == [1, 1]
