"""``pluto-dist nodes``: its tables, its JSON and its errors."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cli.asked import ask
from cli.asked import printed as printed_by
from cli.test_asking import compare
from inventory.documents import compose_hosts, compose_job, with_driver, with_gpu
from inventory.inventories import h100_node
from pluto_dist.inventory.records import NodeInventory, RankGpu
from pluto_dist.inventory.report.attempt import hardware
from pluto_dist.server import LocalServer
from recorded_runs import Recorder

USUAL = h100_node("x")


def nodes_command(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    done = ask(None, "nodes", *arguments, input=text)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


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
    text = json.dumps(compose_hosts(a=cyclic[0], b=cyclic[1]))
    lines = nodes_command("-", "--all", text=text).stdout.splitlines()
    assert lines[0].split() == ["node", "0", "a", "ranks", "0,2"]
    uuid = USUAL.gpus.devices[7].uuid
    rows = {" ".join(line.split()) for line in lines}
    assert {f"GPU 7 {uuid} rank 0", f"GPU 7 {uuid} rank 1", "GPU ? used-by-2 rank 2", "GPU ? used-by-3 rank 3"} <= rows
    node, *_, gpu = nodes_command("-", "--rank", "3", text=text).stdout.splitlines()
    assert (node.split()[2], gpu.split()) == ("b", ["GPU", "?", "used-by-3", "rank", "3"])
    assert "used-by-2" in nodes_command("-", "--gpu", "used-by-2", text=text).stdout


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
    assert "silent: node 1 b: silent since 2026-01-01T01:00:00Z" in shown
    assert "last sign: 2026-01-01T02:00:00Z is the run's own (its last heartbeat)" in shown
    every = nodes_command("-", "--all", text=text).stdout.splitlines()
    signs = [line.split(": ")[1] for line in every if "last sign" in line]
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


def large_job(count: int) -> dict[str, Any]:
    """A job with a lost GPU under rank 61, a missing node, a slow GPU and an older driver on every 20th node."""
    nodes: dict[int, NodeInventory | None] = {}
    for number in range(count):
        node = h100_node("n", lost=(5,)) if number == 7 else h100_node("n")
        ranks = tuple(RankGpu(8 * number + gpu, gpu=gpu) for gpu in range(8))
        host = f"gpu-node-{number:04d}.rack{number // 16}.cluster.example.com"
        node = dataclasses.replace(node, hostname=host, ranks=ranks)
        if number % 20 == 3:
            node = with_driver(node, "535.104.05")
        nodes[number] = with_gpu(node, 2, pcie_width=4, pcie_width_max=16) if number == 9 else node
    return compose_job({**nodes, count - 3: None})


@pytest.mark.parametrize("count", [64, 1000])
def test_a_large_job_fits_on_a_screen(count):
    """80 columns and some 50 lines; the rank on the lost GPU is named, and no name of a host is cut."""
    shown = nodes_command("-", text=json.dumps(large_job(count))).stdout
    compare(f"nodes-{count}", shown)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 52
    assert "gpu-node-0007.rack0.cluster.example.com GPU 5: GpuIsLost, with rank 61 on it" in shown
    names = re.findall(r"gpu-node-[^\s,]*(?:,[0-9][^\s,]*)*", shown.replace(",\n", ", "))
    assert all("cluster.example.com" in name or name.endswith("[0080-0082") for name in names), names


def test_what_was_asked_for():
    """--bad has every odd node and no other; --host and --json work together; nothing found is an error."""
    text = json.dumps(large_job(64))
    compare("nodes-bad", nodes_command("-", "--bad", text=text).stdout)
    host = "gpu-node-0007.rack0.cluster.example.com"
    printed = json.loads(nodes_command("-", "--host", host, "--json", text=text).stdout)
    assert [each["host"] for each in printed["nodes"]] == [host]
    assert printed["bad_gpus"] == [{"node": 7, "host": host, "gpu": "5", "error": "GpuIsLost", "ranks": [61]}]
    nobody = nodes_command("-", "--host", "x", text=text)
    assert (nobody.returncode, nobody.stderr) == (1, "no such node\n")
    alike = nodes_command("-", "--bad", text=json.dumps(compose_hosts(a=USUAL)))
    assert (alike.returncode, alike.stdout) == (0, "")


def test_a_run_of_the_tracker():
    """A run is found as by the other commands; what `show --json` prints can be read, too."""
    with LocalServer() as server:
        made = Recorder(server).create(systemMetadata=json.dumps(compose_hosts(a=USUAL)))
        assert "1 node: 8 x NVIDIA H100" in printed_by(server, "nodes", made["url"])
        shown = printed_by(server, "show", made["displayId"], "--json")
    assert "1 node: 8 x NVIDIA H100" in nodes_command("-", text=shown).stdout


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        (("nowhere.json",), None, "nowhere.json cannot be read: No such file"),
        (("-",), "{", "not JSON"),
        (("-",), "{}", "no `cluster`"),
        (("-",), "[1]", "no `cluster`"),
        (("-",), '{"cluster": 3}', "no `cluster`"),
    ],
)
def test_errors(arguments, text, message):
    """The message names the input and what is wrong with it."""
    done = nodes_command(*arguments, text=text)
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.parametrize("junk", [[1], "x", 3, None, {"nodes": 3}])
def test_odd_documents(junk):
    """Parts of another shape are left out; no traceback."""
    document = {"cluster": {"nodes": 1}, "nodes": [{"host": "a", "bad": junk, "gpus": junk, "ranks": junk}, junk]}
    for options in ([], ["--all"], ["--bad"], ["--rank", "1"], ["--json"]):
        done = nodes_command("-", *options, text=json.dumps(document | {"node_classes": junk}))
        assert "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("run", ["JOB-20261128093000", "20261128093000123456789", "9" * 5000], ids=len)
def test_an_id_that_no_run_can_have(monkeypatch, run):
    """It is an error at once, without a request: the tracker would answer 500, as in an outage."""
    monkeypatch.setenv("PLUTO_API_KEY", "mlps_k")
    monkeypatch.setenv("PLUTO_URL_API", "http://127.0.0.1:9")
    done = nodes_command(run)
    assert done.returncode == 1
    assert f"{run[:100]!r} is read as" in done.stderr
    assert "cannot be reached" not in done.stderr


def test_names_are_readable():
    """A host may have any name; a terminal obeys none of it."""
    document = json.dumps(compose_hosts(a=USUAL, b=USUAL)).replace('"b"', '"b\\u001b[2J\\u009b"')
    shown = nodes_command("-", text=document)
    assert "b\\x1b[2J\\x9b" in shown.stdout and "\x1b" not in shown.stdout and "\x9b" not in shown.stdout
