"""Reads one value for a probe; the only module of ``inventory`` that suppresses arbitrary exceptions.

>>> attempt(lambda: 1 + 1)
(2, None)
>>> value, error = attempt(lambda: int("x"))
>>> value, type(error).__name__
(None, 'ValueError')
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def attempt(read: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """The value that ``read`` returns, or ``None`` and the exception.

    Any exception means that this value is unknown: pynvml raises UnicodeDecodeError for a name that is not UTF-8,
    NVMLLibraryMismatchError (not an NVMLError) for an old driver, TypeError if its signature changed; in containers
    /proc and /sys may be missing, unreadable or malformed. None of this may affect the other values or the training.
    """
    try:
        return read(), None
    except Exception as error:  # noqa: BLE001 - see above: a value that cannot be read is unknown, nothing more
        return None, error


def value_or_none(read: Callable[[], T]) -> T | None:
    """The value that ``read`` returns, or ``None`` if it raises an exception."""
    return attempt(read)[0]
