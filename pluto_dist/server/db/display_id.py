"""How a run is called: the display id that people read, and the short code in its page's address.

Pure text. Numbers are given by the database; this module neither counts nor looks anything up.
Prefixes of different projects may be equal, so a display id alone need not name one run.

>>> [prefix_of(name) for name in ("my-ml-project", "training", "resnet-50", "a", "--")]
['MMP', 'TRA', 'R50', 'A', 'RUN']
>>> parse("mmp-12")
('MMP', 12)
>>> run_of_code(code_of_run(7))
7
"""

from __future__ import annotations

import re

from sqids import Sqids

_SEPARATORS = re.compile(r"[-_.\s]+")
_DISPLAY_ID = re.compile(r"(?P<prefix>.+)-(?P<number>[0-9]{1,15})", re.DOTALL)
_SQIDS = Sqids()
_SHORT, _LONGEST = 3, 4
_LARGEST = 2**53


def prefix_of(project: str) -> str:
    """The prefix of every display id of a project: one to four characters, upper case."""
    words = [word for word in _SEPARATORS.split(project) if word]
    if not words:
        return "RUN"
    initials = "".join(word[0] for word in words[:-1])
    last = words[-1][: max(1, _SHORT - len(initials))]
    return (initials + last)[:_LONGEST].upper()[:_LONGEST]


def display_id(prefix: str, number: int) -> str:
    return f"{prefix}-{number}"


def parse(text: str) -> tuple[str, int] | None:
    """Prefix (upper case) and number of a display id; ``None`` when the text is none."""
    found = _DISPLAY_ID.fullmatch(text)
    return (found["prefix"].upper(), int(found["number"])) if found else None


def code_of_run(run: int) -> str:
    """The sqid of a run's number, as in the address of its page."""
    return _SQIDS.encode([run])


def number_of_code(code: str) -> int | None:
    """The one number that a sqid decodes to, canonical or not, as the hosted server has it.

    >>> number_of_code("Uk"), number_of_code("create"), number_of_code("-")
    (1, 642064977, None)
    """
    numbers = _SQIDS.decode(code) if code.isascii() else []
    return numbers[0] if len(numbers) == 1 and numbers[0] <= _LARGEST else None


def run_of_code(code: str) -> int | None:
    """The run that a sqid names, or ``None``; a code that decodes but is not canonical names none."""
    number = number_of_code(code)
    return number if number is not None and code_of_run(number) == code else None
