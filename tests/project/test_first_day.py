"""A first day, typed: from `pip install` of the wheel in an empty environment to a cancelled job and an export."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from project.test_readme import ROOT

SECONDS = 1500.0  # of one command, on a busy machine; most of it is the installation of torch
TRAIN = "import os\nprint(f\"rank {os.environ['RANK']} trained\")\n"  # in one piece: two ranks print at once
LONG = "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(300)\n"


class Terminal:
    """A shell in an empty folder, whose commands and output are kept as a transcript."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.transcript: list[str] = []
        self._started: list[subprocess.Popen[str]] = []
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PLUTO_", "MLOP_", "PYTHON"))}
        self._environ = {
            **kept,
            "HOME": str(folder),
            "XDG_STATE_HOME": str(folder / "state"),
            "PATH": f"{folder}/env/bin:{os.environ['PATH']}",
            "PIP_CONSTRAINT": str(ROOT / "scripts" / "constraints.txt"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_COMPILE": "1",  # of torch's 2,000 modules the commands load some
            "OMP_NUM_THREADS": "1",
            "PLUTO_DIST_TIMEOUT": "120",  # of a busy machine
            "RES_OPTIONS": "timeout:1 attempts:1",
        }

    def type(self, command: str, code: int | None = 0) -> str:
        """Type ``command``, which must end with ``code`` unless that is ``None``; what it prints."""
        return self.wait(self.begin(command), code)

    def begin(self, command: str) -> subprocess.Popen[str]:
        """Type ``command &``."""
        self.transcript.append(f"$ {command}")
        process = subprocess.Popen(
            ["sh", "-c", f"if [ -f pluto.env ]; then . ./pluto.env; fi; exec {command}"],
            cwd=self.folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def wait(self, process: subprocess.Popen[str], code: int | None) -> str:
        output, _ = process.communicate(timeout=SECONDS)
        self.transcript.append(output.rstrip())
        assert code in (process.returncode, None), "\n".join(self.transcript)
        return output

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate(timeout=30)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """Beside the wheel, with an empty environment."""
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path / "dist"), "."]
    subprocess.run(wheel, cwd=ROOT, check=True, timeout=SECONDS)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True, timeout=SECONDS)
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "long.py").write_text(LONG)
    opened = Terminal(tmp_path)
    yield opened
    opened.close()


def wait_for(path: Path) -> None:
    until = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.2)


@pytest.mark.exhaustive
@pytest.mark.multiprocess
@pytest.mark.timeout(3600)
def test_a_first_day(terminal: Terminal):
    """Each command says what the next one is or does what a newcomer expects; the transcript is printed."""
    terminal.type("pip install --quiet $(ls dist/*.whl)[server]")
    assert re.fullmatch(r"pluto-dist, version \S+\n", terminal.type("pluto-dist -V"))
    assert "Did you mean 'doctor'?" in terminal.type("pluto-dist docter", 2)
    assert "ok" in terminal.type("pluto-dist doctor --offline", None)
    assert "`pluto-dist server` is a tracker of your own" in terminal.type("pluto-dist runs", 1)

    server = terminal.begin("pluto-dist server --port 0 --env-file pluto.env")
    wait_for(terminal.folder / "pluto.env")
    assert "This process will be in a new run" in terminal.type("pluto-dist explain")
    assert "no_such.py does not exist" in terminal.type("pluto-dist run --nproc-per-node=2 no_such.py", 1)
    trained = terminal.type("pluto-dist run --project digits --tag first --nproc-per-node=2 train.py")
    assert "rank 1 trained" in trained
    assert "pluto_dist: run DIG-1 COMPLETED (http://127.0.0.1:" in trained

    job = terminal.begin("pluto-dist run --project digits --nproc-per-node=2 long.py")
    wait_for(terminal.folder / "begun")
    listed = terminal.type("pluto-dist runs")
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [["DIG-2", "RUNNING"], ["DIG-1", "COMPLETED"]]
    assert "DIG-2 is CANCELLED" in terminal.type("pluto-dist cancel DIG-2 --yes")
    assert "was cancelled in the tracker" in terminal.wait(job, 77)

    shown = terminal.type("pluto-dist show DIG-1")
    assert "COMPLETED" in shown
    assert "first" in shown
    assert "kinds of node" in terminal.type("pluto-dist nodes DIG-1")
    terminal.type("pluto-dist logs DIG-1")
    assert terminal.type("pluto-dist open DIG-1 --print").startswith("http://127.0.0.1:")
    assert "2 runs written to digits-export" in terminal.type("pluto-dist export digits --to digits-export")
    assert (terminal.folder / "digits-export" / "runs.csv").read_text().count("\n") == 3
    assert "digits" in terminal.type("pluto-dist server status")
    assert "DIG-2 is deleted" in terminal.type("pluto-dist rm DIG-2 --yes")
    sent = terminal.type("pluto-dist import digits-export --project again")
    assert "2 sent" in sent
    server.send_signal(signal.SIGTERM)
    assert "next: `. ./pluto.env`" in terminal.wait(server, 0)
    print("\n".join(terminal.transcript))
