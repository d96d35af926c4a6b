"""Runs the simulator on a copy of the package that has a fault, in a folder of its own; the tree is never touched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simulation.mutants.mutant import UNCHANGED, Mutant, copy_package

TESTS = Path(__file__).parents[2]
CHUNK = 100  # seeds that one process simulates
LIMIT = 900.0  # seconds that it may take; a fault may make a simulated process spin
_VIOLATION = re.compile(r"^seed (\d+): (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """What the simulator found of one mutant.

    Attributes:
        seed: the first seed with a violation; ``None`` if there is none.
        profile: from which that schedule is drawn.
        violation: the invariant, and what was wrong.
        trouble: why the simulator came to no end, if it did not.
    """

    mutant: Mutant
    seed: int | None = None
    profile: str = ""
    violation: str = ""
    trouble: str = ""

    @property
    def is_right(self) -> bool:
        """Whether the fault was found; of the package as it is, whether none was."""
        return not self.trouble and (self.seed is None) == (self.mutant is UNCHANGED)

    def row(self) -> str:
        """The row of a Markdown table."""
        found = "not found" if self.seed is None else f"{self.seed}, {self.profile}"
        cells = (self.mutant.name, self.mutant.breaks, found, self.trouble or self.violation)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def simulate(mutant: Mutant, seeds: range, profiles: Sequence[str]) -> Result:
    """Simulate ``seeds`` with the mutant, to the first violation that the package as it is does not have there.

    Each hundred seeds are drawn from every one of the profiles, the one after the other.
    """
    with tempfile.TemporaryDirectory(prefix="pluto-dist-mutant-") as folder:
        faulty, sound = Path(folder, "faulty"), Path(folder, "sound")
        copy_package(faulty, mutant)
        copy_package(sound, UNCHANGED)
        for start in range(seeds.start, seeds.stop, CHUNK):
            for profile in profiles:
                result = _first(mutant, faulty, sound, range(start, min(start + CHUNK, seeds.stop)), profile)
                if result.trouble or result.seed is not None:
                    return result
    return Result(mutant)


def _first(mutant: Mutant, faulty: Path, sound: Path, seeds: range, profile: str) -> Result:
    """The first violation that the package as it is does not have there."""
    while seeds:
        result = _chunk(mutant, faulty, seeds, profile)
        if result.trouble or result.seed is None or mutant is UNCHANGED:
            return result
        if _chunk(UNCHANGED, sound, range(result.seed, result.seed + 1), profile).is_right:
            return result
        seeds = range(result.seed + 1, seeds.stop)
    return Result(mutant)


def python(folder: Path, *arguments: str, seconds: float = LIMIT) -> subprocess.CompletedProcess[str]:
    """Run Python with the package in ``folder``, in place of the tree's."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(TESTS)))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,  # the first place where Python looks for modules
        env=environ,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def _chunk(mutant: Mutant, folder: Path, seeds: range, profile: str) -> Result:
    chosen = f"{seeds.start}:{seeds.stop}"
    try:
        done = python(folder, "-m", "simulation", "--seeds", chosen, "--first", "--profile", profile)
    except subprocess.TimeoutExpired:
        return Result(mutant, trouble=f"seeds {chosen} had no end within {LIMIT:.0f} s")
    if done.returncode == 0:
        return Result(mutant)
    if done.returncode == 1 and (found := _VIOLATION.search(done.stdout)):
        return Result(mutant, int(found[1]), profile, found[2])
    said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
    return Result(mutant, trouble=f"seeds {chosen} ended with exit code {done.returncode}: {said[-1]}")
