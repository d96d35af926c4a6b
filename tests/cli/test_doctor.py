"""``pluto-dist doctor``: text, JSON, and a table on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner

import pluto_dist
from doctor.states import DISK, GIB, HOSTNAME, LOOPBACK, MEMORY, NETWORK, REFUSED, faulty
from pluto_dist.cli import main
from pluto_dist.cli.doctor import lines
from pluto_dist.doctor import CHECK_GROUPS, Machine, Report, examine
from pluto_dist.doctor.explain import explain
from pluto_dist.doctor.finding import CheckGroup
from pluto_dist.errors import AuthenticationError

README = Path(pluto_dist.__file__).parent / "doctor" / "README.md"

KEY = "mlps_hidden_key"


def invoke(*arguments: str, **environ: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["doctor", *arguments], env={"PLUTO_API_KEY": KEY, **environ})
    return done.exit_code, done.output


def test_the_command():
    """Text and JSON have the same content; the exit code is 1 if there is a problem, else 0."""
    code, text = invoke("--offline")
    assert code == 0 and "--offline was given" in text and KEY not in text
    code, text = invoke("--offline", "--json", RANK="3")
    report = json.loads(text)
    assert code == 1 and report["verdict"] == "problem"
    names = [check["name"] for check in report["checks"]]
    assert names == [name for group in CHECK_GROUPS for name, _ in group.checks]
    assert report["checks"][0]["saw"].startswith("init() would raise LauncherError: RANK is set")


def test_a_table_on_a_terminal():
    """On a terminal the output is a coloured table with the same texts."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, "PLUTO_API_KEY": KEY, "COLUMNS": "160", "TERM": "xterm"}
    code = "from pluto_dist.cli import main; main(['doctor', '--offline'])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, env=environ) as running:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # on Linux, the other end is closed
            while chunk := os.read(ours, 4096):
                shown += chunk
        assert running.wait(60) == 0
    os.close(ours)
    assert b"disk for an outage" in shown and b"\x1b[32mok" in shown and KEY.encode() not in shown


def test_the_readme_shows_a_faulty_machine():
    """The README's example is the output for this machine; PLUTO_DIST_WRITE_SNAPSHOTS=1 writes it there."""
    facts = [
        explain({"TORCHELASTIC_RUN_ID": "123", "RANK": "0", "WORLD_SIZE": "16"}),
        replace(
            REFUSED,
            failure=AuthenticationError(
                "https://pluto.example.com refused the API key (HTTP 401: "
                "Unauthorized).\nSet PLUTO_API_KEY to a key of that server; PLUTO_URL_API says which server is asked."
            ),
        ),
        replace(NETWORK, nccl="ib"),
        LOOPBACK,
        HOSTNAME,
        replace(faulty(pcie_width=8, nvlinks_up=16, remap_pending=True), visible="0,1,2"),
        replace(MEMORY, shm=64 << 20, shm_free=64 << 20, limit=64 * GIB, used=3 * GIB),
        replace(DISK, filesystem="nfs4"),
    ]
    groups = [
        CheckGroup(lambda _, facts=each: facts, group.checks) for each, group in zip(facts, CHECK_GROUPS, strict=True)
    ]
    report = Report(examine(Machine({}), groups).findings, 0.4)
    block = "```console\n$ pluto-dist doctor\n" + "\n".join(lines(report)) + "\n```\n"
    before, found, after = re.split(
        r"(?<=<!-- doctor -->\n)(.*?)(?=<!-- end of doctor -->)", README.read_text(), flags=re.DOTALL
    )
    if os.environ.get("PLUTO_DIST_WRITE_SNAPSHOTS"):
        README.write_text(before + block + after)
        found = block
    assert found == block
