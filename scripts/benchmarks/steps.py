"""What an open run costs a training step: blocks of steps of the example, in turns with a run open and without.

Both kinds of blocks are of one job, so each pair has the same processes, data and machine. Heartbeats are sent every
0.2 s, fifty times as often as usual.
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
STUDENT = 1.984  # the 97.5 % quantile for 99 degrees of freedom


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=int, default=100, metavar="N", help="pairs of blocks (default 100)")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="in a block (default 50)")


def run(report: Report, pairs: int = 100, steps: int = 50) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", RANK, str(pairs), str(steps)]
    with LocalServer() as server:
        own = {**os.environ, **NO_RESOLVER, **server.environ(), "OMP_NUM_THREADS": "1", "PLUTO_DIST_HEARTBEAT": "0.2"}
        done = subprocess.run(command, env=own, check=True, timeout=900, stdout=subprocess.PIPE, text=True)
        beats = sum("/trigger" in line for line in server.requests())
    measured = json.loads(done.stdout.splitlines()[-1])
    ratios = [w / wo for w, wo in zip(measured["with"], measured["without"], strict=True)]
    mean = statistics.fmean(ratios)
    half = STUDENT * statistics.stdev(ratios) / len(ratios) ** 0.5
    title = f"{pairs} pairs of {steps} steps, {beats} heartbeats, load {load()}"
    table = Table("", "ms a step", title=title, title_justify="left")
    for kind in ("without", "with"):
        table.add_row(f"{kind} an open run (median)", f"{1000 * statistics.median(measured[kind]):.3f}")
    table.add_row("ratio, mean and 95 % interval", f"{mean:.4f}  {mean - half:.4f} to {mean + half:.4f}")
    console.print(table)
    report.at_most("distance of the 95 % interval's ends from 1.00", abs(mean - 1) + half, TARGET)
    report.at_most("1.00 lies outside of the 95 % interval", int(abs(mean - 1) > half), 0)
