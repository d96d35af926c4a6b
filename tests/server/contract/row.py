"""One row of the contract: requests, the hosted tracker's measured result, and the embedded tracker's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from server.contract.target import Answer, Target

# The reasons why the embedded tracker differs from the hosted one; there are no others.
NUMBERS = "no lost run numbers"
CONFIG = "no lost config keys under concurrency"
VALID = "no 500 on valid input"
REASON = "a 400 with the reason"
LIMIT = "413 over the request limit"
Better = Literal[
    "",
    "no lost run numbers",
    "no lost config keys under concurrency",
    "no 500 on valid input",
    "a 400 with the reason",
    "413 over the request limit",
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
        section: "requests", "races", "stored" or "status".
        name: description of the requests, unique in the section.
        observe: sends the requests; returns the result.
        hosted: the hosted tracker's measured result.
        embedded: the embedded tracker's result, if it differs.
        better: the reason why it differs, or "".
        needs: the key of ``Target.keys`` that the requests need, or "".
    """

    section: str
    name: str
    observe: Callable[[Target], Any]
    hosted: Any
    embedded: Any = None
    better: Better = ""
    needs: str = ""


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
            return f"{line} [{row.better}: {_text(row.embedded)}; measured: {_text(row.hosted)}]"
        if self.word == "differs":
            results = (row.hosted, row.embedded) if row.better else (row.hosted,)
            expected = " or ".join(map(_text, results))
            return f"{line}\n          expected {expected}\n          observed {_text(self.observed)}"
        return f"{line} (needs {row.needs})" if self.word == "skipped" else line


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def check(row: Row, target: Target) -> Verdict:
    """Send the requests of ``row`` to ``target`` and compare the result."""
    if row.needs and row.needs not in target.keys:
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
