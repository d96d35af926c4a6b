"""What ``pluto-dist run`` adds to ``torchrun``: wall time of the example that knows no tracker, started both ways.

In turns, so that both see the same machine; the ratio is that of each pair.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time

from init import NO_RESOLVER, ROOT
from measuring import Report, console, load, middle
from rich.table import Table

from pluto_dist.server import LocalServer

TARGET = 1.1
EXAMPLE = str(ROOT / "examples" / "plain_digits.py")
WAYS = {
    "torchrun": [sys.executable, "-m", "torch.distributed.run"],
    "pluto-dist run": [sys.executable, "-c", "from pluto_dist.cli import main; main()", "run", "--project=bench"],
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=int, default=10, metavar="N", help="(default 10)")
    parser.add_argument("--epochs", type=int, default=20, metavar="N", help="of the example (default 20)")


def run(report: Report, pairs: int = 10, epochs: int = 20) -> None:
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    with LocalServer() as server:
        for pair in range(pairs + 1):
            for way, command in WAYS.items():
                seconds = _start([*command, "--nproc-per-node=2", EXAMPLE, f"--epochs={epochs}"], server.environ())
                if pair:  # the first of each reads the disk
                    taken[way].append(seconds)
    ratios = sorted(ours / theirs for theirs, ours in zip(*taken.values(), strict=True))
    table = Table("", "median s", "fastest", "slowest", title=f"{pairs} pairs, load {load()}", title_justify="left")
    for way, seconds_of in taken.items():
        table.add_row(way, f"{middle(seconds_of):.2f}", f"{min(seconds_of):.2f}", f"{max(seconds_of):.2f}")
    table.add_row("ratio of each pair", f"{middle(ratios):.3f}", f"{ratios[0]:.3f}", f"{ratios[-1]:.3f}")
    console.print(table)
    report.at_most("pluto-dist run / torchrun, wall time", middle(ratios), TARGET)


def _start(command: list[str], environ: dict[str, str]) -> float:
    own = {**os.environ, **NO_RESOLVER, **environ, "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    done = subprocess.run(command, env=own, capture_output=True, text=True, timeout=300, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return seconds
