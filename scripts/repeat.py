"""Repeats tests while other processes keep the CPUs busy, and counts how often each of them failed.

The tally is a line for each test that failed: how often, of how many runs, and the file with all that pytest printed.
The exit code is 1 if any did.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextmanager
def load(count: int) -> Iterator[None]:
    """So many processes that use a CPU each."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def outcomes(report: Path) -> Iterator[tuple[str, str]]:
    """Each test of pytest's XML report, and whether it "passed", "failed" or was "skipped"."""
    for case in ET.parse(report).getroot().iter("testcase"):
        kinds = {child.tag for child in case}
        failed = "failed" if kinds & {"failure", "error"} else "passed"
        yield f"{case.get('classname')}::{case.get('name')}", "skipped" if "skipped" in kinds else failed


def repeat(arguments: Sequence[str], times: int, folder: Path) -> tuple[Counter[str], Counter[str]]:
    """How often each test ran, and how often it failed; the output of each time goes into ``folder``."""
    ran: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for number in range(1, times + 1):
        report, began = folder / f"{number}.xml", time.monotonic()
        command = [sys.executable, "-m", "pytest", "-q", "-rP", f"--junit-xml={report}", *arguments]
        with (folder / f"{number}.txt").open("w") as output:
            code = subprocess.run(command, cwd=ROOT, stdout=output, stderr=output, check=False).returncode
        if not report.exists():
            raise SystemExit(f"scripts/repeat: pytest ended with exit code {code}; see {folder / f'{number}.txt'}")
        seen = [(test, outcome) for test, outcome in outcomes(report) if outcome != "skipped"]
        ran.update(test for test, _ in seen)
        failed.update(test for test, outcome in seen if outcome == "failed")
        bad = [test for test, outcome in seen if outcome == "failed"]
        print(
            f"{number}/{times}: {len(seen)} ran, {len(bad)} failed, {time.monotonic() - began:.0f} s", *bad, flush=True
        )
    return ran, failed


def main() -> int:
    parser = argparse.ArgumentParser(description="Repeat tests under load; what is not named here goes to pytest.")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--load", type=int, default=4, help="processes that use a CPU each meanwhile")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "repeat", help="folder for what pytest prints")
    asked, arguments = parser.parse_known_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    for old in asked.output.glob("*.xml"):
        old.unlink()
    with load(asked.load):
        ran, failed = repeat(arguments, asked.times, asked.output)
    for test, count in failed.most_common():
        print(f"{count} of {ran[test]} failed: {test}")
    print(f"{sum(ran.values())} runs of {len(ran)} tests at load {asked.load}: {sum(failed.values())} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
