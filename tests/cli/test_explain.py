"""``pluto-dist explain``: input files, errors, secrets and imports."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from environments.typical import TORCHRUN
from pluto_dist.cli import main
from pluto_dist.doctor.explain import explain


def invoke(*arguments: str, given: str | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["explain", *arguments], input=given)
    return done.exit_code, done.output


@pytest.mark.parametrize("form", ["env", "export", "proc"])
def test_an_environment_from_a_file(tmp_path, form):
    """The output of env, lines of exports, and /proc/PID/environ give the same result."""
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
    """The error of init() is printed with its message, with exit code 1; in JSON too."""
    code, output = invoke("--env", "-", given="RANK=3\n")
    assert code == 1
    assert "LauncherError: RANK is set" in output
    code, output = invoke("--env", "-", "--json", given="RANK=3\n")
    assert code == 1
    assert json.loads(output)["error"] == "LauncherError"


def test_an_id_that_no_run_can_have():
    """The variable is named, before any rank is started."""
    code, output = invoke("--env", "-", given="PLUTO_RUN_ID=JOB-20261128093000\n")
    assert code == 1
    assert "ConfigurationError: PLUTO_RUN_ID is read as a display id" in output


@pytest.mark.parametrize(
    "text", ["", "\n\n", "# nothing\n", "this is = no environment\n", '{"RANK": "0"}', "\x00\x01=\x02"]
)
def test_a_file_that_is_no_environment(tmp_path, text):
    """It is an error that says what is one: an empty file is not an environment without variables."""
    (tmp_path / "notes").write_text(text)
    for source, given in ((str(tmp_path / "notes"), None), ("-", text)):
        code, output = invoke("--env", source, given=given)
        assert code == 1
        assert "is no environment: it has no line NAME=value" in output
        assert "export NAME=value" in output


def test_a_quote_that_is_not_closed():
    """The other lines count; no traceback."""
    code, output = invoke("--env", "-", "--json", given="export A='open\nexport PLUTO_RUN_ID=x\n")
    assert (code, json.loads(output)["external_id"]) == (0, "x")


def test_a_missing_file():
    """The error names the file and the reason."""
    code, output = invoke("--env", "/nowhere/environ")
    assert code == 1
    assert "/nowhere/environ cannot be read: No such file" in output


def test_the_key_is_not_shown():
    """The output shows that there is a key, but not the key."""
    for arguments in ([], ["--json"]):
        code, output = invoke("--env", "-", *arguments, given="PLUTO_API_KEY=mlps_secret\nPLUTO_RUN_ID=x\n")
        assert code == 0
        assert "secret" not in output
        assert "pluto-api.trainy.ai" in output


def test_nothing_heavy_is_imported():
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
    assert done.stdout.startswith("This process will be in a new run; to continue it at the next start, set one PLUTO")
    assert "\n\nrun            single-<token>\n" in done.stdout
