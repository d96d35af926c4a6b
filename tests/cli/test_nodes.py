"""``pluto-dist nodes``: its tables, its JSON and its errors."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from inventory.documents import compose_hosts, with_driver, with_gpu
from inventory.inventories import h100_node
from pluto_dist.inventory.records import RankGpu
from pluto_dist.inventory.report.attempt import hardware

USUAL = h100_node("x")


def nodes_command(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from pluto_dist.cli import main; main()", "nodes", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_reads_a_file(tmp_path: Path):
    """Input is system metadata or a run's details, from a file or standard input; output is tables or JSON."""
    document = compose_hosts(
        a=USUAL, odd=with_driver(with_gpu(USUAL, 2, pcie_width=4, pcie_width_max=16), "535.1"), c=USUAL
    )
    file = tmp_path / "metadata.json"
    file.write_text(json.dumps(document))
    shown = nodes_command(str(file))
    assert shown.returncode == 0, shown.stderr
    for word in ("odd", "535.1", "550.54.15", "4 of 16", "gpu.pcie.width", "8 x NVIDIA H100"):
        assert word in shown.stdout, shown.stdout
    printed = json.loads(nodes_command("-", "--json", text=json.dumps({"systemMetadata": document})).stdout)
    assert [each["field"] for each in printed["drift"]] == ["gpu.driver", "gpu.pcie.width"]
    assert printed["drift"][0]["fix"]


def test_the_command_shows_which_rank_is_where():
    """Ranks that alternate between nodes are listed with their GPUs; a GPU that only torch reports has its UUID."""
    cyclic = [
        dataclasses.replace(USUAL, ranks=(RankGpu(first, gpu=7), RankGpu(first + 2, uuid=f"used-by-{first + 2}")))
        for first in (0, 1)
    ]
    document = compose_hosts(a=cyclic[0], b=cyclic[1])
    shown = nodes_command("-", text=json.dumps(document)).stdout
    rows = {tuple(line.split()) for line in shown.splitlines()}
    uuid = USUAL.gpus.devices[7].uuid
    assert {("a", "7", uuid, "0"), ("b", "7", uuid, "1"), ("a", "used-by-2", "2"), ("b", "used-by-3", "3")} <= rows


def test_the_attempts_of_a_run():
    """The newest attempt by default, with its silent nodes and the run's last sign; an earlier one on request."""
    first, second = compose_hosts(a=USUAL, b=USUAL), compose_hosts(a=USUAL, b=with_driver(USUAL, "535.1"))
    silent = [{"node": "1", "host": "b", "since": "2026-01-01T01:00:00Z"}]
    later = {"number": 2, "hardware": hardware(second, first, {}), "silent": silent}
    details = {
        "status": "RUNNING",
        "heartbeatAt": "2026-01-01T02:00:00.000Z",
        "systemMetadata": first,
        "config": {"pluto_dist": {"attempts": {"x": {"number": 1}, "y": later}}},
    }
    text = json.dumps(details)
    shown = nodes_command("-", text=text).stdout
    assert "attempt 2 of 2" in shown
    assert "535.1" in shown
    signs = [line.partition("generic")[2].strip() for line in shown.splitlines() if "-generic" in line]
    assert signs == ["2026-01-01T02:00:00Z", "silent since 2026-01-01T01:00:00Z"]
    printed = json.loads(nodes_command("-", "--json", text=text).stdout)
    assert (printed["attempt"], printed["silent"]) == (2, silent)

    before = nodes_command("-", "--attempt", "1", text=text).stdout
    assert "attempt 1 of 2" in before
    assert "535.1" not in before
    assert "silent" not in before
    assert "the nodes are alike" in before
    wrong = nodes_command("-", "--attempt", "7", text=text)
    assert (wrong.returncode, "no attempt 7 on record; the attempts are: 1, 2" in wrong.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        (("nowhere.json",), None, "neither a number, a display id"),
        (("²",), None, "neither a number, a display id"),
        (("-",), "{", "not JSON"),
        (("-",), "{}", "no `cluster`"),
        (("-",), "[1]", "no `cluster`"),
    ],
)
def test_errors(arguments, text, message):
    """The message names the input and what is wrong with it."""
    done = nodes_command(*arguments, text=text)
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.parametrize("run", ["JOB-20261128093000", "20261128093000123456789", "9" * 5000], ids=len)
def test_an_id_that_no_run_can_have(monkeypatch, run):
    """It is an error at once, without a request: the tracker would answer 500, as in an outage."""
    monkeypatch.setenv("PLUTO_API_KEY", "mlps_k")
    monkeypatch.setenv("PLUTO_URL_API", "http://127.0.0.1:9")
    done = nodes_command(run)
    assert done.returncode == 1
    assert f"{run[:100]!r} is read as" in done.stderr
    assert "cannot be reached" not in done.stderr
