"""Start the embedded tracker, run a real torchrun job against it, and print what the tracker recorded.

    python examples/demo.py [RANKS]

What `scripts/demo` runs. The tracker and its file are gone when it ends: at a terminal, when Enter is pressed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests
from rich.console import Console
from rich.table import Table

from pluto_dist.server import LocalServer

EXAMPLE = Path(__file__).with_name("ddp_digits.py")


def main() -> None:
    ranks = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)
    with LocalServer() as server:
        torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", str(EXAMPLE)]
        console.print(f"[bold]$ torchrun --nproc-per-node={ranks} examples/{EXAMPLE.name}[/bold]")
        environ = {**os.environ, **server.environ(), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        subprocess.run(torchrun, env=environ, check=True, timeout=600)
        show(console, newest_run(server))
        if sys.stdin.isatty() and sys.stdout.isatty():
            console.input(f"\nThe page stays up until you press Enter: {server.url}\n")


def newest_run(server: LocalServer) -> dict[str, Any]:
    """The newest run of project "digits", as the tracker's details endpoint tells it."""
    with requests.Session() as session:
        session.trust_env = False  # no proxy stands before this machine
        session.headers["Authorization"] = f"Bearer {server.api_key}"
        runs = session.get(f"{server.url}/api/runs/list", params={"projectName": "digits"}, timeout=10).json()["runs"]
        return session.get(f"{server.url}/api/runs/details/{runs[0]['id']}", timeout=10).json()


def show(console: Console, run: dict[str, Any]) -> None:
    metadata, config = run["systemMetadata"], dict(run["config"])
    job = config.pop("pluto_dist")
    console.print(f"\n[bold]{run['displayId']}[/bold] {run['name']}: {run['status']}  {run['url']}")
    console.print(f"external id    {run['externalId']} ({job['run_id_source']})")
    console.print(f"test accuracy  {config.pop('test_accuracy'):.1%}")
    console.print(f"config         {', '.join(f'{k}={v}' for k, v in config.items())}")
    console.print(f"status         {' -> '.join(change['to'] for change in run['statusHistory'])}\n")

    attaches = Table("at", "who", "answer", "sent", title="create-run calls", title_justify="left")
    for call in run["attaches"]:
        attaches.add_row(call["at"][11:23], call["userAgent"], call["outcome"], ", ".join(call["fields"]))
    console.print(attaches)

    nodes = Table("node", "host", "CPU", "memory", "GPUs", "software", title="nodes", title_justify="left")
    for node in metadata["nodes"]:
        kind = metadata["node_classes"][node["class"]]
        gpu = f"{kind['gpu']['count']} x {kind['gpu']['name']}" if kind["gpu"]["count"] else "none"
        cpu = f"{kind['cpu'].get('logical')} x {kind['cpu'].get('model')}"
        software = f"Python {kind.get('python')}, torch {kind.get('torch')}, {kind.get('os')}"
        nodes.add_row(str(node["node"]), node["host"], cpu, f"{kind['memory']['total'] / 2**30:.0f} GiB", gpu, software)
    console.print(nodes)


if __name__ == "__main__":
    main()
