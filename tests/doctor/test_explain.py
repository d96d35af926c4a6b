"""``pluto-dist explain``: what it says is what ``init()`` would find out, and it asks nobody for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from environments.typical import EIGHT, NODES, SLURM_JOB, TORCHRUN

import pluto_dist
from pluto_dist import environments, identity
from pluto_dist.cli import COMMANDS, main
from pluto_dist.doctor.explain import Explanation, explain

README = (Path(pluto_dist.__file__).parents[1] / "README.md").read_text()


def as_a_row(name: str, told: Explanation) -> str:
    """One environment as a line of the README's table."""
    return f"| {name} | `{told.external_id}` | {told.meet} | {told.restart} | {told.requeue} | {told.second_launch} |"


@pytest.mark.parametrize("name", EIGHT)
def test_the_readme_shows_what_it_says(name):
    """The README's table of typical environments is what explain says of them."""
    row = as_a_row(name, explain(EIGHT[name]))
    assert row in README, row


@pytest.mark.parametrize("environ", EIGHT.values(), ids=EIGHT)
def test_it_decides_as_init_does(environ):
    """The id and its source are those of the decision that init() makes from the same environment."""
    told = explain(environ)
    chosen = environ.get("PLUTO_RUN_ID"), environ.get("PLUTO_DIST_RESUME") == "1"
    decision = identity.decide(environments.detect(environ), run_id=chosen[0], resume=chosen[1])
    assert (told.source, told.row) == (decision.source, decision.row)
    assert told.external_id.startswith(getattr(decision, "prefix", "") or decision.reference.value)


@pytest.mark.parametrize(
    ("environ", "arguments", "restart", "requeue", "second"),
    [
        (TORCHRUN, {}, "torchrun's store and", "PLUTO_RUN_ID", "a run of its own"),
        (TORCHRUN | {"TORCHELASTIC_USE_AGENT_STORE": "False"}, {}, "every node keeps", "PLUTO_RUN_ID", "own"),
        (TORCHRUN, {"run_id": "x"}, "torchrun's store and", "you named it", "you named it"),
        (TORCHRUN | NODES | {"TORCHELASTIC_RUN_ID": "123"}, {}, "", "PLUTO_DIST_RESUME=1", "own"),
        (TORCHRUN | SLURM_JOB, {}, "", "PLUTO_DIST_RESUME=1", "own"),
        (TORCHRUN | SLURM_JOB, {"resume": True}, "", "the same run", "an error while it lives"),
        ({}, {}, "nobody restarts", "PLUTO_RUN_ID", "own"),
    ],
)
def test_what_comes_after(environ, arguments, restart, requeue, second):
    """A restart, a requeue and a second launch: which run each would be in."""
    told = explain(environ, **arguments)
    assert restart in told.restart
    assert requeue in told.requeue
    assert second in told.second_launch


def test_the_requests_of_a_large_job():
    """1,024 ranks: as many create-run calls, spread over 23 s at 50 a second at most, and one sender of heartbeats."""
    told = explain(TORCHRUN | NODES | {"WORLD_SIZE": "1024"}).requests
    assert (told.creates, told.last_create_after, told.heartbeats_a_minute, told.others) == (1024, 22.7, 6.0, 1)


def invoke(*arguments: str, given: str | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["explain", *arguments], input=given)
    return done.exit_code, done.output


@pytest.mark.parametrize("form", ["env", "export", "proc"])
def test_an_environment_from_a_file(tmp_path, form):
    """The output of env, lines of exports, and /proc/PID/environ are read alike."""
    environ = TORCHRUN | {"PLUTO_PROJECT": "my project"}
    if form == "env":
        text = "".join(f"{name}={value}\n" for name, value in environ.items())
    elif form == "export":
        text = "# for the job\n" + "".join(f"export {name}='{value}'\n" for name, value in environ.items())
    else:
        text = "".join(f"{name}={value}\0" for name, value in environ.items())
    (tmp_path / "environ").write_text(text)
    code, output = invoke("--env", str(tmp_path / "environ"), "--json")
    assert code == 0
    assert json.loads(output) == json.loads(json.dumps(explain(environ).to_json()))
    assert invoke("--env", "-", "--json", given=text) == (0, output)


def test_an_error_that_init_would_raise():
    """What init() would refuse is said in the same words, with exit code 1; in JSON too."""
    code, output = invoke("--env", "-", given="RANK=3\n")
    assert code == 1
    assert "LauncherError: RANK is set" in output
    code, output = invoke("--env", "-", "--json", given="RANK=3\n")
    assert code == 1
    assert json.loads(output)["error"] == "LauncherError"


def test_a_file_that_is_not_there():
    """A missing file is a clear error."""
    code, output = invoke("--env", "/nowhere/environ")
    assert code == 1
    assert "/nowhere/environ cannot be read: No such file" in output


def test_the_key_is_not_shown():
    """Whether there is a key is told; the key is not."""
    for arguments in ([], ["--json"]):
        code, output = invoke("--env", "-", *arguments, given="PLUTO_API_KEY=mlps_secret\nPLUTO_RUN_ID=x\n")
        assert code == 0
        assert "secret" not in output
        assert "pluto-api.trainy.ai" in output


def test_nothing_heavy_is_loaded_and_nobody_is_asked():
    """explain imports neither torch nor requests, and opens no socket."""
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('a socket')\n"
        "socket.socket.connect = refuse\n"
        "from pluto_dist.cli import main\n"
        "main(['explain'], standalone_mode=False)\n"
        "assert not {'torch', 'requests', 'pynvml'} & set(sys.modules), sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("run            single-<token>\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_summaries_are_the_commands_own(name):
    """What `pluto-dist --help` says of a command is the first line of the command's own help."""
    command = main.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    assert (command.help or "").partition("\n")[0] == COMMANDS[name]
    assert COMMANDS[name] in CliRunner().invoke(main, ["--help"]).output.replace("\n" + " " * 11, " ")
