"""What the hardware inventory costs: the probes on a node with 8 GPUs (a fake driver), and ``init()`` with and without.

A fresh process for each figure, in turns. The fake driver proves nothing about a real one's time; what is measured is
this package's side, and the imports that it brings.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import Report, console, load, middle, ms
from rich.table import Table

from pluto_dist.server import LocalServer

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from fakenvml import build

TARGET_MS = 25.0
PROBES = """
import json, sys, time
at = time.perf_counter()
import pynvml, psutil
imported = time.perf_counter() - at
from pluto_dist.inventory.gpu import nvidia
from pluto_dist.inventory.probes.collect import collect
took = []
for _ in range(6):
    at = time.perf_counter()
    nvidia.probe()
    took.append(time.perf_counter() - at)
at = time.perf_counter()
collect()
whole = time.perf_counter() - at
print(json.dumps({"imports": imported, "first": took[0], "again": sorted(took[1:])[2], "whole": whole}))
"""
INIT = """
import json, time
import torch.distributed, requests, pynvml, psutil, pluto_dist, pluto_dist.api
at = time.perf_counter()
run = pluto_dist.init(project="bench")
print(json.dumps(time.perf_counter() - at))
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--turns", type=int, default=9, metavar="N", help="processes for each figure (default 9)")


def run(report: Report, turns: int = 9) -> None:
    with tempfile.TemporaryDirectory(prefix="pluto-dist-bench-") as name, LocalServer() as server:
        folder = Path(name)
        library, profile = build.compile_fake(folder / "lib"), build.write_profile(folder / "node", "h100")
        driver = {"LD_LIBRARY_PATH": str(library), "FAKE_NVML": str(profile)}
        environ = {**os.environ, **server.environ(), **driver, "XDG_STATE_HOME": name}
        probes: list[dict[str, float]] = []
        inits: dict[str, list[float]] = {"with": [], "without": []}
        for _ in range(turns):
            probes.append(_told(PROBES, environ, folder))
            inits["with"].append(_told(INIT, environ, folder))
            inits["without"].append(_told(INIT, environ | {"PLUTO_DIST_METADATA": "0"}, folder))
    table = Table("figure", "ms", title=f"medians of {turns} processes, load {load()}", title_justify="left")
    names = {
        "imports": "import pynvml and psutil",
        "first": "8 GPUs, the first time",
        "again": "8 GPUs, again",
        "whole": "the whole node, after that",
    }
    for key, words in names.items():
        table.add_row(words, ms(middle(each[key] for each in probes)))
    for key, values in inits.items():
        table.add_row(f"init() {key} metadata", ms(middle(values)))
    ratio = middle(a / b for a, b in zip(inits["with"], inits["without"], strict=True))
    table.add_row("init() with / without", f"x {ratio:.2f}")
    console.print(table)
    report.at_most("inventory of 8 GPUs, the first time", 1000 * middle(p["first"] for p in probes), TARGET_MS, "ms")


def _told(code: str, environ: dict[str, str], folder: Path) -> Any:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout.splitlines()[-1])
