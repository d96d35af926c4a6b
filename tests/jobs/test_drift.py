"""Two hosts with different hardware in one job: what the run says, what the leader warns of, what the command shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cluster import Cluster
from two_hosts import Host, ask

from fakenvml import build

pytestmark = [pytest.mark.multiprocess, pytest.mark.timeout(200)]

WORKER = """
import pluto_dist
from reporting import report
run = pluto_dist.init(project="drift")
report(run, leader=run.is_leader)
run.finish()
"""


def test_two_hosts_that_differ(
    hosts: tuple[Host, Host], tracker_on_host: dict[str, str], fake_library: Path, tmp_path: Path
):
    """Another driver, a GPU at x4 and a lost one: in the metadata, in one warning, and in `pluto-dist nodes`."""
    profiles = {
        "node-a": ("h100",),
        "node-b": ("h100", "driver=535.104.05", "dev.2.pcie.width=4", "dev.5.nvmlDeviceGetHandleByIndex_v2.rc=15"),
    }
    for host, (base, *lines) in profiles.items():
        (tmp_path / host).mkdir()
        build.write_profile(tmp_path / host / "node.profile", base, *lines)
    variables = {**tracker_on_host, "LD_LIBRARY_PATH": str(fake_library)}
    launcher = (
        "import os, socket, sys\n"
        f"os.environ['FAKE_NVML'] = {str(tmp_path)!r} + '/' + socket.gethostname() + '/node.profile'\n"
        "from torch.distributed.run import main\n"
        "main()\n"
    )
    cluster = Cluster("drift", hosts, tmp_path, variables, WORKER, agent=(sys.executable, "-c", launcher))
    for host in (0, 1):
        cluster.start(host, "--nnodes=2", f"--node-rank={host}", "--master-addr=node-a", "--master-port=29500")
    assert cluster.done() == [0, 0], cluster.logs()

    (listed,) = ask(hosts[0], tracker_on_host, "/api/runs/list?projectName=drift")["runs"]
    metadata = ask(hosts[0], tracker_on_host, f"/api/runs/details/{listed['id']}")["systemMetadata"]
    assert metadata["cluster"]["gpus_bad"] == 1
    assert [(node["rank"], node["gpu_of_rank"]) for node in metadata["nodes"]] == [(0, [0, 1]), (2, [0, 1])]
    assert metadata["cluster"]["drift"] == len(metadata["drift"])
    drift = {each["field"]: each["nodes"] for each in metadata["drift"]}
    assert drift["gpu.lost"] == {"node-b GPU 5": "GpuIsLost"}
    assert drift["gpu.pcie.width"] == {"node-b GPU 2": "4 of 16"}
    assert drift["gpu.driver"] == {"node-a": "550.54.15", "node-b": "535.104.05"}

    logs = cluster.logs()
    assert logs.count("the nodes of this job are not alike") == 1
    warning = logs[logs.index("pluto_dist: the nodes of this job") :].splitlines()[:5]
    assert warning[1].strip().startswith("gpu.lost: node-b GPU 5 GpuIsLost")
    print("\n".join(warning))
    command = [sys.executable, "-c", "from pluto_dist.cli import main; main()", "nodes", str(listed["id"])]
    shown = hosts[0].start(command, {**os.environ, **tracker_on_host}, tmp_path)
    output, _ = shown.communicate(timeout=60)
    assert shown.returncode == 0, output
    for word in ("node-a", "node-b", "GpuIsLost", "4 of 16", "535.104.05"):
        assert word in output
    print(output)


@pytest.mark.exhaustive
def test_the_command_asks_the_tracker(tracker, torchrun):
    """By number and by display id; a run that is not there is one clear line."""
    job = torchrun("import pluto_dist\nfrom reporting import report\nreport(pluto_dist.init(project='drift'))\n",
                   environ=tracker.environ(), nproc=1)  # fmt: skip
    (report,) = job.reports
    for named in (str(report["id"]), report["display_id"], "999"):
        command = [
            sys.executable,
            "-c",
            "from pluto_dist.cli import main; main()",
            "nodes",
            named,
            "--project",
            "drift",
        ]
        shown = subprocess.run(
            command, env={**os.environ, **tracker.environ()}, capture_output=True, text=True, timeout=60, check=False
        )
        if named == "999":
            assert (shown.returncode, "has no run with the number 999" in shown.stderr) == (1, True)
        else:
            assert "nodes 1" in shown.stdout
