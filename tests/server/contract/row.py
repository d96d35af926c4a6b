"""One row of the contract: what is asked, what the real server was measured to answer, and where ours is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from server.contract.target import Answer, Target

# The closed list of where the embedded tracker is better on purpose.
NUMBERS = "no burned numbers"
CONFIG = "no lost config keys under concurrency"
VALID = "no 500 on valid input"
REASON = "a 400 that says what is wrong"
LIMIT = "413 beyond the request limit"
Better = Literal[
    "",
    "no burned numbers",
    "no lost config keys under concurrency",
    "no 500 on valid input",
    "a 400 that says what is wrong",
    "413 beyond the request limit",
]


@dataclass(frozen=True)
class AnyOf:
    """Where the real server's answer varies: what it may be, in words, and whether what was seen is that."""

    words: str
    holds: Callable[[Any], bool]

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        section: of the measurements: "requests", "races", "stored" or "status".
        name: what is asked, in words; unique.
        ask: asks it; gives what was seen.
        real: what the real server was measured to answer.
        ours: what the embedded tracker answers, where it is better.
        better: which entry of the closed list makes it so.
        needs: a key of ``Target.keys`` without which it cannot be asked.
    """

    section: str
    name: str
    ask: Callable[[Target], Any]
    real: Any
    ours: Any = None
    better: Better = ""
    needs: str = ""


@dataclass(frozen=True)
class Verdict:
    """What came of one row: "same", "better", "differs" or "not asked"."""

    row: Row
    word: Literal["same", "better", "differs", "not asked"]
    seen: Any = None

    def __str__(self) -> str:
        row = self.row
        line = f"{self.word:9} {row.section}: {row.name}"
        if self.word == "better":
            return f"{line} [{row.better}: {_shown(row.ours)}; measured: {_shown(row.real)}]"
        if self.word == "differs":
            wanted = " or ".join(_shown(each) for each in ((row.real, row.ours) if row.better else (row.real,)))
            return f"{line}\n          wanted {wanted}\n          saw    {_shown(self.seen)}"
        return f"{line} (needs {row.needs})" if self.word == "not asked" else line


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def judge(row: Row, target: Target) -> Verdict:
    """Ask ``target`` and compare."""
    if row.needs and row.needs not in target.keys:
        return Verdict(row, "not asked")
    found = row.ask(target)
    if row.better and matches(found, row.ours):
        return Verdict(row, "better", found)
    return Verdict(row, "same" if matches(found, row.real) else "differs", found)


def matches(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, AnyOf):
        return wanted.holds(found)
    if isinstance(wanted, Answer) and isinstance(found, Answer):
        return found.is_like(wanted)
    if isinstance(wanted, tuple) and isinstance(found, tuple):
        return len(found) == len(wanted) and all(map(matches, found, wanted))
    return bool(found == wanted)
