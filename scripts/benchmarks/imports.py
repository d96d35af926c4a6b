"""What `import pluto_dist` adds to the start of an interpreter.

Fresh interpreters, one after the other in turns, so that a busy minute hits every candidate alike.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time

from measuring import Report, console, load, middle, ms
from rich.table import Table

TARGET_MS = 20
CANDIDATES = {
    "bare interpreter": "pass",
    "import pluto_dist": "import pluto_dist",
    "... and pluto_dist.init": "import pluto_dist; pluto_dist.init",
    "import requests": "import requests",
    "import torch": "import torch",
}
ADDED = """
import sys
before = set(sys.modules)
import pluto_dist
added = sorted(set(sys.modules) - before)
import json
print(json.dumps({"added": added, "stdlib": sorted(sys.stdlib_module_names)}))
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--starts", type=int, default=15, metavar="N", help="interpreters for each (default 15)")


def run(report: Report, starts: int = 15) -> None:
    with tempfile.TemporaryDirectory(prefix="pluto-dist-bench-") as folder:
        taken: dict[str, list[float]] = {name: [] for name in CANDIDATES}
        for turn in range(starts + 1):
            for name, code in CANDIDATES.items():
                seconds = _start(code, folder)
                if turn:  # the first start of each reads the disk
                    taken[name].append(seconds)
        added = json.loads(_python(ADDED, folder))
    medians = {name: middle(values) for name, values in taken.items()}
    bare = medians["bare interpreter"]
    table = Table("", "ms", "above bare", "ratio", title=f"imports, medians of {starts}", title_justify="left")
    for name, seconds in medians.items():
        table.add_row(name, ms(seconds), ms(seconds - bare), f"{seconds / bare:.2f}")
    console.print(table)

    known = {*added["stdlib"], "pluto_dist"}
    foreign = sorted({module.partition(".")[0] for module in added["added"]} - known)
    own = [module for module in added["added"] if module.partition(".")[0] == "pluto_dist"]
    console.print(f"import pluto_dist adds {len(added['added'])} modules, {len(own)} of its own: {', '.join(own)}")
    console.print(f"third-party modules among them: {', '.join(foreign) or 'none'};  load {load()}")
    report.at_most(
        "import pluto_dist above the bare interpreter", 1000 * (medians["import pluto_dist"] - bare), TARGET_MS, "ms"
    )
    report.at_most("third-party modules that import pluto_dist loads", len(foreign), 0)


def _start(code: str, folder: str) -> float:
    began = time.perf_counter()
    _python(code, folder)
    return time.perf_counter() - began


def _python(code: str, folder: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, check=True, timeout=120, stdout=subprocess.PIPE, text=True
    )
    return done.stdout
