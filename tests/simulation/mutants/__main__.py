"""``scripts/mutants [NAME ...]``: which faults of the package the simulator finds, as a Markdown table."""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from simulation.mutants import MUTANTS
from simulation.mutants.mutant import UNCHANGED, Mutant
from simulation.mutants.running import simulate
from simulation.schedule import PROFILES

KNOWN = {mutant.name: mutant for mutant in (UNCHANGED, *MUTANTS)}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/mutants",
        description="Simulate the package with one small fault at a time, and as it is; print what is found.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="of mutants; default: all, and 'unchanged'")
    parser.add_argument(
        "--seeds", type=_seeds, default=range(1000), metavar="A:B", help="of each profile; default: 0:1000"
    )
    parser.add_argument(
        "--profiles",
        type=_profiles,
        default=("scenes",),
        metavar="A,B",
        help=f"of {', '.join(PROFILES)}; default: scenes",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="mutants at a time")
    parser.add_argument("--list", action="store_true", help="list the mutants, and what each of them changes")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in KNOWN]:
        parser.error(f"no mutant {', '.join(unknown)}; --list lists them")
    mutants = [KNOWN[name] for name in given.names or KNOWN]
    if given.list:
        print("\n".join(map(_shown, mutants)))
        return 0
    print("| mutant | what it breaks | found at seed | by |\n|---|---|---|---|", flush=True)
    is_right = True
    with ThreadPoolExecutor(given.jobs) as pool:
        for result in pool.map(partial(simulate, seeds=given.seeds, profiles=given.profiles), mutants):
            print(result.row(), flush=True)
            is_right = is_right and result.is_right
    return 0 if is_right else 1


def _seeds(text: str) -> range:
    first, _, last = text.partition(":")
    return range(int(first), int(last))


def _profiles(text: str) -> tuple[str, ...]:
    """Raises ValueError if there is no such profile."""
    names = tuple(text.split(","))
    if unknown := set(names) - PROFILES.keys():
        raise ValueError(f"no profile {', '.join(unknown)}")
    return names


def _shown(mutant: Mutant) -> str:
    lines = [f"{mutant.name}: pluto_dist/{mutant.file}", f"  {mutant.breaks}"]
    lines += [f"  - {line}" for line in mutant.before.splitlines()]
    lines += [f"  + {line}" for line in mutant.after.splitlines()]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
