"""What a restart changed is seen, and a node that dies while the job goes on, in the record and on the page."""

from __future__ import annotations

import calendar
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from cluster import Cluster
from offline import sync
from running import Tracker
from two_hosts import Host, ask

from fakenvml import build

pytestmark = [pytest.mark.multiprocess, pytest.mark.timeout(300)]

NODES = [sys.executable, "-c", "from pluto_dist.cli import main; main()", "nodes"]
LOST = "dev.3.nvmlDeviceGetHandleByIndex_v2.rc=15"
OTHER_HARDWARE = ("driver=535.104.05", LOST)


def nodes(tracker: Tracker, run: dict[str, Any], *options: str) -> str:
    """What ``pluto-dist nodes`` shows of a run."""
    environ = {**os.environ, **tracker.environ()}
    command = [*NODES, str(run["id"]), *options]
    shown = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=True)
    return shown.stdout


def page(run: dict[str, Any], attempt: str = "") -> str:
    answer = requests.get(run["url"] + attempt, timeout=20)
    answer.raise_for_status()
    return answer.text


def check_both_attempts(tracker: Tracker, run: dict[str, Any]) -> None:
    """The first attempt was on healthy GPUs, the second has another driver and a lost GPU."""
    shown, before = nodes(tracker, run), nodes(tracker, run, "--attempt", "1")
    print(shown)
    for text in (shown, page(run)):
        assert "GpuIsLost" in text
        assert "535.104.05" in text
    assert "attempt 2 of 2" in shown
    for text in (before, page(run, "?attempt=1").partition('id="hardware"')[2].partition("</section>")[0]):
        assert "GpuIsLost" not in text
        assert "550.54.15" in text
    assert "attempt 1 of 2" in before


RESTARTED = """
import os, shutil, pluto_dist
from reporting import report
run = pluto_dist.init(project="attempts")
report(run)
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    shutil.copy(os.environ["OTHER"], os.environ["FAKE_NVML"])
    os._exit(1)
run.finish()
"""


@pytest.mark.exhaustive
def test_a_restart_on_other_hardware(tracker, torchrun, fake_library: Path, tmp_path: Path):
    """The driver and a GPU are others after it: command, page and warning show that, and the first attempt on request.

    The tracker keeps the systemMetadata of the first one.
    """
    profile = build.write_profile(tmp_path / "node.profile", "h100")
    other = build.write_profile(tmp_path / "other.profile", "h100", *OTHER_HARDWARE)
    driver = build.environ(fake_library, profile, tmp_path / "calls.log")
    environ = tracker.environ() | driver | {"OTHER": str(other)}
    job = torchrun(RESTARTED, "--max-restarts=1", environ=environ, nproc=1)
    assert job.returncode == 0, job.output

    (run,) = tracker.runs("attempts")
    assert run["systemMetadata"]["cluster"]["driver"] == "550.54.15"
    assert "gpu.lost" in job.output.partition("this node is not as it should be")[2]
    check_both_attempts(tracker, run)


LAUNCH = """
import pluto_dist
pluto_dist.init(project="attempts", run_id="mine").finish()
"""


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_another_launch_on_other_hardware(tracker, torchrun, fake_library: Path, tmp_path: Path, mode: str):
    """It goes on with a run of the same id, of whose attempts it does not know; so do requests that wait on disk."""
    driver = build.environ(fake_library, tmp_path / "node.profile", tmp_path / "calls.log")
    environ = tracker.environ() | driver | {"PLUTO_DIR": str(tmp_path)}
    for lines, more in (((), {}), (OTHER_HARDWARE, {"PLUTO_DIST_MODE": mode})):
        build.write_profile(tmp_path / "node.profile", "h100", *lines)
        job = torchrun.finish(torchrun.start_command([sys.executable, torchrun.write(LAUNCH)], environ | more))
        assert job.returncode == 0, job.output
    if mode == "offline":
        assert sync({**os.environ, **environ}).returncode == 0

    (run,) = tracker.runs("attempts")
    check_both_attempts(tracker, run)
    records = sorted(run["config"]["pluto_dist"]["attempts"].values(), key=lambda record: record["number"])
    assert ["hardware" in record for record in records] == [False, True]


THREE_NODES = """
import os, signal, time
os.environ.update(LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", GROUP_RANK=os.environ["RANK"], GROUP_WORLD_SIZE="3")
import pluto_dist
from pathlib import Path
from reporting import report
folder = Path(os.environ["REPORTS"])
run = pluto_dist.init(project="attempts")
report(run, pid=os.getpid())
while not (folder / "done").exists():
    time.sleep(0.1)
"""


def wait_until(condition, seconds: float = 120) -> Any:
    """The first true value of ``condition``."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.2)
    return found


def record_of(run: dict[str, Any]) -> dict[str, Any]:
    (record,) = run["config"]["pluto_dist"]["attempts"].values()
    return record


@pytest.mark.exhaustive
def test_a_stand_in_stores_no_node_again(tracker, torchrun):
    """The owner of three nodes is killed: another rank names its node as silent, and writes nothing else."""
    crowd = [sys.executable, str(Path(__file__).parent / "crowd.py"), "3", THREE_NODES]
    process = torchrun.start_command(crowd, tracker.environ() | {"PLUTO_DIST_HEARTBEAT": "0.5"})
    folder = torchrun.folder / "reports0"
    wait_until(lambda: len(list(folder.glob("*.json"))) == 3)
    before = record_of(tracker.runs("attempts")[0])
    (owner,) = (r["pid"] for file in folder.glob("*.json") if (r := json.loads(file.read_text()))["rank"] == 0)
    os.kill(owner, 9)
    silent = wait_until(lambda: record_of(tracker.runs("attempts")[0]).get("silent"))
    (folder / "done").touch()
    torchrun.finish(process)

    (run,) = tracker.runs("attempts")
    assert [entry["node"] for entry in silent] == ["0"]
    after = record_of(run)
    assert {name: value for name, value in after.items() if name != "silent"} == before
    assert after["silent"] == silent
    assert sum('"POST /api/runs/config/update ' in line for line in tracker.log()) == 1


FETCH = [
    sys.executable,
    "-c",
    "import os, requests, sys\n"
    "print(requests.get(sys.argv[1], auth=('me', os.environ['PLUTO_API_KEY']), timeout=20).text)",
]
TWO_NODES = """
import os, socket, time
from pathlib import Path
import pluto_dist
from reporting import report
folder = Path(os.environ["REPORTS"])
run = pluto_dist.init(project="attempts", timeout=60)
report(run, host=socket.gethostname())
while not (folder / "done").exists():
    time.sleep(0.1)
"""


def test_a_node_is_killed_and_rank_0_goes_on(hosts: tuple[Host, Host], tracker_on_host: dict[str, str], tmp_path: Path):
    """Its agent and its workers are gone at once: command and page name it, and since when; the other one lives on."""
    environ = tracker_on_host | {"PLUTO_DIST_HEARTBEAT": "1"}
    cluster = Cluster("silent", hosts, tmp_path, environ, TWO_NODES)
    for host in (0, 1):
        place = ("--master-addr=node-a", "--master-port=29500", f"--node-rank={host}", "--nnodes=2")
        cluster.start(host, *place)
    run_id = cluster.wait(lambda reports: len(reports) == 4)[0]["id"]

    def details() -> dict[str, Any]:
        return ask(hosts[0], environ, f"/api/runs/details/{run_id}")

    time.sleep(3)
    assert "silent" not in record_of(details())
    killed = time.time()
    cluster.lose(cluster.agents[1])
    (silent,) = wait_until(lambda: record_of(details()).get("silent"))
    assert (silent["node"], silent["host"]) == ("1", "node-b")
    since = calendar.timegm(time.strptime(silent["since"], "%Y-%m-%dT%H:%M:%SZ"))
    assert abs(since - killed) < 30
    assert "no sign of life from node-b" in cluster.logs()

    said = f"silent since {silent['since']}"
    shown = on_host(hosts[0], environ, [*NODES, str(run_id)], tmp_path)
    print(shown)
    assert [line for line in shown.splitlines() if "silent:" in line] == [f"  silent: node 1 node-b: {said}"]
    assert f"node-b: {said}" in on_host(hosts[0], environ, [*FETCH, details()["url"]], tmp_path)
    assert details()["status"] == "RUNNING"
    beats = details()["heartbeatAt"]
    wait_until(lambda: details()["heartbeatAt"] != beats)
    cluster.lose(cluster.agents[0])


def on_host(host: Host, environ: dict[str, str], command: list[str], folder: Path) -> str:
    """The output of a command on a host."""
    process = host.start(command, {**os.environ, **environ}, folder)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output
