"""Display ids of runs (``MMP-12``), and the sqids in the addresses of their pages.

Pure functions on text; the database assigns the numbers. Different projects may have the same prefix,
so a display id alone need not identify one run.

>>> [prefix_of(name) for name in ("my-ml-project", "training", "resnet-50", "a", "--")]
['MMP', 'TRA', 'R50', 'A', 'RUN']
>>> parse("mmp-12")
('MMP', 12)
>>> run_of_sqid(sqid_of_run(7))
7
"""

from __future__ import annotations

import re

from sqids import Sqids

from pluto_dist.server.settings import LARGEST_INTEGER

_SEPARATORS = re.compile(r"[-_.\s]+")
_DISPLAY_ID = re.compile(r"(?P<prefix>.+)-(?P<number>[0-9]+)", re.DOTALL)
_SQIDS = Sqids()
_MIN_LENGTH, _MAX_LENGTH = 3, 4  # of a prefix, if the project's name has as many characters
_DIGITS = 11  # as many make a number too large for a run; int() takes no more than 4,300


def prefix_of(project: str) -> str:
    """The prefix of a project's display ids: one to four characters, upper case."""
    words = [word for word in _SEPARATORS.split(project) if word]
    if not words:
        return "RUN"
    initials = "".join(word[0] for word in words[:-1])
    last = words[-1][: max(1, _MIN_LENGTH - len(initials))]
    return (initials + last)[:_MAX_LENGTH].upper()[:_MAX_LENGTH]


def display_id(prefix: str, number: int) -> str:
    return f"{prefix}-{number}"


def parse(text: str) -> tuple[str, int] | None:
    """Prefix (in upper case) and number of a display id; ``None`` if ``text`` is no display id.

    Of a number that is too large for a run, only the first digits are read.
    """
    found = _DISPLAY_ID.fullmatch(text)
    return (found["prefix"].upper(), int(found["number"].lstrip("0")[:_DIGITS] or "0")) if found else None


def sqid_of_run(run: int) -> str:
    """The sqid in the address of a run's page."""
    return _SQIDS.encode([run])


def decode_sqid(sqid: str) -> int | None:
    """The first number that a sqid decodes to, canonical or not, as on the hosted tracker; ``None`` if there is none.

    >>> decode_sqid("Uk"), decode_sqid("create"), decode_sqid("-")
    (1, 642064977, None)
    """
    numbers = _SQIDS.decode(sqid) if sqid.isascii() else []
    return numbers[0] if numbers and numbers[0] <= LARGEST_INTEGER else None


def run_of_sqid(sqid: str) -> int | None:
    """The run of a canonical sqid; ``None`` for any other text."""
    number = decode_sqid(sqid)
    return number if number is not None and sqid_of_run(number) == sqid else None
