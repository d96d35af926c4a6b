"""What an open run costs a training step: blocks of steps of the example, in turns with a run open and without.

Both kinds of blocks are of one job, so each pair has the same processes, data and machine. The interval is that of
the median, from the order of the ratios alone: what else runs on the machine makes some of them extreme.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

from init import NO_RESOLVER, ROOT
from measuring import Report, console, load
from rich.table import Table

from pluto_dist.server import LocalServer

TARGET = 0.01
RANK = str(ROOT / "scripts" / "benchmarks" / "steps_rank.py")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=int, default=150, metavar="N", help="pairs of blocks (default 150)")
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="in a block (default 200)")
    parser.add_argument("--heartbeat", type=float, default=10.0, metavar="S", help="between two of them (default 10)")


def run(report: Report, pairs: int = 150, steps: int = 200, heartbeat: float = 10.0) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", RANK, str(pairs), str(steps)]
    with LocalServer() as server:
        own = {
            **os.environ,
            **NO_RESOLVER,
            **server.environ(),
            "OMP_NUM_THREADS": "1",
            "PLUTO_DIST_HEARTBEAT": str(heartbeat),
        }
        done = subprocess.run(command, env=own, check=True, timeout=900, stdout=subprocess.PIPE, text=True)
        beats = sum("/trigger" in line for line in server.requests())
    measured = json.loads(done.stdout.splitlines()[-1])
    ratios = sorted(w / wo for w, wo in zip(measured["with"], measured["without"], strict=True))
    below = int(len(ratios) / 2 - 0.98 * len(ratios) ** 0.5)  # the 95 % interval of a median, by the binomial's normal
    low, mid, high = ratios[below], statistics.median(ratios), ratios[-1 - below]
    title = f"{pairs} pairs of {steps} steps, {beats} heartbeats, load {load()}"
    table = Table("", "ms a step", title=title, title_justify="left")
    for kind in ("without", "with"):
        table.add_row(f"{kind} an open run (median)", f"{1000 * statistics.median(measured[kind]):.3f}")
    table.add_row("ratio, median and its 95 % interval", f"{mid:.4f}  {low:.4f} to {high:.4f}")
    console.print(table)
    report.at_most("distance of the 95 % interval's ends from 1.00", max(high - 1, 1 - low), TARGET)
    report.at_most("1.00 lies outside of the 95 % interval", int(not low <= 1 <= high), 0)
