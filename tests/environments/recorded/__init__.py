"""Environments of real processes, as their launchers made them; cut down to the variables of launchers and schedulers.

One file per launch. Its first line is the command and its release. Then come the variables that all ranks have
alike, and after each blank line those of one rank, in the order of ranks. Slurm's cluster is called lab, its
nodes n1 and n2; where a value held a machine's name, that is head.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = sorted(file.stem for file in FOLDER.glob("*.txt"))


def recorded(name: str) -> list[dict[str, str]]:
    """The environment of each rank of one launch; of the process, where it was no launch of ranks."""
    _, _, text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").partition("\n")
    shared, *ranks = (_variables(block) for block in text.split("\n\n"))
    return [{**shared, **rank} for rank in ranks]


def _variables(block: str) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition("=") for line in block.splitlines() if line)}
