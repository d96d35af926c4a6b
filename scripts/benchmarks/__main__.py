"""``python scripts/benchmarks NAME [OPTIONS]``: runs one benchmark, or all; without a name lists them.

A missed target is reported, and is an exit code only with ``--strict``: a busy machine is no defect.
"""

from __future__ import annotations

import argparse
import sys
from types import ModuleType

import document
import imports
import init
import scale
import steps
from measuring import Report

import inventory
import launcher
import server

BENCHMARKS: dict[str, ModuleType] = {
    "document": document,
    "imports": imports,
    "init": init,
    "inventory": inventory,
    "launcher": launcher,
    "scale": scale,
    "server": server,
    "steps": steps,
}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: scripts/bench NAME [OPTIONS]    (NAME --help: its options)\n")
        for name, benchmark in BENCHMARKS.items():
            print(f"  {name:8} {_summary(benchmark)}")
        print(f"  {'all':8} every one of them, with its own defaults")
        return 0
    name, *options = arguments
    if name not in (*BENCHMARKS, "all"):
        print(f"scripts/bench: no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}, all", file=sys.stderr)
        return 2
    report = Report()
    strict = False
    for each in BENCHMARKS if name == "all" else (name,):
        benchmark = BENCHMARKS[each]
        parser = argparse.ArgumentParser(f"scripts/bench {name}", description=_summary(benchmark))
        parser.add_argument("--strict", action="store_true", help="exit code 1 where a target is missed")
        if name != "all":
            benchmark.add_options(parser)
        chosen = parser.parse_args(options)
        strict = chosen.strict
        benchmark.run(report, **{key: value for key, value in vars(chosen).items() if key != "strict"})
    report.show()
    return 1 if strict and report.missed else 0


def _summary(benchmark: ModuleType) -> str:
    return (benchmark.__doc__ or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
