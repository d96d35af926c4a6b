"""What benchmarks share: medians, and the table ``figure | target | pass or fail`` at the end.

Each figure is printed with the machine's load when it was taken: figures of a busy machine are ratios at best.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)


def load() -> str:
    """The load averages over 1 and 5 minutes, and the number of cores."""
    one, five, _ = os.getloadavg()
    return f"{one:.1f} {five:.1f} / {os.cpu_count()}"


def ms(seconds: float | None) -> str:
    """Seconds as milliseconds, to three digits or so."""
    if seconds is None:
        return ""
    return f"{1000 * seconds:.1f}" if seconds < 0.1 else f"{1000 * seconds:.0f}"


def middle(values: Iterable[float]) -> float:
    return float(median(list(values)))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the last table; ``passed`` is ``None`` where nothing was measured."""

    figure: str
    value: str
    target: str
    passed: bool | None
    load: str


class Report:
    """Collects the figures that have a target."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def at_most(self, figure: str, value: float, limit: float, unit: str = "") -> None:
        blank = " " if unit else ""
        number = f"{value:.3g}" if isinstance(value, float) else str(value)
        self._rows.append(Row(figure, f"{number}{blank}{unit}", f"<= {limit:g}{blank}{unit}", value <= limit, load()))

    def at_least(self, figure: str, value: float, limit: float, unit: str = "") -> None:
        blank = " " if unit else ""
        measured, target = f"{value:,.0f}{blank}{unit}", f">= {limit:,.0f}{blank}{unit}"
        self._rows.append(Row(figure, measured, target, value >= limit, load()))

    def not_measured(self, figure: str, limit: float, why: str) -> None:
        self._rows.append(Row(figure, why, f"<= {limit:g}", None, load()))

    @property
    def missed(self) -> bool:
        return any(row.passed is False for row in self._rows)

    def show(self) -> None:
        table = Table("figure", "measured", "target", "", "load", title="targets", title_justify="left")
        verdicts = {True: "[green]pass[/green]", False: "[red]FAIL[/red]", None: "skipped"}
        for row in self._rows:
            table.add_row(row.figure, row.value, row.target, verdicts[row.passed], row.load)
        console.print()
        console.print(table)
