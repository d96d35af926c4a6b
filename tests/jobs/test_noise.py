"""What 64 ranks print: a line for the job, not a line for each of them."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from running import NO_RESOLVER

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers]

INIT = "import pluto_dist\nrun = pluto_dist.init(project='noise', timeout=30)\n"
TORCHS_OWN = re.compile(r"\[W.* \[c10d\] The hostname of the client socket cannot be retrieved")
CROWD = str(Path(__file__).with_name("crowd.py"))


def lines_of(source: str, environ: dict[str, str], ranks: int = 64) -> tuple[int, list[str]]:
    """Exit code, and what all ranks printed together."""
    kept = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **NO_RESOLVER}
    done = subprocess.run(
        [sys.executable, CROWD, str(ranks), source],
        env=kept | environ,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    lines = (done.stdout + done.stderr).splitlines()
    return done.returncode, [line for line in lines if not TORCHS_OWN.match(line)]


def test_when_all_is_well(tracker):
    """One line: the run and its address. All 64 ranks have called create-run."""
    code, lines = lines_of(INIT, tracker.environ())
    assert code == 0, lines[-40:]
    assert len(lines) == 1, lines
    assert lines[0].startswith("pluto_dist: run NOI-1 (64 ranks) at http")
    assert len(tracker.creates()) == 64


@pytest.mark.exhaustive
def test_when_the_tracker_is_down():
    """One line: all go on offline."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        code, lines = lines_of(INIT, {"PLUTO_API_KEY": "k", "PLUTO_URL_API": url})
    assert code == 0, lines[-40:]
    assert [line for line in lines if "going on offline" in line]
    assert len([line for line in lines if line.startswith("pluto_dist: ")]) == 1, lines


def test_when_there_is_no_key():
    """One line: how to have a tracker."""
    code, lines = lines_of(INIT, {})
    assert code == 0, lines[-40:]
    assert len(lines) == 1, lines
    assert "PLUTO_API_KEY" in lines[0]


@pytest.mark.exhaustive
def test_when_the_key_is_wrong(tracker):
    """Nothing of ours beside Python's own tracebacks, and one line where the error is only to warn."""
    wrong = tracker.environ() | {"PLUTO_API_KEY": "mlps_wrong"}
    code, lines = lines_of(INIT, wrong)
    assert code == 1
    assert not [line for line in lines if line.startswith("pluto_dist: ")]
    # Counted in the whole: tracebacks are written in pieces, and the ranks' run into each other.
    assert "\n".join(lines).count("pluto_dist.errors.AuthenticationError: ") == 64

    code, lines = lines_of(INIT, wrong | {"PLUTO_DIST_ON_ERROR": "warn"})
    assert code == 0, lines[-40:]
    assert len([line for line in lines if line.startswith("pluto_dist: ")]) == 1, lines
