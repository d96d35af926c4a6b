"""The examples at the end of each command's ``--help``."""

from __future__ import annotations


def examples(*lines: str) -> str:
    """An epilog of a command; a test parses each line.

    >>> print(examples("pluto-dist show DIG-7").partition("Examples")[2])
    :
      pluto-dist show DIG-7
    """
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
