"""What is a family of checks, and what is it given?

One look at the machine (I/O) serves several checks (pure). Families run side by side, each in a thread of its
own, so that one that hangs costs none of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pluto_dist.doctor.finding import Finding

S = TypeVar("S")

REPORT_IT = "Report this with the output of pluto-dist doctor --json."

TIMEOUT = 12.0
"""Seconds that the whole doctor gets, but for printing."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a look finds what it looks at.

    Attributes:
        environ: the environment of the job to come.
        offline: ask no network.
        timeout: seconds; a look that takes longer is given up.
        root: where its files are.
    """

    environ: Mapping[str, str]
    offline: bool = False
    timeout: float = TIMEOUT
    root: Path = Path("/")


@dataclass(frozen=True, slots=True)
class Family(Generic[S]):
    """Checks that share a look.

    Attributes:
        look: reads what the checks judge. What it raises, and its silence, become the first check's problem.
        checks: names, and pure functions of what was seen.
        if_silent: what mends a look that does not come back.
    """

    look: Callable[[Machine], S]
    checks: tuple[tuple[str, Callable[[S], Finding]], ...]
    if_silent: str = REPORT_IT


AnyFamily = Family[Any]
