"""Two nodes with two ranks each: still one run, and the hardware of both."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from running import whole
from two_hosts import Host, ask

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers]

SCRIPT = """
import os, signal, socket, time
from pathlib import Path
import pluto_dist
from reporting import report
rank, count = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
reports = Path(os.environ["REPORTS"])
again = (reports / "killed").exists()
run = pluto_dist.init(project="hosts")
report(run, again=again, host=socket.gethostname(), count=count)
if os.environ["KILL"] == str(rank) and not again:
    while len(list(reports.glob("*.json"))) < 4:
        time.sleep(0.02)
    (reports / "killed").touch()
    os.kill(os.getpid(), signal.SIGKILL)
if os.environ["KILL"] and not again:
    time.sleep(60)
"""


def launch(hosts: tuple[Host, Host], folder: Path, environ: dict[str, str], *options: str) -> tuple[list[int], str]:
    """The same torchrun command on both hosts; exit codes and all output."""
    (folder / "script.py").write_text(SCRIPT)
    (folder / "reports").mkdir()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=2", *options]
    torchrun += ["--rdzv-backend=c10d", "--rdzv-endpoint=node-a:29400", "--rdzv-id=none", str(folder / "script.py")]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PLUTO_", "PET_"))}
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent), "REPORTS": str(folder / "reports")}
    started = [host.start(torchrun, kept | own | environ, folder) for host in hosts]
    until = time.monotonic() + 120
    outputs = []
    for process in started:
        try:
            outputs.append(process.communicate(timeout=max(1, until - time.monotonic()))[0])
        except subprocess.TimeoutExpired:
            process.kill()
            outputs.append(process.communicate(timeout=60)[0])
    return [process.returncode for process in started], "\n".join(outputs)


@pytest.mark.exhaustive
@pytest.mark.parametrize("victim", ["", "0", "3"])
def test_both_hosts_are_in_one_run(hosts, tracker_on_host, tmp_path, victim):
    """One run on both hosts with both in its metadata; whichever rank is killed, the next attempt is in it too."""
    environ = {**tracker_on_host, "KILL": victim}
    codes, output = launch(hosts, tmp_path, environ, "--max-restarts=1")

    assert codes == [0, 0], output
    (listed,) = ask(hosts[0], environ, "/api/runs/list?projectName=hosts")["runs"]
    run = whole(tmp_path / "tracker.db", ask(hosts[0], environ, f"/api/runs/details/{listed['id']}"))
    reports = [requests.models.complexjson.loads(f.read_text()) for f in (tmp_path / "reports").glob("*.json")]
    assert {report["id"] for report in reports} == {run["id"]}
    assert sorted(report["rank"] for report in reports if not report["again"]) == [0, 1, 2, 3]
    assert {report["resumed"] for report in reports if not report["again"]} == {False}
    assert sorted(report["rank"] for report in reports if report["again"]) == ([0, 1, 2, 3] if victim else [])
    assert {report["resumed"] for report in reports if report["again"]} == ({True} if victim else set())
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "COMPLETED"]
    assert sorted(run["systemMetadata"]["hosts"]) == ["node-a", "node-b"]
    assert len(run["attaches"]) in ((7, 8) if victim else (4,))  # the killed rank may not have had its turn
