"""One row of the contract: requests, the hosted tracker's measured result, and the embedded tracker's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from server.contract.target import Answer, Target

# The reasons why the embedded tracker differs from the hosted one; there are no others.
NUMBERS = "no lost run numbers"
CONFIG = "no lost config keys under concurrency"
VALID = "no error on valid input"
REASON = "a 400 with the reason"
LIMIT = "413 over the request limit"
EXACT = "numbers keep their digits"
ONCE = "a batch sent twice is stored once"
WHOLE = "a batch is stored whole or not at all"
STABLE = "addresses of runs stay"
FIELDS = "more for pages and scripts"
ADDRESS = "one address for all services"
Better = Literal[
    "",
    "no lost run numbers",
    "no lost config keys under concurrency",
    "no error on valid input",
    "a 400 with the reason",
    "413 over the request limit",
    "numbers keep their digits",
    "a batch sent twice is stored once",
    "a batch is stored whole or not at all",
    "addresses of runs stay",
    "more for pages and scripts",
    "one address for all services",
]


@dataclass(frozen=True)
class AnyOf:
    """A result that varies: a description, and a function that tests an observed result."""

    description: str
    accepts: Callable[[Any], bool]

    def __str__(self) -> str:
        return self.description


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        section: "requests", "races", "stored", "status", "updates" or "queries".
        name: description of the requests, unique in the section.
        observe: sends the requests; returns the result.
        hosted: the hosted tracker's result.
        embedded: the embedded tracker's result, if it differs.
        better: the reason why it differs, or "".
        needs: what the requests need of the target (see ``Target.has``), or "".
        read: whether ``hosted`` was read in the hosted tracker's source, not measured.
    """

    section: str
    name: str
    observe: Callable[[Target], Any]
    hosted: Any
    embedded: Any = None
    better: Better = ""
    needs: str = ""
    read: bool = False


@dataclass(frozen=True)
class Verdict:
    """The outcome of one row, by how the result compares with the hosted tracker's."""

    row: Row
    word: Literal["same", "better", "differs", "skipped"]
    observed: Any = None

    def __str__(self) -> str:
        row = self.row
        line = f"{self.word:9} {row.section}: {row.name}"
        if self.word == "better":
            known = "read" if row.read else "measured"
            return f"{line} [{row.better}: {_text(row.embedded)}; {known}: {_text(row.hosted)}]"
        if self.word == "differs":
            results = (row.hosted, row.embedded) if row.better else (row.hosted,)
            expected = " or ".join(map(_text, results))
            return f"{line}\n          expected {expected}\n          observed {_text(self.observed)}"
        return f"{line} (needs {row.needs})" if self.word == "skipped" else line


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def check(row: Row, target: Target) -> Verdict:
    """Send the requests of ``row`` to ``target`` and compare the result."""
    if not target.has(row.needs):
        return Verdict(row, "skipped")
    found = row.observe(target)
    if row.better and matches(found, row.embedded):
        return Verdict(row, "better", found)
    return Verdict(row, "same" if matches(found, row.hosted) else "differs", found)


def matches(found: Any, expected: Any) -> bool:
    if isinstance(expected, AnyOf):
        return expected.accepts(found)
    if isinstance(expected, Answer) and isinstance(found, Answer):
        return found.is_like(expected)
    if isinstance(expected, tuple) and isinstance(found, tuple):
        return len(found) == len(expected) and all(map(matches, found, expected))
    return bool(found == expected)


def closed_list(rows: Iterable[Row]) -> list[str]:
    """The lines of the table in the server's README.md: every row that the embedded tracker answers differently.

    Of results with several parts, those that differ are shown.
    """
    lines = ["| row | hosted | embedded | why |", "|---|---|---|---|"]
    for row in rows:
        if row.better:
            hosted, embedded = row.hosted, row.embedded
            if isinstance(hosted, tuple):
                parts = [pair for pair in zip(hosted, embedded, strict=True) if not matches(*pair[::-1])]
                hosted, embedded = zip(*parts, strict=True)
            mark = " (read)" if row.read else ""
            cells = f"{row.section}: {row.name}", _brief(hosted) + mark, _brief(embedded), row.better
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return lines


def _brief(value: Any) -> str:
    if isinstance(value, Answer):
        return str(value.status)
    if isinstance(value, (tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return ", ".join(map(_brief, items)) or "none"
    return str(value)
